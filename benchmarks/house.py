"""The processes of one benchmark over one temporary folder: Redis, attimo as it is run, the floor, a feeder."""

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
from benchmarks.listening import Heard, Listening
from connectors import valkey
from connectors.log import Place
from connectors.open_log import open_log
from connectors.up import environment, healthy
from domain import model as models
from domain.action import channel
from domain.record import Outgoing
from domain.settings import Settings
from domain.streams import MODELS, PUBLIC

ROOT = Path(__file__).resolve().parent.parent
SHOP = "bench"
SECRETS = {"ATTIMO_SECRET": "a-secret-of-the-benchmarks"}
PATIENCE = 180.0
"""Seconds until a benchmark that hears nothing gives up."""


class House:
    """One data folder, and the processes that were started over it. `persons` live in the shop."""

    def __init__(self, folder: Path, persons: int) -> None:
        self.folder, self.persons = folder, persons
        settings = Settings(data=str(folder / "data"))
        self.settings = Settings(
            data=settings.data, playbook=str(data.write_playbook(folder / "playbook")), shop=SHOP, port=_free_port(),
            redis=f"unix://{valkey.socket_path(settings)}", metrics_port=0, rate_per_key=1_000_000)
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.marked = 0
        self._pings = 0
        self.start("redis", *valkey.command(settings))
        self.wait(lambda: valkey.answers(valkey.socket_path(settings)), "Redis answers")
        self.listening = Listening(valkey.socket_path(settings), channel(SHOP, "*"))
        with open_log(self.settings) as log:
            log.append([Outgoing(MODELS, b"propensity", models.encode(data.model()))])

    @property
    def url(self) -> str:
        """Where the edge listens."""
        return f"http://127.0.0.1:{self.settings.port}"

    # -- processes ---------------------------------------------------------------------------------------------

    def start(self, name: str, *command: str) -> None:
        """Start a process; what it says goes into NAME.log."""
        with (self.folder / f"{name.replace('/', '-')}.log").open("ab") as out:
            self.running[name] = subprocess.Popen(
                command, env={**environment(self.settings), **SECRETS, "PYTHONPATH": str(ROOT)}, cwd=self.folder,
                stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def attimo(self, name: str) -> None:
        """Start `attimo run NAME`; of several on-site workers, "onsite I/N" is one."""
        process, _, share = name.partition(" ")
        self.start(name, sys.executable, "-m", "attimo", "run", process, *(("--worker", share) if share else ()))
        if name == "edge":
            self.wait(lambda: healthy(self.settings), "the edge answers")

    def module(self, name: str, module: str, *arguments: str) -> None:
        """Start a module of the benchmarks."""
        self.start(name, sys.executable, "-m", f"benchmarks.{module}", *arguments)

    def stop(self, name: str) -> None:
        """End a process we started: SIGTERM, and after 20 s SIGKILL."""
        process = self.running.pop(name)
        process.send_signal(signal.SIGCONT)  # who stands still hears nothing
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def pause(self, name: str) -> None:
        """Let a process stand still where it is."""
        self.running[name].send_signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Let it go on."""
        self.running[name].send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End all of them, Redis last."""
        self.listening.close()
        for name in sorted(self.running, key=lambda name: name == "redis"):
            self.stop(name)

    def cpu(self, name: str) -> int:
        """CPU time (ns) of a process so far, all its threads."""
        clock = ~self.running[name].pid << 3 | 2  # as clock_getcpuclockid(3) of Linux has it
        return time.clock_gettime_ns(clock)

    def resident(self, name: str) -> int:
        """Bytes of memory it holds."""
        pages = Path(f"/proc/{self.running[name].pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def wait(self, until: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
        """Wait until something is so; RuntimeError with the ends of the logs when it never is, or a process died."""
        end = time.monotonic() + seconds
        while not until():
            self.check(what)
            if time.monotonic() > end:
                raise RuntimeError(f"waited {seconds:.0f} s in vain until {what}\n{self.said()}")
            time.sleep(0.02)

    def check(self, doing: str) -> None:
        """RuntimeError when a process has ended by itself."""
        for name, process in self.running.items():
            if process.poll() not in (None, 0):
                raise RuntimeError(f"{name} ended with {process.returncode} before {doing}\n{self.said()}")

    def said(self) -> str:
        """The ends of what the processes wrote."""
        ends = {path.name: path.read_text(errors="replace")[-1500:] for path in self.folder.glob("*.log")}
        return "\n".join(f"--- {name}\n{text}" for name, text in ends.items() if text)

    # -- traffic -----------------------------------------------------------------------------------------------

    def traffic(self, count: int, seed: int) -> list[data.Happening]:
        """The next `count` events, with people marked who were not marked before."""
        made = data.Traffic(self.persons, seed, self.marked)
        found = [next(made) for _ in range(count)]
        self.marked = made.marked
        return found

    def append(self, happenings: Iterable[data.Happening], log_time: int | None = None) -> None:
        """Write events to the log at once: a backlog."""
        with open_log(self.settings) as log:
            group: list[Outgoing] = []
            for one in happenings:
                at = log_time or time.time_ns() // 1_000_000
                group.append(one.outgoing(at, log_time))
                if len(group) == 1_000:
                    log.append(group)
                    group = []
            log.append(group)

    def ends(self) -> dict[Place, int]:
        """Where the public streams end."""
        with open_log(self.settings) as log:
            return log.ends([(stream, p) for stream in PUBLIC for p in range(self.settings.partitions)])

    def signal(self) -> data.Happening:
        """A mark of somebody new, whose message tells that everything before it has been dealt with."""
        self._pings += 1
        made = data.Traffic(1, 900_000_000 + self._pings, marks=1.0)
        made.marked = 0
        one = next(made)
        who = f"signal-{self._pings}"
        return one._replace(anonymous_id=who, template=one.template.replace(one.anonymous_id.encode(), who.encode()))

    def hear(self, who: str, doing: str, seconds: float = PATIENCE) -> tuple[Heard, list[Heard]]:
        """Wait for the mark's message for one person; with it, everything that was heard on the way. What came behind
        it, maybe in the same breath, is heard next.
        """
        heard: list[Heard] = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.check(doing)
            found = self.listening.read(0.25)
            for n, one in enumerate(found, 1):
                heard.append(one)
                if one.anonymous_id == who and one.is_mark:
                    self.listening.keep(found[n:])
                    return one, heard
        raise RuntimeError(f"heard nothing for {seconds:.0f} s: {doing}\n{self.said()}")

    def ready(self, name: str) -> None:
        """Wait until an engine has dealt with all there was, and answers."""
        while True:
            one = self.signal()
            self.append([one])
            try:
                self.hear(one.anonymous_id, f"{name} answers", 1.0 if name == "floor" else 60.0)
            except RuntimeError:
                self.check(f"{name} answers")
                if self._pings > 500:
                    raise
            else:
                return

    def warm(self) -> None:
        """Let the store know all persons: each visited two days ago, and that visit is over."""
        began = time.time_ns() // 1_000_000 - 2 * 86_400_000
        for start in range(0, self.persons, 5_000):
            people = range(start, min(start + 5_000, self.persons))
            self.append((one for person in people for one in data.acquaintance(person)), began + start // 5_000 * 1_000)
        self.attimo("onsite")
        self.ready("onsite")
        self.wait(self._all_visits_over, "the visits of two days ago are over")
        self.stop("onsite")

    def _all_visits_over(self) -> bool:
        path = Path(self.settings.data) / "store" / "store.db"
        now = time.time_ns() // 1_000_000
        store = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            return not store.execute("SELECT count(*) FROM dues WHERE due < ?", (now - 1_000,)).fetchone()[0]
        finally:
            store.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def house(persons: int) -> Iterator[House]:
    """A house in a temporary folder; in the end its processes are ended and the folder is gone."""
    with tempfile.TemporaryDirectory(prefix="attimo-bench-", ignore_cleanup_errors=True) as folder:
        made = House(Path(folder), persons)
        before: Any = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            yield made
        finally:
            made.close()
            signal.signal(signal.SIGTERM, before)
