"""How events change a profile: fragments, cart, session, e-commerce events."""
