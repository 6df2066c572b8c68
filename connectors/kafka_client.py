"""What every Kafka client of attimo is told, and how a record says when it was really logged."""

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from confluent_kafka import KafkaException

PREFIX: Final = "ATTIMO_KAFKA_"
"""ATTIMO_KAFKA_SASL_PASSWORD becomes librdkafka's sasl.password, and so on: secrets are read from the environment."""

FRESH: Final = 2_000
"""Milliseconds for which an administrator believes what it knows of the brokers."""

LOG_TIME: Final = "attimo-log-time"
"""The header with the log time (decimal ms) of recorded history and of effects."""

MARKER: Final = b'{"type":"history"'
"""How the markers of recorded history begin."""


class Marker(msgspec.Struct, frozen=True):
    """History has been read up to `reached` (nothing earlier follows in this place), or has ended."""

    reached: int = 0
    ended: bool = False


_decode = msgspec.json.Decoder(Marker).decode


def marker_of(key: bytes | None, value: bytes) -> Marker | None:
    """The marker a record is; nothing when it is none.

    >>> marker_of(None, b'{"type":"history","reached":7}')
    Marker(reached=7, ended=False)
    """
    if key is not None or not value.startswith(MARKER):
        return None
    try:
        return _decode(value)
    except msgspec.DecodeError:
        return None


def given_time(headers: Sequence[tuple[str, bytes | None]] | None, appended: int) -> int | None:
    """The log time that a record brings along, never later than its append.

    >>> given_time([("attimo-log-time", b"5")], 9), given_time([("attimo-log-time", b"50")], 9), given_time(None, 9)
    (5, 9, None)
    """
    for name, value in headers or ():
        if name == LOG_TIME and value is not None and len(value) < 20 and value.isdigit():
            return min(int(value), appended)
    return None


def client_settings(bootstrap: str, environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """The settings that all clients share.

    >>> client_settings("b:9092", {"ATTIMO_KAFKA_SASL_USERNAME": "shop"})["sasl.username"]
    'shop'
    """
    found = {
        name.removeprefix(PREFIX).lower().replace("_", "."): value
        for name, value in environment.items()
        if name.startswith(PREFIX)
    }
    return {
        "bootstrap.servers": bootstrap,
        "client.id": "attimo",
        "allow.auto.create.topics": False,
        "reconnect.backoff.max.ms": 2000,
        "logger": logging.getLogger("attimo.kafka"),
        **found,
    }


def admin_settings(bootstrap: str, environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Those of a client that asks for the ends of topics: what it knows of leaders must not grow old, since with an old
    one they cannot be asked for.

    >>> admin_settings("b:9092", {})["metadata.max.age.ms"]
    2000
    """
    return {
        **client_settings(bootstrap, environment),
        "metadata.max.age.ms": FRESH,
        "topic.metadata.refresh.interval.ms": FRESH,
    }


def said(wrong: KafkaException) -> str:
    """What the client said.

    >>> said(KafkaException("gone"))
    'gone'
    """
    found = wrong.args[0]
    return found if isinstance(found, str) else found.str()
