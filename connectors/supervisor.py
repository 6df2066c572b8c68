"""The supervisor: starts programs, restarts what dies, stops them in order. `attimo up` is this and a screen.

    with Supervisor(folder) as supervisor:
        supervisor.add(programs)
        while not stopping:
            supervisor.turn()
            wait(supervisor.next_turn())

One turn never waits: it collects who died, starts what is due, and asks who is starting whether they are ready.
Each child has its own process group (Ctrl-C reaches the supervisor alone), its own log file, and a leash (`leash.py`).
"""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Self

import msgspec

FIRST_BACKOFF = 0.1
MAX_BACKOFF = 10.0
STEADY = 30.0
"""Seconds a child must have lived for its next restart to be immediate again."""
GRACE = 10.0
"""Seconds between SIGTERM and SIGKILL."""
MAX_LOG = 5_000_000
"""Bytes of a child's log before it moves to `.1`; there is one `.1`."""

LEASH = Path(__file__).with_name("leash.py")


class Program(msgspec.Struct, frozen=True):
    """What to run. `ready` is asked while it starts; nothing after a `gate` starts before the gate is ready."""

    name: str
    command: tuple[str, ...]
    ready: Callable[[], bool] = lambda: True
    gate: bool = False


class Child:
    """One program and how it fares: `waiting` to be started, `starting`, `ready`, or `stopped`."""

    def __init__(self, program: Program, log: Path) -> None:
        self.program = program
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None
        self.state = "waiting"
        self.restarts = 0
        self.backoff = FIRST_BACKOFF
        self.due = 0.0
        self.started = 0.0
        self.ended = ""

    @property
    def pid(self) -> int:
        """The process id; 0 while there is no process."""
        return self.process.pid if self.process else 0

    def last_words(self) -> str:
        """The last line of the log, at most 200 characters."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 4000))
                lines = file.read().decode("utf-8", "replace").strip().splitlines()
        except FileNotFoundError:
            return ""
        return lines[-1][-200:] if lines else ""


class Supervisor:
    """Keeps programs running until it is closed. Holds the lock of its folder; ValueError when another one has it."""

    def __init__(
        self, folder: Path, environment: Mapping[str, str] | None = None, clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.environment = dict(os.environ if environment is None else environment)
        self.clock = clock
        self.logs = folder / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self.children: list[Child] = []
        self._lock = hold(folder / "lock")
        self._stop_order: list[Child] = []
        self._rotated = clock()

    def add(self, programs: Sequence[Program], stop_order: Sequence[str] = ()) -> None:
        """Give it programs to keep, to be started in this order and stopped in `stop_order` (else backwards)."""
        self.children.extend(Child(program, self.logs / f"{program.name}.log") for program in programs)
        by_name = {child.program.name: child for child in self.children}
        ordered = [by_name.pop(name) for name in stop_order if name in by_name]
        self._stop_order = [*reversed(by_name.values()), *ordered]

    def turn(self) -> bool:
        """Look after everybody once, without waiting; True when somebody's state changed."""
        before = [(child.state, child.pid, child.restarts) for child in self.children]
        now = self.clock()
        for child in self.children:
            if child.process and child.process.poll() is not None:
                self._bury(child, now)
        for child in self.children:
            if child.state == "waiting" and child.due <= now:
                self._start(child, now)
            if child.state == "starting" and child.program.ready():
                child.state = "ready"
            if child.program.gate and child.state != "ready":
                break
        if now - self._rotated > 10:
            self._rotated = now
            for child in self.children:
                rotate(child.log)
        return before != [(child.state, child.pid, child.restarts) for child in self.children]

    def next_turn(self) -> float:
        """Seconds until a turn is useful; a child that dies (SIGCHLD) is a reason to come earlier."""
        now, wait = self.clock(), 5.0
        for child in self.children:
            if child.state == "starting":
                wait = min(wait, 0.1)
            elif child.state == "waiting":
                wait = min(wait, max(0.0, child.due - now))
            if child.program.gate and child.state != "ready":
                break
        return wait

    @property
    def ready(self) -> bool:
        """Whether everybody is."""
        return all(child.state == "ready" for child in self.children)

    def close(self, hurry: Callable[[], bool] = lambda: False) -> list[str]:
        """Stop everybody in order, each with SIGTERM and then, after `GRACE` seconds or when `hurry()` says so,
        with SIGKILL. Returns the names of those that had to be killed.
        """
        killed = []
        for child in self._stop_order:
            child.state = "stopped"
            process, child.process = child.process, None
            if process is None or process.poll() is not None:
                continue
            process.terminate()
            deadline = self.clock() + GRACE
            while True:
                try:
                    process.wait(0.1)
                    break
                except subprocess.TimeoutExpired:
                    if self.clock() > deadline or hurry():
                        process.kill()
                        process.wait()
                        killed.append(child.program.name)
                        break
        self._lock.close()
        return killed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._lock.closed:
            self.close()

    def _start(self, child: Child, now: float) -> None:
        rotate(child.log, MAX_LOG // 5)
        with child.log.open("ab") as log:
            child.process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(LEASH), str(os.getpid()), *child.program.command],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=self.environment, process_group=0,
            )
        child.state, child.started = "starting", now

    def _bury(self, child: Child, now: float) -> None:
        assert child.process
        code = child.process.returncode
        child.ended = signal.Signals(-code).name if code < 0 else f"exit {code}"
        first = child.restarts == 0 or now - child.started > STEADY
        child.backoff = FIRST_BACKOFF if first else min(child.backoff * 2, MAX_BACKOFF)
        child.due = now + child.backoff
        child.process, child.state = None, "waiting"
        child.restarts += 1


def hold(path: Path) -> IO[str]:
    """Take the lock of a data folder until the file is closed (or the process ends, however it ends).

    ValueError when another process has it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.seek(0)
        owner = lock.read().strip() or "unknown"
        lock.close()
        raise ValueError(f"data: {path.parent.parent} is in use by another `attimo up` (process {owner}); stop it, "
                         "or choose another folder with --data") from None
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def rotate(log: Path, limit: int = MAX_LOG) -> None:
    """Move a log that has grown beyond `limit` bytes to `.1`. Its writer keeps the file, so it is copied and emptied;
    what is written in between is lost, which a log may lose.
    """
    try:
        if log.stat().st_size > limit:
            shutil.copyfile(log, log.with_suffix(".log.1"))
            os.truncate(log, 0)
    except FileNotFoundError:
        pass
