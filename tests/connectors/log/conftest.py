"""Both logs, for the tests that hold them to the same promises."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest

from connectors.log.log import Log
from connectors.log.open import open_log
from domain.settings import Settings

PARTITIONS = 4
_shop_numbers = count()


@pytest.fixture
def kafka_settings(broker: str) -> Settings:
    """The settings of a new log on Kafka."""
    from connectors.log.kafka_admin import create_topics

    settings = Settings(log=f"kafka://{broker}", shop=f"shop{next(_shop_numbers)}", partitions=PARTITIONS)
    create_topics(settings)
    return settings


@pytest.fixture(params=["sqlite", pytest.param("kafka", marks=pytest.mark.kafka)])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """The settings of a new log of each kind."""
    if request.param == "kafka":
        found = request.getfixturevalue("kafka_settings")
        assert isinstance(found, Settings)
        return found
    return Settings(data=str(tmp_path), partitions=PARTITIONS)


@pytest.fixture
def open_again(settings: Settings) -> Iterator[Callable[[], Log]]:
    """Opens the log once more, as another process would; closes them all."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(open_log(settings))


@pytest.fixture
def log(open_again: Callable[[], Log]) -> Log:
    """A new log of each kind."""
    return open_again()
