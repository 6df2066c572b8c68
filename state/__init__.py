"""What is remembered of one person, and the shard that remembers it."""
