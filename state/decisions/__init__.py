"""Frequency caps, exposures, eligibility, experiments, goals and the decision history."""
