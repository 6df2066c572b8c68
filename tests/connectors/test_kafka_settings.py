"""Whoever asks a cluster for the ends of topics looks for leaders again and again; no broker is needed to see that."""

from typing import Any

import pytest

from connectors import kafka_topics, log_kafka
from domain.settings import Settings


class Asked(RuntimeError):
    """What an administrator was told."""


def admin(told: dict[str, Any]) -> None:
    raise Asked(told["bootstrap.servers"], told["metadata.max.age.ms"], told["topic.metadata.refresh.interval.ms"])


def test_leaders_are_not_believed_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (kafka_topics, log_kafka):
        monkeypatch.setattr(module, "AdminClient", admin)
    with pytest.raises(Asked) as creating:
        kafka_topics.create_topics(Settings(log="kafka://b:9092"))
    with pytest.raises(Asked) as opening:
        log_kafka.KafkaLog("b:9092", "demo")
    assert creating.value.args == opening.value.args == ("b:9092", 2_000, 2_000)
