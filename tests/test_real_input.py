"""Three hours of a real shop through the whole system: every message accounted for, the same decisions on both logs.

Needs the reference data (`ATTIMO_REFERENCE`, see `tests/support.py`); the log on Kafka needs a broker too.
"""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from domain.model import Model, encode
from state.sweep import PEOPLE_KEYS
from state.view import known
from tests.kafka_broker import kafka_broker
from tests.support import ROOT, data_path, redis_server
from tests.system import House

pytestmark = [pytest.mark.redis, pytest.mark.timeout(400)]
EXPECTED = {"Product Viewed": 17_055, "Product Added": 165, "Order Completed": 214, "Exit Intent": 4_975}
PINNED = Model(kind="propensity", version=1, hash="pinned", weights={"products": 0.4, "cart_value": 1.5, "orders": 0.8},
               intercept=-3.0)
_OFFSETS = re.compile(rb'"(clicks|carts|purchases|people|letters)-(\d+)-\d+-')


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The messages as JSON lines."""
    script = data_path("rees46_to_events.py")
    path = tmp_path_factory.mktemp("real") / "messages.jsonl"
    with path.open("wb") as out:
        subprocess.run([sys.executable, script], stdout=out, stderr=subprocess.DEVNULL, check=True)
    return path


@pytest.fixture(scope="module")
def redis() -> Iterator[str]:
    with redis_server() as url:
        yield url


def run(folder: Path, redis: str, messages: Path, **settings: Any) -> tuple[House, dict[str, list[bytes]]]:
    """Ingest the three hours, decide, and return the decisions of every person, in order, without offsets."""
    folder.mkdir()
    (folder / "model.json").write_bytes(encode(PINNED))
    home = House(folder / "data", redis, ROOT / "shop", pinned_model=str(folder / "model.json"), **settings)
    try:
        if home.settings.log != "sqlite":
            attimo(home, "topics", "create")
        attimo(home, "ingest", "--history", str(messages))
        home.start("onsite")
        home.wait(home.drained, "three hours are applied", 120)
        assert home.stop("onsite") == 0
    finally:
        home.close()
    decided: dict[str, list[bytes]] = {}
    for record in sorted(home.records("actions"), key=lambda record: (record.partition, record.offset)):
        person = msgspec.json.decode(record.value)["person"]
        decided.setdefault(person, []).append(_OFFSETS.sub(rb'"\1-\2-', record.value))
    return home, decided


def attimo(home: House, *words: str) -> str:
    """A command, as one types it."""
    done = subprocess.run([sys.executable, "-m", "attimo", *words], env=home.environment({}), cwd=home.folder,
                          capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def on_sqlite(
    tmp_path_factory: pytest.TempPathFactory, redis: str, messages: Path
) -> tuple[House, dict[str, list[bytes]]]:
    return run(tmp_path_factory.mktemp("sqlite") / "run", redis, messages)


def test_every_message_is_accounted_for(on_sqlite: tuple[House, dict[str, list[bytes]]]) -> None:
    home, _ = on_sqlite
    persons = {key: person for key, person in home.persons().items() if key[:2] in PEOPLE_KEYS}
    assert len(persons) == 4_504
    counts: Counter[str] = Counter()
    for person in persons.values():
        for name, count in known(person).counts.items():
            counts[name] += count.n
    assert Counter({name: n for name, n in counts.items() if name != "Offer Held"}) == EXPECTED
    assert home.records("rejects") == []
    assert sum(known(person).order_count for person in persons.values()) == 214


def test_thousands_of_decisions_and_all_of_them_stale(on_sqlite: tuple[House, dict[str, list[bytes]]]) -> None:
    home, decided = on_sqlite
    kinds = Counter(msgspec.json.decode(body)["type"] for bodies in decided.values() for body in bodies)
    assert sum(kinds.values()) > 3_000
    assert kinds["send"] + kinds["arm"] > 100
    import redis as client

    server = client.Redis.from_url(home.settings.redis)
    assert server.keys("armed:*") == [], "something from 2019 was put in front of somebody"


@pytest.mark.kafka
def test_kafka_gives_the_same_decisions(
    on_sqlite: tuple[House, dict[str, list[bytes]]], tmp_path: Path, redis: str, messages: Path
) -> None:
    _, expected = on_sqlite
    with kafka_broker() as bootstrap:
        _, found = run(tmp_path / "run", redis, messages, log=f"kafka://{bootstrap}", shop="kafka")
    assert found == expected
