"""The topics of the Kafka log: their names, creating them, checking them."""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any, Final

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec, ResourceType

from connectors.kafka_client import admin_settings, said
from connectors.log import LogError
from domain.settings import Settings
from domain.streams import ALL, PUBLIC, partitions_of

DAY: Final = 86_400_000
PATIENCE: Final = 15.0
ONE_TRY: Final = 5.0
"""Seconds to wait for the cluster's answer."""
PASSING: Final = frozenset({
    KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.REQUEST_TIMED_OUT, KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._NOENT,
    KafkaError.FENCED_LEADER_EPOCH, KafkaError.UNKNOWN_LEADER_EPOCH,
})
"""Errors that mend themselves: a topic was created a moment ago, a broker takes over from another."""


def topic_of(shop: str, stream: str) -> str:
    """The topic of a stream.

    >>> topic_of("demo", "clicks")
    'demo.clicks'
    """
    return f"{shop}.{stream}"


def kept_for(settings: Settings, stream: str) -> str:
    """How long (ms) a topic keeps its records, as a topic's configuration says it: -1 for ever.

    >>> kept_for(Settings(), "clicks"), kept_for(Settings(retention_internal_days=0), "letters")
    ('34560000000', '-1')
    """
    days = settings.retention_days if stream in PUBLIC else settings.retention_internal_days
    return str(days * DAY if days else -1)


def create_topics(settings: Settings) -> list[str]:
    """Create the topics that are missing, check the others; the names of the new ones. LogError says what is wrong."""
    admin = AdminClient(admin_settings(settings.log.removeprefix("kafka://")))
    there = check_topics(admin, settings.shop, settings.partitions, missing_is_wrong=False)
    wanted = [
        NewTopic(
            topic_of(settings.shop, stream),
            num_partitions=partitions_of(stream, settings.partitions),
            replication_factor=-1,
            config={"message.timestamp.type": "LogAppendTime", "retention.ms": kept_for(settings, stream)},
        )
        for stream in ALL
        if topic_of(settings.shop, stream) not in there
    ]
    if wanted:
        for topic, future in admin.create_topics(wanted, request_timeout=PATIENCE).items():
            answer(future.result, f"topic {topic} cannot be created")
        offsets(admin, [TopicPartition(topic.topic, 0) for topic in wanted], OffsetSpec.latest())  # until they answer
    return [topic.topic for topic in wanted]


def check_topics(admin: AdminClient, shop: str, partitions: int, missing_is_wrong: bool = True) -> set[str]:
    """The topics that are there; LogError when one has another partition count or the producer's time stamps."""
    topics = answer(lambda: admin.list_topics(timeout=PATIENCE), "no Kafka broker answers").topics
    there: set[str] = set()
    missing: list[str] = []
    for stream in ALL:
        topic = topic_of(shop, stream)
        if topic not in topics or topics[topic].error is not None:
            missing.append(topic)
            continue
        found, expected = len(topics[topic].partitions), partitions_of(stream, partitions)
        if found != expected:
            raise LogError(
                f"topic {topic} has {found} partitions, expected {expected}: the count is fixed when the log is"
                f" created; set partitions = {found}, or use another shop id"
            )
        there.add(topic)
    if missing and missing_is_wrong:
        raise LogError(f"there is no topic {', '.join(missing)}: `attimo topics create` makes them")
    resources = [ConfigResource(ResourceType.TOPIC, topic) for topic in sorted(there)]
    for resource, future in (admin.describe_configs(resources) if resources else {}).items():
        config = answer(future.result, f"topic {resource.name} cannot be described")
        if config["message.timestamp.type"].value != "LogAppendTime":
            raise LogError(
                f"topic {resource.name} has the producers' time stamps; set its message.timestamp.type to LogAppendTime"
            )
    return there


def answer(call: Callable[[], Any], what: str) -> Any:
    """The result of a call to the cluster; LogError when it fails."""
    try:
        return call()
    except KafkaException as wrong:
        raise LogError(f"{what}: {said(wrong)}") from wrong


def future_offset(future: Future[Any]) -> int:
    """The offset that an answer to `list_offsets` carries."""
    return int(future.result().offset)


def offsets(admin: AdminClient, names: Iterable[TopicPartition], spec: OffsetSpec) -> dict[tuple[str, int], int]:
    """The first or next offset of each topic partition; waits for topics that were created a moment ago.

    Several short questions rather than one long one: who asks while a partition has no leader learns of the new one
    only when asking again.
    """
    wanted = list(names)
    deadline = time.monotonic() + 2 * PATIENCE
    found: dict[tuple[str, int], int] = {}
    while wanted:
        asked = admin.list_offsets(
            dict.fromkeys(wanted, spec), isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=ONE_TRY
        )
        wanted = []
        for name, future in asked.items():
            try:
                found[name.topic, name.partition] = future_offset(future)
            except KafkaException as wrong:
                error = wrong.args[0]
                if not isinstance(error, KafkaError) or error.code() not in PASSING or time.monotonic() > deadline:
                    raise LogError(f"the ends of the log cannot be read: {said(wrong)}") from wrong
                wanted.append(name)
        if wanted:
            time.sleep(0.1)
    return found
