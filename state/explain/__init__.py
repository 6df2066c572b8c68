"""Explanations: why a person did or did not get a message."""
