"""The supervisor over tiny children: what dies comes back, what stops stops in order, one folder has one owner."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from connectors.ops import supervisor as module
from connectors.ops.supervisor import Program, Supervisor, acquire_lock, rotate_log
from tests.harness.support import ROOT

SLEEP = (sys.executable, "-S", "-c", "import time; time.sleep(600)")


@contextmanager
def running_supervisor(
    folder: Path, *programs: Program, order: Sequence[str] = (), clock: Callable[[], float] = time.monotonic
) -> Iterator[Supervisor]:
    with Supervisor(folder, clock=clock) as supervisor:
        supervisor.add(programs, order)
        yield supervisor


def poll_until(supervisor: Supervisor, holds: Callable[[], bool]) -> None:
    """Turn until something holds; the test's own time limit ends a wait that is in vain."""
    while not holds():
        supervisor.poll_once()
        time.sleep(min(0.02, supervisor.next_poll_delay()))


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def program_writing(path: Path, word: str) -> tuple[str, ...]:
    """A child that says a word in a file when it is asked to stop."""
    code = f"""
    import signal, sys, time
    def stop(*_):
        open({str(path)!r}, "a").write({word!r})
        sys.exit(0)
    signal.signal(signal.SIGTERM, stop)
    open({str(path)!r} + "." + {word!r}, "w").close()
    time.sleep(600)
    """
    return (sys.executable, "-S", "-c", textwrap.dedent(code))


def test_killed_process_is_restarted(tmp_path: Path) -> None:
    with running_supervisor(tmp_path, Program("one", SLEEP)) as supervisor:
        poll_until(supervisor, lambda: supervisor.ready)
        child = supervisor.processes[0]
        first = child.pid
        os.kill(first, signal.SIGKILL)
        poll_until(supervisor, lambda: supervisor.ready and child.pid not in {0, first})
        assert child.restarts == 1
        assert child.exit_reason == "SIGKILL"
        second = child.pid
    assert not is_alive(first)
    assert not is_alive(second)


def test_failing_process_is_restarted_with_backoff(tmp_path: Path) -> None:
    now = [1000.0]
    broken = Program("broken", (sys.executable, "-S", "-c", "import sys; sys.exit('no such shop')"), lambda: False)
    with running_supervisor(tmp_path, broken, clock=lambda: now[0]) as supervisor:
        child, pauses = supervisor.processes[0], []
        for _ in range(4):
            supervisor.poll_once()
            assert child.popen
            child.popen.wait()
            supervisor.poll_once()
            assert child.state == "waiting"
            pauses.append(round(child.start_at - now[0], 2))
            assert supervisor.next_poll_delay() == pytest.approx(child.start_at - now[0])
            now[0] = child.start_at
        assert pauses == [0.1, 0.2, 0.4, 0.8]
        assert child.exit_reason == "exit 1"
        assert child.last_log_line() == "no such shop"
        supervisor.poll_once()
        assert child.popen
        child.popen.wait()
        now[0] += module.STABLE_AFTER + 1
        supervisor.poll_once()
        assert child.backoff == module.FIRST_BACKOFF, "a long life earns a quick restart"


def test_missing_program_is_logged(tmp_path: Path) -> None:
    with running_supervisor(tmp_path, Program("ghost", ("/no/such/program",), lambda: False)) as supervisor:
        poll_until(supervisor, lambda: supervisor.processes[0].restarts > 0)
        assert supervisor.processes[0].last_log_line() == "/no/such/program: No such file or directory"


def test_nothing_starts_before_the_first_program_is_ready(tmp_path: Path) -> None:
    opened = [False]
    programs = [Program("gate", SLEEP, lambda: opened[0], must_be_ready_first=True), Program("house", SLEEP)]
    with running_supervisor(tmp_path, *programs) as supervisor:
        gate, house = supervisor.processes
        for _ in range(3):
            supervisor.poll_once()
        assert (gate.state, house.state) == ("starting", "waiting")
        opened[0] = True
        supervisor.poll_once()
        assert (gate.state, house.state) == ("ready", "ready")
        assert supervisor.next_poll_delay() == 5.0, "nothing to do: sleep"


def test_processes_stop_in_order(tmp_path: Path) -> None:
    said = tmp_path / "said"
    programs = [
        Program(word, program_writing(said, word), (tmp_path / f"said.{word}").exists) for word in ("r", "e", "o")
    ]
    with running_supervisor(tmp_path, *programs, order=("e", "o", "r")) as supervisor:
        poll_until(supervisor, lambda: supervisor.ready)
        pids = [child.pid for child in supervisor.processes]
        assert supervisor.close() == []
    assert said.read_text() == "eor"
    assert not any(map(is_alive, pids))
    assert {child.state for child in supervisor.processes} == {"stopped"}


def test_unresponsive_process_is_killed(tmp_path: Path) -> None:
    deaf = f"""
    import signal, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    open({str(tmp_path / "listening")!r}, "w").close()
    time.sleep(600)
    """
    program = Program("deaf", (sys.executable, "-S", "-c", textwrap.dedent(deaf)), (tmp_path / "listening").exists)
    with running_supervisor(tmp_path, program) as supervisor:
        poll_until(supervisor, lambda: supervisor.ready)
        pid = supervisor.processes[0].pid
        assert supervisor.close(kill_now=lambda: True) == ["deaf"]
    assert not is_alive(pid)


def test_one_supervisor_per_folder(tmp_path: Path) -> None:
    first = Supervisor(tmp_path / "data" / "run")
    with pytest.raises(ValueError, match=f"in use by another `attimo up` \\(process {os.getpid()}\\)"):
        Supervisor(tmp_path / "data" / "run")
    first.close()
    Supervisor(tmp_path / "data" / "run").close()


def test_lock_is_released_when_its_process_dies(tmp_path: Path) -> None:
    code = f"""
    import time
    from pathlib import Path
    from connectors.ops.supervisor import acquire_lock
    lock = acquire_lock(Path({str(tmp_path / "l")!r}))
    print("held", flush=True)
    time.sleep(600)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(ValueError, match=f"process {holder.pid}"):
            acquire_lock(tmp_path / "l")
        holder.kill()
        holder.wait()
    acquire_lock(tmp_path / "l").close()


@pytest.mark.skipif(sys.platform != "linux", reason="the leash is a promise of the Linux kernel")
def test_children_die_with_a_killed_supervisor(tmp_path: Path) -> None:
    code = f"""
    import sys
    from pathlib import Path
    from connectors.ops.supervisor import Program, SignalWaiter, Supervisor
    with SignalWaiter() as signals, Supervisor(Path({str(tmp_path)!r})) as supervisor:
        supervisor.add([Program("child", {SLEEP!r})])
        supervisor.poll_once()
        print(supervisor.processes[0].pid, flush=True)
        signals.wait(600)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        while (
            b"time.sleep(600)" not in Path(f"/proc/{child}/cmdline").read_bytes()
            or b"die_with_parent" in Path(f"/proc/{child}/cmdline").read_bytes()
        ):
            time.sleep(0.02)  # the leash has not become the child yet
        parent.kill()
        parent.wait()
    while is_alive(child):
        time.sleep(0.02)


def test_logs_are_bounded(tmp_path: Path) -> None:
    log = tmp_path / "edge.log"
    log.write_bytes(b"x" * 100)
    with log.open("ab") as writer:
        rotate_log(log, 99)
        writer.write(b"after")
    assert log.read_bytes() == b"after"
    assert (tmp_path / "edge.log.1").read_bytes() == b"x" * 100
    rotate_log(log, 99)
    assert log.read_bytes() == b"after"
