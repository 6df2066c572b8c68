"""Operators: pure steps over one person and one input."""
