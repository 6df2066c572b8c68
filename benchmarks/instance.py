"""The processes of one benchmark over one temporary folder: Redis, attimo, the floor, a feeder."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import data
from benchmarks.subscriber import ReceivedMessage, RedisSubscriber
from connectors.log.log import StreamPartition
from connectors.log.open import open_log
from connectors.ops.up import child_environment, is_healthy
from connectors.redis import server
from domain import model as models
from domain.action import pubsub_channel
from domain.record import MODELS, PUBLIC_STREAMS, NewRecord
from domain.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
SHOP = "bench"
SECRETS = {"ATTIMO_SECRET": "a-secret-of-the-benchmarks"}
TIMEOUT = 180.0
"""Seconds without a message after which a benchmark fails."""


class BenchmarkInstance:
    """One data folder with its processes; the store has `persons` people."""

    def __init__(self, folder: Path, persons: int) -> None:
        self.folder, self.persons = folder, persons
        settings = Settings(data=str(folder / "data"))
        self.settings = Settings(
            data=settings.data,
            playbook=str(data.write_playbook(folder / "playbook")),
            shop=SHOP,
            port=_free_port(),
            redis=f"unix://{server.socket_path(settings)}",
            metrics_port=0,
            rate_limit_per_key=1_000_000,
        )
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.marked_persons = 0
        self._signal_count = 0
        self.start("redis", *server.server_command(settings))
        self.wait_until(lambda: server.is_responding(server.socket_path(settings)), "Redis answers")
        self.subscriber = RedisSubscriber(server.socket_path(settings), pubsub_channel(SHOP, "*"))
        with open_log(self.settings) as log:
            log.append([NewRecord(MODELS, b"propensity", models.encode_model(data.model()))])

    @property
    def url(self) -> str:
        """The URL of the edge."""
        return f"http://127.0.0.1:{self.settings.port}"

    # -- processes ---------------------------------------------------------------------------------------------

    def start(self, name: str, *command: str) -> None:
        """Start a process with its output in NAME.log."""
        with (self.folder / f"{name.replace('/', '-')}.log").open("ab") as out:
            self.processes[name] = subprocess.Popen(
                command,
                env={**child_environment(self.settings), **SECRETS, "PYTHONPATH": str(ROOT)},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )

    def start_attimo(self, name: str) -> None:
        """Start `attimo run NAME`; "onsite I/N" is one of several on-site workers."""
        process, _, share = name.partition(" ")
        self.start(name, sys.executable, "-m", "attimo", "run", process, *(("--worker", share) if share else ()))
        if name == "edge":
            self.wait_until(lambda: is_healthy(self.settings), "the edge answers")

    def start_module(self, name: str, module: str, *arguments: str) -> None:
        """Start a module of the benchmarks."""
        self.start(name, sys.executable, "-m", f"benchmarks.{module}", *arguments)

    def stop(self, name: str) -> None:
        """Stop a process: SIGTERM, and after 20 s SIGKILL."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGCONT)  # a stopped process handles no signals
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def pause(self, name: str) -> None:
        """Pause a process."""
        self.processes[name].send_signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Resume a process."""
        self.processes[name].send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Stop all processes, Redis last."""
        self.subscriber.close()
        for name in sorted(self.processes, key=lambda name: name == "redis"):
            self.stop(name)

    def cpu(self, name: str) -> int:
        """CPU time (ns) of a process with all its threads."""
        clock = ~self.processes[name].pid << 3 | 2  # as clock_getcpuclockid(3) of Linux has it
        return time.clock_gettime_ns(clock)

    def resident_memory(self, name: str) -> int:
        """Resident memory of a process in bytes."""
        pages = Path(f"/proc/{self.processes[name].pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def wait_until(self, condition: Callable[[], bool], description: str, timeout: float = TIMEOUT) -> None:
        """Wait for a condition. Raise RuntimeError with the log tails on a timeout or if a process exits."""
        end = time.monotonic() + timeout
        while not condition():
            self.check_alive(description)
            if time.monotonic() > end:
                raise RuntimeError(f"timeout after {timeout:.0f} s: {description}\n{self.log_tails()}")
            time.sleep(0.02)

    def check_alive(self, activity: str) -> None:
        """Raise RuntimeError if a process has exited."""
        for name, process in self.processes.items():
            if process.poll() not in (None, 0):
                raise RuntimeError(f"{name} exited with {process.returncode} during: {activity}\n{self.log_tails()}")

    def log_tails(self) -> str:
        """The last output of each process."""
        ends = {path.name: path.read_text(errors="replace")[-1500:] for path in self.folder.glob("*.log")}
        return "\n".join(f"--- {name}\n{text}" for name, text in ends.items() if text)

    # -- traffic -----------------------------------------------------------------------------------------------

    def next_events(self, count: int, seed: int) -> list[data.EventTemplate]:
        """The next `count` events, with markers for people who had none."""
        made = data.EventGenerator(self.persons, seed, self.marked_persons)
        found = [next(made) for _ in range(count)]
        self.marked_persons = made.marked_persons
        return found

    def append(self, events: Iterable[data.EventTemplate], log_time: int | None = None) -> None:
        """Append a backlog to the log."""
        with open_log(self.settings) as log:
            group: list[NewRecord] = []
            for one in events:
                at = log_time or time.time_ns() // 1_000_000
                group.append(one.to_record(at, log_time))
                if len(group) == 1_000:
                    log.append(group)
                    group = []
            log.append(group)

    def end_offsets(self) -> dict[StreamPartition, int]:
        """The end offsets of the public streams."""
        with open_log(self.settings) as log:
            return log.end_offsets([(stream, p) for stream in PUBLIC_STREAMS for p in range(self.settings.partitions)])

    def make_marker(self) -> data.EventTemplate:
        """A marker of a new person; its message means that everything before it is processed."""
        self._signal_count += 1
        made = data.EventGenerator(1, 900_000_000 + self._signal_count, marker_share=1.0)
        made.marked_persons = 0
        one = next(made)
        who = f"signal-{self._signal_count}"
        return one._replace(anonymous_id=who, template=one.template.replace(one.anonymous_id.encode(), who.encode()))

    def wait_for_marker(
        self, anonymous_id: str, activity: str, timeout: float = TIMEOUT
    ) -> tuple[ReceivedMessage, list[ReceivedMessage]]:
        """Wait for a marker message; return it with the messages before it. Later ones stay for the next call."""
        heard: list[ReceivedMessage] = []
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            self.check_alive(activity)
            found = self.subscriber.read(0.25)
            for n, one in enumerate(found, 1):
                heard.append(one)
                if one.anonymous_id == anonymous_id and one.is_marker:
                    self.subscriber.unread(found[n:])
                    return one, heard
        raise RuntimeError(f"no message for {timeout:.0f} s: {activity}\n{self.log_tails()}")

    def wait_until_ready(self, name: str) -> None:
        """Wait until an engine has processed the log and responds."""
        while True:
            one = self.make_marker()
            self.append([one])
            try:
                self.wait_for_marker(one.anonymous_id, f"{name} responds", 1.0 if name == "floor" else 60.0)
            except RuntimeError:
                self.check_alive(f"{name} responds")
                if self._signal_count > 500:
                    raise
            else:
                return

    def fill_store(self) -> None:
        """Create all people in the store, each with a finished session two days ago."""
        began = time.time_ns() // 1_000_000 - 2 * 86_400_000
        for start in range(0, self.persons, 5_000):
            people = range(start, min(start + 5_000, self.persons))
            self.append(
                (one for person in people for one in data.first_session(person)), began + start // 5_000 * 1_000
            )
        self.start_attimo("onsite")
        self.wait_until_ready("onsite")
        self.wait_until(self._all_sessions_ended, "the visits of two days ago are over")
        self.stop("onsite")

    def _all_sessions_ended(self) -> bool:
        path = Path(self.settings.data) / "store" / "store.db"
        now = time.time_ns() // 1_000_000
        store = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            return not store.execute("SELECT count(*) FROM timers WHERE due < ?", (now - 1_000,)).fetchone()[0]
        finally:
            store.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def benchmark_instance(persons: int) -> Iterator[BenchmarkInstance]:
    """An instance in a temporary folder, with cleanup."""
    with tempfile.TemporaryDirectory(prefix="attimo-bench-", ignore_cleanup_errors=True) as folder:
        made = BenchmarkInstance(Path(folder), persons)
        before: Any = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            yield made
        finally:
            made.close()
            signal.signal(signal.SIGTERM, before)
