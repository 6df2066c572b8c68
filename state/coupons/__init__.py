"""Coupons of a person, and the leasing of codes to shards."""
