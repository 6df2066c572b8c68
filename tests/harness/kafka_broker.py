"""A real Kafka broker for tests: Apache Kafka in KRaft mode, one node, on free ports, in a temporary folder.

    python -m tests.harness.kafka_broker          runs one in the foreground

`make kafka` fetches its jars, once, into .cache/kafka (see tests/harness/pom.xml).
"""

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness.support import ROOT, free_port

JARS = ROOT / ".cache" / "kafka"
# Small and quick to start.
JVM = (
    "-Xmx384m",
    "-Xms128m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xshare:auto",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
    "-Dlog4j2.level=ERROR",
)

CONFIG = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={folder}/log
auto.create.topics.enable=false
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
log.cleaner.enable=false
log.index.size.max.bytes=65536
num.network.threads=2
num.io.threads=2
background.threads=2
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=1500
"""


def unavailable_reason() -> str:
    """Why no broker can be started here; empty when one can."""
    if not shutil.which("java"):
        return "no Java runtime"
    if not any(JARS.glob("kafka_2.13-*.jar")):
        return f"no jars in {JARS.relative_to(ROOT)}: run `make kafka`"
    return ""


class Broker:
    """One broker process; it can be killed and started again on its data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.bootstrap = f"127.0.0.1:{self.port}"
        self._config = folder / "server.properties"
        self._config.write_text(CONFIG.format(port=self.port, controller=free_port(), folder=folder))
        self._process: subprocess.Popen[bytes] | None = None
        subprocess.run(
            self._java("kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c", str(self._config)),
            check=True,
            timeout=60,
            stdout=subprocess.DEVNULL,
        )

    def _java(self, *arguments: str) -> list[str]:
        return ["java", *JVM, "-cp", f"{JARS}/*", *arguments]

    def start(self) -> None:
        """Start it, and return when it answers."""
        output = (self.folder / "output").open("ab")
        with output:
            self._process = subprocess.Popen(
                self._java("kafka.Kafka", str(self._config)), stdout=output, stderr=subprocess.STDOUT, cwd=self.folder
            )
        deadline = time.monotonic() + 45
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 0.5):
                    if self._answers():
                        return
            except OSError:
                pass
            time.sleep(0.1)
        self.kill()
        raise RuntimeError(f"the broker did not start: {(self.folder / 'output').read_text()[-2000:]}")

    def _answers(self) -> bool:
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        try:
            found = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0}).list_topics(timeout=2)
        except KafkaException:
            return False
        return bool(found.brokers)

    def kill(self) -> None:
        """Kill the broker with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None


@contextmanager
def running_broker() -> Iterator[Broker]:
    """A broker that can be killed and restarted; skip the test if none can start."""
    if reason := unavailable_reason():
        pytest.skip(f"no Kafka broker: {reason}")
    with tempfile.TemporaryDirectory(prefix="attimo-kafka-", ignore_cleanup_errors=True) as folder:
        broker = Broker(Path(folder))
        try:
            broker.start()
            yield broker
        finally:
            broker.kill()


@contextmanager
def kafka_broker() -> Iterator[str]:
    """Run a broker; yield its address."""
    with running_broker() as broker:
        yield broker.bootstrap


def main() -> None:
    """Run a broker until Ctrl-C."""
    if reason := unavailable_reason():
        sys.exit(f"no Kafka broker: {reason}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # the broker goes too
    with kafka_broker() as bootstrap:
        print(f"Kafka broker on {bootstrap}; Ctrl-C stops it and deletes its data", flush=True)  # noqa: T201 - command-line output
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
