"""Both logs, for the tests that hold them to the same promises."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest

from connectors.log import Log
from connectors.open_log import open_log
from domain.settings import Settings

PARTITIONS = 4
_shops = count()


@pytest.fixture
def kafka(broker: str) -> Settings:
    """The settings of a new log on Kafka."""
    from connectors.kafka_topics import create_topics

    settings = Settings(log=f"kafka://{broker}", shop=f"shop{next(_shops)}", partitions=PARTITIONS)
    create_topics(settings)
    return settings


@pytest.fixture(params=["sqlite", pytest.param("kafka", marks=pytest.mark.kafka)])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """The settings of a new log of each kind."""
    if request.param == "kafka":
        found = request.getfixturevalue("kafka")
        assert isinstance(found, Settings)
        return found
    return Settings(data=str(tmp_path), partitions=PARTITIONS)


@pytest.fixture
def reopen(settings: Settings) -> Iterator[Callable[[], Log]]:
    """Opens the log once more, as another process would; closes them all."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(open_log(settings))


@pytest.fixture
def log(reopen: Callable[[], Log]) -> Log:
    """A new log of each kind."""
    return reopen()
