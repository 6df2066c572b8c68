"""Opening the log that the settings name: `sqlite`, or `kafka://broker:9092,broker2:9092`."""

from pathlib import Path
from typing import Final

from connectors.log import Log, LogError
from connectors.log_sqlite import SqliteLog
from domain.settings import Settings

KAFKA: Final = "kafka://"


def open_log(settings: Settings) -> Log:
    """The log in force; LogError when the setting is wrong or the log does not fit.

    >>> open_log(Settings(log="rabbit"))
    Traceback (most recent call last):
        ...
    connectors.log.LogError: log = 'rabbit': expected 'sqlite' or 'kafka://host:port[,host:port]'
    """
    if settings.log == "sqlite":
        return SqliteLog(Path(settings.data), settings.partitions, settings.log_sync)
    if settings.log.startswith(KAFKA):
        from connectors.log_kafka import KafkaLog  # librdkafka is loaded only where it is used

        return KafkaLog(settings.log.removeprefix(KAFKA), settings.shop, settings.partitions)
    raise LogError(f"log = {settings.log!r}: expected 'sqlite' or 'kafka://host:port[,host:port]'")
