"""The playbook: what a marketer declares."""

import msgspec


class Playbook(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything in one shop folder."""
