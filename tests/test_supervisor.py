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

from connectors import supervisor as module
from connectors.supervisor import Program, Supervisor, hold, rotate
from tests.support import ROOT

SLEEP = (sys.executable, "-S", "-c", "import time; time.sleep(600)")


@contextmanager
def kept(folder: Path, *programs: Program, order: Sequence[str] = (),
         clock: Callable[[], float] = time.monotonic) -> Iterator[Supervisor]:
    with Supervisor(folder, clock=clock) as supervisor:
        supervisor.add(programs, order)
        yield supervisor


def until(supervisor: Supervisor, holds: Callable[[], bool]) -> None:
    """Turn until something holds; the test's own time limit ends a wait that is in vain."""
    while not holds():
        supervisor.turn()
        time.sleep(min(0.02, supervisor.next_turn()))


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def writes(path: Path, word: str) -> tuple[str, ...]:
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


def test_what_is_killed_comes_back(tmp_path: Path) -> None:
    with kept(tmp_path, Program("one", SLEEP)) as supervisor:
        until(supervisor, lambda: supervisor.ready)
        child = supervisor.children[0]
        first = child.pid
        os.kill(first, signal.SIGKILL)
        until(supervisor, lambda: supervisor.ready and child.pid not in {0, first})
        assert child.restarts == 1
        assert child.ended == "SIGKILL"
        second = child.pid
    assert not alive(first)
    assert not alive(second)


def test_what_cannot_start_is_tried_ever_more_slowly_and_says_why(tmp_path: Path) -> None:
    now = [1000.0]
    broken = Program("broken", (sys.executable, "-S", "-c", "import sys; sys.exit('no such shop')"), lambda: False)
    with kept(tmp_path, broken, clock=lambda: now[0]) as supervisor:
        child, pauses = supervisor.children[0], []
        for _ in range(4):
            supervisor.turn()
            assert child.process
            child.process.wait()
            supervisor.turn()
            assert child.state == "waiting"
            pauses.append(round(child.due - now[0], 2))
            assert supervisor.next_turn() == pytest.approx(child.due - now[0])
            now[0] = child.due
        assert pauses == [0.1, 0.2, 0.4, 0.8]
        assert child.ended == "exit 1"
        assert child.last_words() == "no such shop"
        supervisor.turn()
        assert child.process
        child.process.wait()
        now[0] += module.STEADY + 1
        supervisor.turn()
        assert child.backoff == module.FIRST_BACKOFF, "a long life earns a quick restart"


def test_a_program_that_is_not_there_is_said_in_its_log(tmp_path: Path) -> None:
    with kept(tmp_path, Program("ghost", ("/no/such/program",), lambda: False)) as supervisor:
        until(supervisor, lambda: supervisor.children[0].restarts > 0)
        assert supervisor.children[0].last_words() == "/no/such/program: No such file or directory"


def test_nothing_starts_before_the_gate_is_ready(tmp_path: Path) -> None:
    opened = [False]
    programs = [Program("gate", SLEEP, lambda: opened[0], gate=True), Program("house", SLEEP)]
    with kept(tmp_path, *programs) as supervisor:
        gate, house = supervisor.children
        for _ in range(3):
            supervisor.turn()
        assert (gate.state, house.state) == ("starting", "waiting")
        opened[0] = True
        supervisor.turn()
        assert (gate.state, house.state) == ("ready", "ready")
        assert supervisor.next_turn() == 5.0, "nothing to do: sleep"


def test_it_stops_in_order_and_waits(tmp_path: Path) -> None:
    said = tmp_path / "said"
    programs = [Program(word, writes(said, word), (tmp_path / f"said.{word}").exists) for word in ("r", "e", "o")]
    with kept(tmp_path, *programs, order=("e", "o", "r")) as supervisor:
        until(supervisor, lambda: supervisor.ready)
        pids = [child.pid for child in supervisor.children]
        assert supervisor.close() == []
    assert said.read_text() == "eor"
    assert not any(map(alive, pids))
    assert {child.state for child in supervisor.children} == {"stopped"}


def test_who_does_not_stop_is_killed(tmp_path: Path) -> None:
    deaf = f"""
    import signal, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    open({str(tmp_path / "listening")!r}, "w").close()
    time.sleep(600)
    """
    program = Program("deaf", (sys.executable, "-S", "-c", textwrap.dedent(deaf)), (tmp_path / "listening").exists)
    with kept(tmp_path, program) as supervisor:
        until(supervisor, lambda: supervisor.ready)
        pid = supervisor.children[0].pid
        assert supervisor.close(hurry=lambda: True) == ["deaf"]
    assert not alive(pid)


def test_one_folder_has_one_supervisor(tmp_path: Path) -> None:
    first = Supervisor(tmp_path / "data" / "run")
    with pytest.raises(ValueError, match=f"in use by another `attimo up` \\(process {os.getpid()}\\)"):
        Supervisor(tmp_path / "data" / "run")
    first.close()
    Supervisor(tmp_path / "data" / "run").close()


def test_the_lock_goes_with_its_process(tmp_path: Path) -> None:
    code = f"""
    import time
    from pathlib import Path
    from connectors.supervisor import hold
    lock = hold(Path({str(tmp_path / "l")!r}))
    print("held", flush=True)
    time.sleep(600)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(ValueError, match=f"process {holder.pid}"):
            hold(tmp_path / "l")
        holder.kill()
        holder.wait()
    hold(tmp_path / "l").close()


@pytest.mark.skipif(sys.platform != "linux", reason="the leash is a promise of the Linux kernel")
def test_children_die_with_a_killed_supervisor(tmp_path: Path) -> None:
    code = f"""
    import sys
    from pathlib import Path
    from connectors.supervisor import Program, Supervisor
    from connectors.signals import Signals
    with Signals() as signals, Supervisor(Path({str(tmp_path)!r})) as supervisor:
        supervisor.add([Program("child", {SLEEP!r})])
        supervisor.turn()
        print(supervisor.children[0].pid, flush=True)
        signals.wait(600)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        while b"time.sleep(600)" not in Path(f"/proc/{child}/cmdline").read_bytes() \
                or b"leash" in Path(f"/proc/{child}/cmdline").read_bytes():
            time.sleep(0.02)  # the leash has not become the child yet
        parent.kill()
        parent.wait()
    while alive(child):
        time.sleep(0.02)


def test_logs_are_bounded(tmp_path: Path) -> None:
    log = tmp_path / "edge.log"
    log.write_bytes(b"x" * 100)
    with log.open("ab") as writer:
        rotate(log, 99)
        writer.write(b"after")
    assert log.read_bytes() == b"after"
    assert (tmp_path / "edge.log.1").read_bytes() == b"x" * 100
    rotate(log, 99)
    assert log.read_bytes() == b"after"
