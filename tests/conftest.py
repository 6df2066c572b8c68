"""What tests of several files ask for."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.listening import Listener
    from tests.system import House


@pytest.fixture(scope="session")
def broker() -> Iterator[str]:
    """One Kafka broker for every file that a process plays, and none where nobody asks: its start is long. Whoever asks
    takes a shop of his own.
    """
    from tests.kafka_broker import kafka_broker

    with kafka_broker() as bootstrap:
        yield bootstrap


@pytest.fixture
def listener(home: "House") -> "Iterator[Listener]":
    """Hears whatever anybody is told in the house that the test's own file builds."""
    from tests.listening import Listener  # a house is much to import: who asks for none does without

    made = Listener(home.settings.redis, home.settings.shop)
    yield made
    made.close()
