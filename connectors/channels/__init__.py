"""Channel workers: one module per channel."""
