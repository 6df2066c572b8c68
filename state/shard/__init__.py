"""The shard: applies the records of one partition."""
