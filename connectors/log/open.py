"""Open the log named by the setting `log`: `sqlite`, or `kafka://broker:9092,broker2:9092`."""

from pathlib import Path
from typing import Final

from connectors.log.log import Log, LogError
from connectors.log.sqlite import SqliteLog
from domain.settings import Settings

KAFKA_SCHEME: Final = "kafka://"


def open_log(settings: Settings) -> Log:
    """Open the configured log. Raise LogError if the setting is invalid or does not match the log.

    >>> open_log(Settings(log="rabbit"))
    Traceback (most recent call last):
        ...
    connectors.log.log.LogError: log = 'rabbit': expected 'sqlite' or 'kafka://host:port[,host:port]'
    """
    if settings.log == "sqlite":
        return SqliteLog(Path(settings.data), settings.partitions, settings.log_sync)
    if settings.log.startswith(KAFKA_SCHEME):
        from connectors.log.kafka import KafkaLog  # load librdkafka only if it is used

        return KafkaLog(settings.log.removeprefix(KAFKA_SCHEME), settings.shop, settings.partitions)
    raise LogError(f"log = {settings.log!r}: expected 'sqlite' or 'kafka://host:port[,host:port]'")
