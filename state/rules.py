"""The playbook, compiled: conditions as closures over a person, indexed by what can change them."""

from domain.playbook import Playbook


class Rules:
    """A playbook made ready to be asked."""

    def __init__(self, playbook: Playbook, hash: str) -> None:
        self.playbook = playbook
        self.hash = hash
