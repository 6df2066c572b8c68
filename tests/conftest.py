"""What tests of several files ask for."""

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.harness.instance import RunningInstance
    from tests.harness.pubsub import RedisSubscriber

LONGEST_FILES = (
    "system/test_crash.py",
    "browser/test_pixel.py",
    "browser/test_slots.py",
    "browser/test_widget.py",
    "system/test_benchmarks.py",
    "connectors/log/test_conformance.py",
    "browser/test_discounts.py",
    "flows/backtest/test_backtest.py",
    "flows/test_learning.py",
    "flows/test_outreach.py",
    "system/test_kafka.py",
    "state/shard/test_fuzz.py",
    "flows/test_quintiles.py",
    "system/test_coupons.py",
    "connectors/log/test_kafka.py",
    "connectors/http/test_collector_fuzz.py",
    "system/test_outreach.py",
    "state/conditions/test_index.py",
    "browser/test_demo_shop.py",
    "state/conditions/test_compile.py",
    "browser/test_end_to_end.py",
    "laws/test_workflows.py",
    "state/shard/test_person_cache.py",
    "state/conditions/test_change_times.py",
    "laws/test_decisions.py",
    "system/test_workers.py",
    "system/test_clean_stop.py",
)
"""Files that take ten seconds or more, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is long begins early: else one file is still played when everybody else has ended."""
    place = {(Path(__file__).parent / name).resolve(strict=True): n for n, name in enumerate(LONGEST_FILES)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


@pytest.fixture(scope="session")
def broker() -> Iterator[str]:
    """One Kafka broker for every file that a process plays, and none where nobody asks: its start is long. Whoever asks
    takes a shop of his own.
    """
    from tests.harness.kafka_broker import kafka_broker

    with kafka_broker() as bootstrap:
        yield bootstrap


@pytest.fixture
def subscriber(instance: "RunningInstance") -> "Iterator[RedisSubscriber]":
    """Hears whatever anybody is told in the house that the test's own file builds."""
    from tests.harness.pubsub import RedisSubscriber  # a house is much to import: who asks for none does without

    made = RedisSubscriber(instance.settings.redis, instance.settings.shop)
    yield made
    made.close()


ALLOWED_SKIPS = ("reference data", "this Node")
"""Reasons that may skip a test even with `ATTIMO_STRICT=1`: the recorded data is not part of the project."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With `ATTIMO_STRICT=1` a test that skips because a tool is missing fails."""
    report = yield
    if os.environ.get("ATTIMO_STRICT") == "1" and report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2]
        if not any(allowed in reason for allowed in ALLOWED_SKIPS):
            report.outcome, report.longrepr = "failed", f"{item.nodeid} must not skip: {reason}"
    return report
