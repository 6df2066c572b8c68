"""`attimo up` with a real Redis and small stand-ins for the other processes: ready, restarted, stopped, alone."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from connectors.ops import up
from connectors.ops.up import addresses
from connectors.playbook import status
from connectors.redis import server
from domain.diagnostics import Diagnostic, PlaybookStatus
from domain.settings import Settings
from tests.harness.support import ROOT, free_port

# Answers every GET on the port of its process, and says so when it is asked to stop.
STAND_IN = """
import os, signal, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

class Yes(BaseHTTPRequestHandler):
    def do_GET(self):
        told = Path(os.environ["ATTIMO_DATA"], "metrics")
        self.send_response(200); self.end_headers(); self.wfile.write(told.read_bytes() if told.exists() else b"ok")

def stop(*_):
    print("asked to stop", flush=True)
    with open(os.environ["ATTIMO_DATA"] + "/order", "a") as order:
        order.write(name + " ")
    os._exit(0)

name = sys.argv[2]
port = int(os.environ["ATTIMO_METRICS_PORT"]) + {"edge": 0, "learning": 1, "outreach": 2, "onsite": 10}[name]
signal.signal(signal.SIGTERM, stop)
Thread(target=HTTPServer(("127.0.0.1", port), Yes).serve_forever, daemon=True).start()
if name == "edge":
    HTTPServer(("127.0.0.1", int(os.environ["ATTIMO_PORT"])), Yes).serve_forever()
signal.pause()
"""


class UpProcess:
    """A running `up`, and what it said."""

    def __init__(self, folder: Path, port: int, metrics_port: int) -> None:
        self.data, self.port, self.metrics_port = folder / "data", port, metrics_port
        (folder / "stand_in.py").write_text(STAND_IN)
        self.code = textwrap.dedent(f"""
            import sys
            from connectors import metrics
            from connectors.ops.up import run_up
            from domain.settings import Settings
            metrics.MISROUTED_POLL_INTERVAL = 0.1
            settings = Settings(data={str(self.data)!r}, port={port}, metrics_port={metrics_port}, demo=True)
            try:
                sys.exit(run_up(settings, [sys.executable, {str(folder / "stand_in.py")!r}]))
            except ValueError as wrong:
                sys.exit(str(wrong))
        """)
        self.output_file = folder / "out"
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        environment = {name: value for name, value in os.environ.items() if name != "REDIS_URL"}
        with self.output_file.open("ab") as out:
            return subprocess.Popen(
                [sys.executable, "-c", self.code], cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT
            )

    def wait_for_output(self, condition: Callable[[str], object]) -> str:
        while not condition(text := self.output_file.read_text()):
            assert self.process.poll() is None, text
            time.sleep(0.05)
        return text

    def children(self) -> dict[str, int]:
        """Name -> pid of the children that live."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
                words = (path / "cmdline").read_bytes().decode().split("\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if parent == self.process.pid and not any("leash.py" in word for word in words):
                found["redis" if "stand_in.py" not in " ".join(words) else words[3]] = int(path.name)
        return found


@pytest.fixture
def up_process(tmp_path: Path) -> Iterator[UpProcess]:
    if sys.platform != "linux":
        pytest.skip("reads /proc")
    running = UpProcess(tmp_path, free_port(), free_port() - 10)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait()


@pytest.mark.redis
def test_up_starts_restarts_and_stops_processes(up_process: UpProcess) -> None:
    text = up_process.wait_for_output(lambda text: "ready: open" in text)
    for word, line in addresses(
        Settings(data=str(up_process.data), port=up_process.port, metrics_port=up_process.metrics_port, demo=True)
    ):
        assert re.search(rf"^  {word} +{re.escape(line)}$", text, re.MULTILINE), "addresses are whole lines, to copy"
    assert server.is_responding(up_process.data / "run" / "redis.sock")
    first = up_process.children()
    assert sorted(first) == ["edge", "learning", "onsite", "outreach", "redis"]

    for name in ("onsite", "redis"):
        os.kill(first[name], signal.SIGKILL)
        up_process.wait_for_output(re.compile(rf"{name} is waiting; exited \(SIGKILL\)").search)
        while up_process.children().get(name, first[name]) == first[name]:
            time.sleep(0.05)
    up_process.wait_for_output(lambda text: text.count("ready: open") >= 2)

    again = subprocess.run(
        [sys.executable, "-c", up_process.code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert again.returncode == 1
    assert f"is in use by another `attimo up` (process {up_process.process.pid})" in again.stderr

    children = up_process.children()
    up_process.process.send_signal(signal.SIGTERM)
    assert up_process.process.wait() == 0
    assert up_process.output_file.read_text().endswith(
        "  stopping; press Ctrl-C again to kill the remaining processes\n  stopped\n"
    )
    assert (up_process.data / "order").read_text() == "edge onsite outreach learning "
    assert "asked to stop" in (up_process.data / "run" / "logs" / "edge.log").read_text()
    for pid in children.values():
        assert not Path(f"/proc/{pid}").exists()


@pytest.mark.redis
def test_children_die_with_a_killed_supervisor(up_process: UpProcess) -> None:
    up_process.wait_for_output(lambda text: "ready: open" in text)
    children = up_process.children()
    up_process.process.kill()
    up_process.process.wait()
    for pid in children.values():
        while Path(f"/proc/{pid}/fd").exists() and os.path.exists(f"/proc/{pid}/exe"):
            time.sleep(0.02)
    up_process.process = up_process.start()
    up_process.wait_for_output(lambda text: text.count("ready: open") == 2)
    up_process.process.send_signal(signal.SIGINT)
    assert up_process.process.wait() == 0


@pytest.mark.redis
def test_playbook_errors_are_shown_until_fixed(up_process: UpProcess) -> None:
    path = status.status_path(str(up_process.data))
    up_process.wait_for_output(lambda text: "ready: open" in text)
    problems = [Diagnostic("segments/cups.toml", n, "when.sesion", "is nothing") for n in range(1, 8)]
    status.write_status(
        path,
        PlaybookStatus.from_errors(
            "shop", problems, since=1_600_000_000_000, live_hash="5d2f9ac0", live_since=1_500_000_000_000
        ),
    )
    text = up_process.wait_for_output(lambda text: "and 2 more: attimo check shop" in text)
    said = r"^  shop/ has 7 errors, since 2020-09-1\d \d\d:\d\d: the playbook of 2017-07-1\d \d\d:\d\d stays live$"
    assert re.search(said, text, re.MULTILINE)
    assert "    segments/cups.toml, line 1, when.sesion: is nothing\n" in text
    status.write_status(path, None)
    up_process.wait_for_output(lambda text: text.endswith("  shop/: playbook is valid again\n"))
    status.write_status(path, PlaybookStatus.from_errors("shop", problems[:1], since=1_600_000_000_000))
    up_process.wait_for_output(lambda text: "shop/ has 1 error, since" in text)
    up_process.process.send_signal(signal.SIGTERM)
    assert up_process.process.wait() == 0
    before = len(up_process.output_file.read_text())
    up_process.process = up_process.start()
    text = up_process.wait_for_output(lambda text: "ready: open" in text[before:])[before:]
    assert "mistake" not in text, "what was wrong then may be right by now: the worker says it"


@pytest.mark.redis
def test_misrouted_warning_is_shown_while_it_lasts(up_process: UpProcess) -> None:
    told, wrong = up_process.data / "metrics", "12 % of the records of the public streams are in the wrong partition"

    def misrouted(share: float) -> None:
        told.with_name("next").write_text(f"attimo_misrouted_records_total 30.0\nattimo_misrouted_ratio {share}\n")
        told.with_name("next").rename(told)

    up_process.wait_for_output(lambda text: "ready: open" in text)
    misrouted(0.12)
    up_process.wait_for_output(
        lambda text: f"  {wrong} and are forwarded: set partitioner=murmur2_random in the producer\n" in text
    )
    misrouted(0.13)
    time.sleep(0.5)
    misrouted(0.001)
    text = up_process.wait_for_output(lambda text: text.endswith("  misrouted records are below the threshold again\n"))
    assert text.count("wrong partition") == 1, "how many they are is no news"


def test_port_in_use_is_reported_before_start(tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = Settings(data=str(tmp_path), port=port, redis="")
        with pytest.raises(ValueError, match=rf"port: {port} on 127.0.0.1 is in use; use another one with --port"):
            up.run_up(settings, ["/no/such/program"])


def test_unreachable_redis_is_reported(tmp_path: Path) -> None:
    settings = Settings(data=str(tmp_path), redis=f"redis://ann:hidden@127.0.0.1:{free_port()}/0")
    with pytest.raises(ValueError, match="redis: no response from redis://\\*\\*\\*@127") as refused:
        up.run_up(settings, ["/no/such/program"])
    assert "hidden" not in str(refused.value)


def test_every_setting_but_secrets_reaches_the_children() -> None:
    settings = Settings(data="d", demo=True, port=1, allowed_origins=("https://a.example",), secret="s", server_key="k")
    passed = up.child_environment(settings)
    assert (passed["ATTIMO_DEMO"], passed["ATTIMO_PORT"], passed["ATTIMO_DATA"]) == ("true", "1", "d")
    assert not {"ATTIMO_SECRET", "ATTIMO_SERVER_KEY"} & (passed.keys() - os.environ.keys())


def test_too_long_socket_path_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"data: the path of the socket .* use a data folder with a shorter path"):
        server.socket_path(Settings(data="/" + "d" * 120))
