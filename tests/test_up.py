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

from connectors import mistakes_file, up, valkey
from connectors.terminal import addresses
from domain.mistakes import Mistakes
from domain.problem import Problem
from domain.settings import Settings
from tests.support import ROOT, free_port

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


class House:
    """A running `up`, and what it said."""

    def __init__(self, folder: Path, port: int, metrics_port: int) -> None:
        self.data, self.port, self.metrics_port = folder / "data", port, metrics_port
        (folder / "stand_in.py").write_text(STAND_IN)
        self.code = textwrap.dedent(f"""
            import sys
            from connectors import misrouted
            from connectors.up import up
            from domain.settings import Settings
            misrouted.EVERY = 0.1
            settings = Settings(data={str(self.data)!r}, port={port}, metrics_port={metrics_port}, demo=True)
            try:
                sys.exit(up(settings, [sys.executable, {str(folder / "stand_in.py")!r}]))
            except ValueError as wrong:
                sys.exit(str(wrong))
        """)
        self.out = folder / "out"
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        environment = {name: value for name, value in os.environ.items() if name != "REDIS_URL"}
        with self.out.open("ab") as out:
            return subprocess.Popen([sys.executable, "-c", self.code], cwd=ROOT, env=environment,
                                    stdout=out, stderr=subprocess.STDOUT)

    def until(self, holds: Callable[[str], object]) -> str:
        while not holds(text := self.out.read_text()):
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
def house(tmp_path: Path) -> Iterator[House]:
    if sys.platform != "linux":
        pytest.skip("reads /proc")
    running = House(tmp_path, free_port(), free_port() - 10)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait()


@pytest.mark.redis
def test_the_house_starts_heals_and_stops(house: House) -> None:
    text = house.until(lambda text: "ready: open" in text)
    for word, line in addresses(Settings(data=str(house.data), port=house.port, metrics_port=house.metrics_port,
                                         demo=True)):
        assert re.search(rf"^  {word} +{re.escape(line)}$", text, re.MULTILINE), "addresses are whole lines, to copy"
    assert valkey.answers(house.data / "run" / "redis.sock")
    first = house.children()
    assert sorted(first) == ["edge", "learning", "onsite", "outreach", "redis"]

    for name in ("onsite", "redis"):
        os.kill(first[name], signal.SIGKILL)
        house.until(re.compile(rf"{name} is waiting; ended \(SIGKILL\)").search)
        while house.children().get(name, first[name]) == first[name]:
            time.sleep(0.05)
    house.until(lambda text: text.count("ready: open") >= 2)

    again = subprocess.run([sys.executable, "-c", house.code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert f"is in use by another `attimo up` (process {house.process.pid})" in again.stderr

    children = house.children()
    house.process.send_signal(signal.SIGTERM)
    assert house.process.wait() == 0
    assert house.out.read_text().endswith("  stopping; Ctrl-C once more kills what is left\n  stopped\n")
    assert (house.data / "order").read_text() == "edge onsite outreach learning "
    assert "asked to stop" in (house.data / "run" / "logs" / "edge.log").read_text()
    for pid in children.values():
        assert not Path(f"/proc/{pid}").exists()


@pytest.mark.redis
def test_nothing_survives_a_killed_supervisor_and_the_next_one_starts(house: House) -> None:
    house.until(lambda text: "ready: open" in text)
    children = house.children()
    house.process.kill()
    house.process.wait()
    for pid in children.values():
        while Path(f"/proc/{pid}/fd").exists() and os.path.exists(f"/proc/{pid}/exe"):
            time.sleep(0.02)
    house.process = house.start()
    house.until(lambda text: text.count("ready: open") == 2)
    house.process.send_signal(signal.SIGINT)
    assert house.process.wait() == 0


@pytest.mark.redis
def test_what_is_wrong_with_the_playbook_is_on_the_screen_while_it_is(house: House) -> None:
    path = mistakes_file.path_of(str(house.data))
    house.until(lambda text: "ready: open" in text)
    problems = [Problem("segments/cups.toml", n, "when.sesion", "is nothing") for n in range(1, 8)]
    mistakes_file.tell(path, Mistakes.of("shop", problems, since=1_600_000_000_000, live="5d2f9ac0",
                                         live_since=1_500_000_000_000))
    text = house.until(lambda text: "and 2 more: attimo check shop" in text)
    said = r"^  shop/ has 7 mistakes, since 2020-09-1\d \d\d:\d\d: the playbook of 2017-07-1\d \d\d:\d\d stays live$"
    assert re.search(said, text, re.MULTILINE)
    assert "    segments/cups.toml, line 1, when.sesion: is nothing\n" in text
    mistakes_file.tell(path, None)
    house.until(lambda text: text.endswith("  shop/ is in order again\n"))
    mistakes_file.tell(path, Mistakes.of("shop", problems[:1], since=1_600_000_000_000))
    house.until(lambda text: "shop/ has 1 mistake, since" in text)
    house.process.send_signal(signal.SIGTERM)
    assert house.process.wait() == 0
    before = len(house.out.read_text())
    house.process = house.start()
    text = house.until(lambda text: "ready: open" in text[before:])[before:]
    assert "mistake" not in text, "what was wrong then may be right by now: the worker says it"


@pytest.mark.redis
def test_records_in_the_wrong_partition_are_on_the_screen_while_there_are_many(house: House) -> None:
    told, wrong = house.data / "metrics", "12 % of the records of the public streams lie in the wrong partition"

    def misrouted(share: float) -> None:
        told.with_name("next").write_text(f"attimo_misrouted_total 30.0\nattimo_misrouted_share {share}\n")
        told.with_name("next").rename(told)

    house.until(lambda text: "ready: open" in text)
    misrouted(0.12)
    house.until(lambda text: f"  {wrong} and are forwarded: set partitioner=murmur2_random in the producer\n" in text)
    misrouted(0.13)
    time.sleep(0.5)
    misrouted(0.001)
    text = house.until(lambda text: text.endswith("  records lie in the right partition again\n"))
    assert text.count("wrong partition") == 1, "how many they are is no news"


def test_a_port_that_is_taken_is_said_before_anything_starts(tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = Settings(data=str(tmp_path), port=port, redis="")
        with pytest.raises(ValueError, match=rf"port: {port} on 127.0.0.1 is in use; choose another with --port"):
            up.up(settings, ["/no/such/program"])


def test_a_redis_that_does_not_answer_is_said(tmp_path: Path) -> None:
    settings = Settings(data=str(tmp_path), redis=f"redis://ann:hidden@127.0.0.1:{free_port()}/0")
    with pytest.raises(ValueError, match="redis: redis://\\*\\*\\*@127") as refused:
        up.up(settings, ["/no/such/program"])
    assert "hidden" not in str(refused.value)


def test_every_setting_but_secrets_reaches_the_children() -> None:
    settings = Settings(data="d", demo=True, port=1, origins=("https://a.example",), secret="s", server_key="k")
    passed = up.environment(settings)
    assert (passed["ATTIMO_DEMO"], passed["ATTIMO_PORT"], passed["ATTIMO_DATA"]) == ("true", "1", "d")
    assert not {"ATTIMO_SECRET", "ATTIMO_SERVER_KEY"} & (passed.keys() - os.environ.keys())


def test_the_data_folder_may_not_be_too_deep_for_a_socket() -> None:
    with pytest.raises(ValueError, match=r"data: the socket .* choose a data folder with a shorter path"):
        valkey.socket_path(Settings(data="/" + "d" * 120))
