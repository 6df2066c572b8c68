"""The nouns. Frozen where they travel, declared once, no I/O."""
