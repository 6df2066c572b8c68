"""Segment membership: changed dependencies, static segments, workflow runs, RFM."""
