"""Whoever asks a cluster for the ends of topics looks for leaders again and again; no broker is needed to see that."""

from typing import Any

import pytest

from connectors.log import kafka, kafka_admin
from domain.settings import Settings


class CapturedSettings(RuntimeError):
    """What an administrator was told."""


def capture_settings(told: dict[str, Any]) -> None:
    raise CapturedSettings(
        told["bootstrap.servers"], told["metadata.max.age.ms"], told["topic.metadata.refresh.interval.ms"]
    )


def test_leader_metadata_expires_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (kafka_admin, kafka):
        monkeypatch.setattr(module, "AdminClient", capture_settings)
    with pytest.raises(CapturedSettings) as creating:
        kafka_admin.create_topics(Settings(log="kafka://b:9092"))
    with pytest.raises(CapturedSettings) as opening:
        kafka.KafkaLog("b:9092", "demo")
    assert creating.value.args == opening.value.args == ("b:9092", 2_000, 2_000)
