"""Simulation: real shards over recorded events, in virtual time."""
