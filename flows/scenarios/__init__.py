"""Scenarios: tests that a marketer can read."""
