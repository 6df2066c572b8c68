"""One file, one outside system."""
