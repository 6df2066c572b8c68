"""Data structures and pure functions, without I/O."""
