"""Adapters to external systems: log, Redis, HTTP, files, terminal."""
