"""Stores: the interface and its SQLite implementations."""
