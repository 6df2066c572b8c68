"""Kafka administration: client settings, log times and history markers of records, and topics."""

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final

import msgspec
from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec, ResourceType

from connectors.log.log import LogError
from domain.record import ALL_STREAMS, PUBLIC_STREAMS, partition_count
from domain.settings import Settings

ENV_PREFIX: Final = "ATTIMO_KAFKA_"
"""Prefix of librdkafka settings in the environment: ATTIMO_KAFKA_SASL_PASSWORD sets sasl.password."""

METADATA_MAX_AGE: Final = 2_000
"""Maximum age in ms of an admin client's metadata."""

LOG_TIME_HEADER: Final = "attimo-log-time"
"""Header with the log time (decimal ms) of recorded history and effects."""

MARKER_PREFIX: Final = b'{"type":"history"'
"""First bytes of a history marker."""


class HistoryMarker(msgspec.Struct, frozen=True):
    """Recorded history has reached a time (no earlier record follows in this stream partition), or has ended."""

    reached: int = 0
    ended: bool = False


_decode = msgspec.json.Decoder(HistoryMarker).decode


def parse_marker(key: bytes | None, value: bytes) -> HistoryMarker | None:
    """Parse a record as a history marker; return None if it is not one.

    >>> parse_marker(None, b'{"type":"history","reached":7}')
    HistoryMarker(reached=7, ended=False)
    """
    if key is not None or not value.startswith(MARKER_PREFIX):
        return None
    try:
        return _decode(value)
    except msgspec.DecodeError:
        return None


def header_log_time(headers: Sequence[tuple[str, bytes | None]] | None, append_time: int) -> int | None:
    """Return the log time in the headers, at most the append time; None if there is none.

    >>> [header_log_time([("attimo-log-time", value)], 9) for value in (b"5", b"50")], header_log_time(None, 9)
    ([5, 9], None)
    """
    for name, value in headers or ():
        if name == LOG_TIME_HEADER and value is not None and len(value) < 20 and value.isdigit():
            return min(int(value), append_time)
    return None


def client_settings(bootstrap: str, environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Return the settings that all clients share.

    >>> client_settings("b:9092", {"ATTIMO_KAFKA_SASL_USERNAME": "shop"})["sasl.username"]
    'shop'
    """
    found = {
        name.removeprefix(ENV_PREFIX).lower().replace("_", "."): value
        for name, value in environment.items()
        if name.startswith(ENV_PREFIX)
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
    """Return the settings of an admin client: requests for end offsets need current metadata of partition leaders.

    >>> admin_settings("b:9092", {})["metadata.max.age.ms"]
    2000
    """
    return {
        **client_settings(bootstrap, environment),
        "metadata.max.age.ms": METADATA_MAX_AGE,
        "topic.metadata.refresh.interval.ms": METADATA_MAX_AGE,
    }


def kafka_error_text(error: KafkaException) -> str:
    """Return the message of a client error.

    >>> kafka_error_text(KafkaException("gone"))
    'gone'
    """
    found = error.args[0]
    return found if isinstance(found, str) else found.str()


DAY_MS: Final = 86_400_000
REQUEST_TIMEOUT: Final = 15.0
ATTEMPT_TIMEOUT: Final = 5.0
"""Seconds to wait for one response of the cluster."""
RETRIABLE_ERRORS: Final = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError._TRANSPORT,
        KafkaError._TIMED_OUT,
        KafkaError._NOENT,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
    }
)
"""Temporary errors: a topic was just created, or a partition changes its leader."""


def topic_name(shop: str, stream: str) -> str:
    """Return the topic of a stream.

    >>> topic_name("demo", "clicks")
    'demo.clicks'
    """
    return f"{shop}.{stream}"


def retention_ms(settings: Settings, stream: str) -> str:
    """Return the value of `retention.ms` for a topic; -1 means no limit.

    >>> retention_ms(Settings(), "clicks"), retention_ms(Settings(retention_internal_days=0), "shard-messages")
    ('34560000000', '-1')
    """
    days = settings.retention_days if stream in PUBLIC_STREAMS else settings.retention_internal_days
    return str(days * DAY_MS if days else -1)


def create_topics(settings: Settings) -> list[str]:
    """Create missing topics and check the others; return the new names. Raise LogError if a topic is unsuitable."""
    admin = AdminClient(admin_settings(settings.log.removeprefix("kafka://")))
    existing = check_topics(admin, settings.shop, settings.partitions, require_all=False)
    wanted = [
        NewTopic(
            topic_name(settings.shop, stream),
            num_partitions=partition_count(stream, settings.partitions),
            replication_factor=-1,
            config={"message.timestamp.type": "LogAppendTime", "retention.ms": retention_ms(settings, stream)},
        )
        for stream in ALL_STREAMS
        if topic_name(settings.shop, stream) not in existing
    ]
    if wanted:
        for topic, future in admin.create_topics(wanted, request_timeout=REQUEST_TIMEOUT).items():
            call_broker(future.result, f"topic {topic} cannot be created")
        # Wait until the new topics are available.
        list_offsets(admin, [TopicPartition(topic.topic, 0) for topic in wanted], OffsetSpec.latest())
    return [topic.topic for topic in wanted]


def check_topics(admin: AdminClient, shop: str, partitions: int, require_all: bool = True) -> set[str]:
    """Return the existing topics. Raise LogError if one has another partition count or producer time stamps."""
    topics = call_broker(lambda: admin.list_topics(timeout=REQUEST_TIMEOUT), "no response from Kafka").topics
    existing: set[str] = set()
    missing: list[str] = []
    for stream in ALL_STREAMS:
        topic = topic_name(shop, stream)
        if topic not in topics or topics[topic].error is not None:
            missing.append(topic)
            continue
        found, expected = len(topics[topic].partitions), partition_count(stream, partitions)
        if found != expected:
            raise LogError(
                f"topic {topic} has {found} partitions, expected {expected}: the count is fixed when the log is"
                f" created; set partitions = {found}, or use another shop id"
            )
        existing.add(topic)
    if missing and require_all:
        raise LogError(f"missing topics: {', '.join(missing)}; create them with `attimo topics create`")
    resources = [ConfigResource(ResourceType.TOPIC, topic) for topic in sorted(existing)]
    for resource, future in (admin.describe_configs(resources) if resources else {}).items():
        config = call_broker(future.result, f"topic {resource.name} cannot be described")
        if config["message.timestamp.type"].value != "LogAppendTime":
            raise LogError(
                f"topic {resource.name} uses producer time stamps; set its message.timestamp.type to LogAppendTime"
            )
    return existing


def call_broker(call: Callable[[], Any], error_prefix: str) -> Any:
    """Return the result of a call to the cluster; raise LogError if it fails."""
    try:
        return call()
    except KafkaException as error:
        raise LogError(f"{error_prefix}: {kafka_error_text(error)}") from error


def offset_of(future: Future[Any]) -> int:
    """Return the offset in a response to `list_offsets`."""
    return int(future.result().offset)


def list_offsets(
    admin: AdminClient, topic_partitions: Iterable[TopicPartition], spec: OffsetSpec
) -> dict[tuple[str, int], int]:
    """Return the first or next offset of each topic partition; wait for topics that were just created.

    Sends several short requests instead of one long one: a request sent while a partition has no leader fails even if a
    new leader is elected meanwhile.
    """
    wanted = list(topic_partitions)
    deadline = time.monotonic() + 2 * REQUEST_TIMEOUT
    found: dict[tuple[str, int], int] = {}
    while wanted:
        asked = admin.list_offsets(
            dict.fromkeys(wanted, spec), isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=ATTEMPT_TIMEOUT
        )
        wanted = []
        for name, future in asked.items():
            try:
                found[name.topic, name.partition] = offset_of(future)
            except KafkaException as error:
                reason = error.args[0]
                if (
                    not isinstance(reason, KafkaError)
                    or reason.code() not in RETRIABLE_ERRORS
                    or time.monotonic() > deadline
                ):
                    raise LogError(f"the end offsets of the log cannot be read: {kafka_error_text(error)}") from error
                wanted.append(name)
        if wanted:
            time.sleep(0.1)
    return found
