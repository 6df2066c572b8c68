"""What tests of several files ask for."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.listening import Listener
    from tests.system import House

LONGEST = (
    "test_crash.py", "browser/test_pixel.py", "browser/test_slots.py", "browser/test_widget.py", "test_benchmarks.py",
    "connectors/test_log_conformance.py", "browser/test_discounts.py", "test_rehearsal.py", "test_learning_flow.py",
    "test_outreach_flow.py", "test_kafka_end_to_end.py", "test_fuzz_shard.py", "test_fifths_flow.py",
    "test_coupons_house.py", "connectors/test_log_kafka.py", "connectors/test_fuzz_collector.py",
    "test_outreach_house.py", "test_finding.py", "browser/test_demo_shop.py", "test_conditions.py",
    "browser/test_whole_house.py", "test_workflow_twin.py", "test_hot_and_cold.py",
    "test_conditions_in_time.py", "test_decision_twin.py", "test_workers.py", "test_clean_stop.py")
"""Files that take ten seconds or more, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is long begins early: else one file is still played when everybody else has ended."""
    place = {(Path(__file__).parent / name).resolve(strict=True): n for n, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


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
