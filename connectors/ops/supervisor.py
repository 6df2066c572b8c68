"""Process supervisor of `attimo up`: starts programs, restarts them when they exit, and stops them in order.

    with SignalWaiter() as signals, Supervisor(folder) as supervisor:
        supervisor.add(programs)
        while not signals.stop_count:
            supervisor.poll_once()
            signals.wait(supervisor.next_poll_delay())

`poll_once` never blocks: it reaps exited children, starts due ones, and checks whether starting ones are ready. Each
child has its own process group (Ctrl-C reaches the supervisor only) and log file, and dies with the supervisor.
"""

import fcntl
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Self

import msgspec

FIRST_BACKOFF = 0.1
MAX_BACKOFF = 10.0
STABLE_AFTER = 30.0
"""Seconds of run time after which the restart delay is reset."""
STOP_TIMEOUT = 10.0
"""Seconds between SIGTERM and SIGKILL."""
MAX_LOG_BYTES = 5_000_000
"""Size of a log file at which it is rotated to `.1` (one old file is kept)."""

DIE_WITH_PARENT = Path(__file__).with_name("die_with_parent.py")


class Program(msgspec.Struct, frozen=True):
    """A program to run. With `must_be_ready_first`, later programs start only when this one is ready."""

    name: str
    command: tuple[str, ...]
    is_ready: Callable[[], bool] = lambda: True
    must_be_ready_first: bool = False


class ManagedProcess:
    """A program and its state: `waiting` to be started, `starting`, `ready` or `stopped`."""

    def __init__(self, program: Program, log_path: Path) -> None:
        self.program = program
        self.log_path = log_path
        self.popen: subprocess.Popen[bytes] | None = None
        self.state = "waiting"
        self.restarts = 0
        self.backoff = FIRST_BACKOFF
        self.start_at = 0.0
        self.started_at = 0.0
        self.exit_reason = ""

    @property
    def pid(self) -> int:
        """The process id; 0 if there is no process."""
        return self.popen.pid if self.popen else 0

    def last_log_line(self) -> str:
        """Return the last line of the log, at most 200 characters."""
        try:
            with self.log_path.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 4000))
                lines = file.read().decode("utf-8", "replace").strip().splitlines()
        except FileNotFoundError:
            return ""
        return lines[-1][-200:] if lines else ""


class Supervisor:
    """Keeps programs running until it is closed. Raises ValueError if another supervisor locks the folder."""

    def __init__(
        self, folder: Path, environment: Mapping[str, str] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.environment = dict(os.environ if environment is None else environment)
        self.clock = clock
        self.log_folder = folder / "logs"
        self.log_folder.mkdir(parents=True, exist_ok=True)
        self.processes: list[ManagedProcess] = []
        self._lock = acquire_lock(folder / "lock")
        self._stop_order: list[ManagedProcess] = []
        self._rotated_at = clock()

    def add(self, programs: Sequence[Program], stop_order: Sequence[str] = ()) -> None:
        """Add programs. They start in this order and stop in `stop_order` (else in reverse order)."""
        self.processes.extend(ManagedProcess(program, self.log_folder / f"{program.name}.log") for program in programs)
        by_name = {process.program.name: process for process in self.processes}
        ordered = [by_name.pop(name) for name in stop_order if name in by_name]
        self._stop_order = [*reversed(by_name.values()), *ordered]

    def poll_once(self) -> bool:
        """Reap, start and check all processes once, without blocking; return True if a state changed."""
        before = [(process.state, process.pid, process.restarts) for process in self.processes]
        now = self.clock()
        for process in self.processes:
            if process.popen and process.popen.poll() is not None:
                self._reap(process, now)
        for process in self.processes:
            if process.state == "waiting" and process.start_at <= now:
                self._start(process, now)
            if process.state == "starting" and process.program.is_ready():
                process.state = "ready"
            if process.program.must_be_ready_first and process.state != "ready":
                break
        if now - self._rotated_at > 10:
            self._rotated_at = now
            for process in self.processes:
                rotate_log(process.log_path)
        return before != [(process.state, process.pid, process.restarts) for process in self.processes]

    def next_poll_delay(self) -> float:
        """Return the seconds until the next poll is due. A SIGCHLD is a reason to poll earlier."""
        now, wait = self.clock(), 5.0
        for process in self.processes:
            if process.state == "starting":
                wait = min(wait, 0.1)
            elif process.state == "waiting":
                wait = min(wait, max(0.0, process.start_at - now))
            if process.program.must_be_ready_first and process.state != "ready":
                break
        return wait

    @property
    def ready(self) -> bool:
        """True if all processes are ready."""
        return all(process.state == "ready" for process in self.processes)

    def close(self, kill_now: Callable[[], bool] = lambda: False) -> list[str]:
        """Stop all processes in order, and return the names of those that were killed.

        Each gets SIGTERM, and SIGKILL after `STOP_TIMEOUT` seconds or when `kill_now()` returns True.
        """
        killed = []
        for process in self._stop_order:
            process.state = "stopped"
            popen, process.popen = process.popen, None
            if popen is None or popen.poll() is not None:
                continue
            popen.terminate()
            deadline = self.clock() + STOP_TIMEOUT
            while True:
                try:
                    popen.wait(0.1)
                    break
                except subprocess.TimeoutExpired:
                    if self.clock() > deadline or kill_now():
                        popen.kill()
                        popen.wait()
                        killed.append(process.program.name)
                        break
        self._lock.close()
        return killed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._lock.closed:
            self.close()

    def _start(self, process: ManagedProcess, now: float) -> None:
        rotate_log(process.log_path, MAX_LOG_BYTES // 5)
        with process.log_path.open("ab") as log:
            process.popen = subprocess.Popen(
                [sys.executable, "-I", "-S", str(DIE_WITH_PARENT), str(os.getpid()), *process.program.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                process_group=0,
            )
        process.state, process.started_at = "starting", now

    def _reap(self, process: ManagedProcess, now: float) -> None:
        assert process.popen
        code = process.popen.returncode
        process.exit_reason = signal.Signals(-code).name if code < 0 else f"exit {code}"
        first = process.restarts == 0 or now - process.started_at > STABLE_AFTER
        process.backoff = FIRST_BACKOFF if first else min(process.backoff * 2, MAX_BACKOFF)
        process.start_at = now + process.backoff
        process.popen, process.state = None, "waiting"
        process.restarts += 1


def acquire_lock(path: Path) -> IO[str]:
    """Lock a data folder until the returned file is closed or the process ends.

    Raise ValueError if another process holds the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.seek(0)
        owner = lock.read().strip() or "unknown"
        lock.close()
        raise ValueError(
            f"data: {path.parent.parent} is in use by another `attimo up` (process {owner}); stop it, "
            "or use another folder with --data"
        ) from None
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def rotate_log(path: Path, max_bytes: int = MAX_LOG_BYTES) -> None:
    """Rotate a log file larger than `max_bytes` to `.1`.

    The writer keeps the file open, so the file is copied and truncated; lines written in between are lost.
    """
    try:
        if path.stat().st_size > max_bytes:
            shutil.copyfile(path, path.with_suffix(".log.1"))
            os.truncate(path, 0)
    except FileNotFoundError:
        pass


STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class SignalWaiter:
    """Handles stop signals and SIGCHLD while it is open, and waits for them without polling. Main thread only.

    `stop_count` counts stop signals: the first requests a stop, the second one an immediate kill.
    """

    def __init__(self) -> None:
        self.stop_count = 0
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def wait(self, seconds: float) -> None:
        """Wait up to `seconds` for a signal."""
        if select.select([self._reader], [], [], seconds)[0]:
            self._reader.recv(4096)

    def __enter__(self) -> Self:
        self._previous_handlers = {
            number: signal.signal(number, self._on_signal) for number in (*STOP_SIGNALS, signal.SIGCHLD)
        }
        self._wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        self._reader.close()
        self._writer.close()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number in STOP_SIGNALS:
            self.stop_count += 1
