"""Golden files for external interfaces: topic and key names, and all decisions of one day.

`ATTIMO_BLESS=1 pytest tests/golden/test_golden.py` rewrites them. Read the difference before you commit it.
"""

import os
import re
from pathlib import Path

import msgspec
import pytest

from connectors.http.browser_binding import bound_key
from connectors.log.kafka_admin import topic_name
from connectors.playbook.folder import read_playbook
from domain.action import cache_ready_key, preloaded_key, pubsub_channel
from domain.event import decode, epoch_ms
from domain.record import ALL_STREAMS, DEFAULT_PARTITIONS, Record, event_stream, partition_count, partition_of
from operators.steps import STEPS
from state.person import codec
from state.playbook.compiled import compile_rules
from tests.harness.cluster import ShardCluster
from tests.harness.support import ROOT

GOLDEN = Path(__file__).parent


def check_golden(name: str, found: str) -> None:
    """Compare with the golden file, or rewrite it with ATTIMO_BLESS. Playbook hashes are masked."""
    path, found = GOLDEN / name, re.sub(r'"(playbook|playbook_hash)":"[0-9a-f]{12}"', r'"\1":"…"', found)
    if os.environ.get("ATTIMO_BLESS"):
        path.write_text(found)
    assert found == path.read_text(), f"{name} has changed: ATTIMO_BLESS=1 rewrites it; read the difference"


def test_external_names() -> None:
    topics = [f"topic {topic_name('demo', stream)} {partition_count(stream)}" for stream in ALL_STREAMS]
    redis = [
        f"channel {pubsub_channel('demo', 'a1')}",
        f"hash {preloaded_key('demo', 'a1')}",
        f"string {bound_key('demo', 'a1')}",
        f"string {cache_ready_key('demo')}",
    ]
    check_golden("names", "\n".join([*topics, *redis]) + "\n")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> ShardCluster:
    """A day in the shipped shop: five people, one of them in Canada, one who logs in, one bot."""
    town = ShardCluster(tmp_path_factory.mktemp("day"), STEPS, compile_rules(read_playbook(ROOT / "shop")))
    for offset, line in enumerate((GOLDEN / "day.events.jsonl").read_bytes().splitlines(), 1):
        event = decode(line)
        assert event.timestamp is not None
        at = epoch_ms(event.timestamp)
        town.tick(at - 1)
        key = str(event.user_id or event.anonymous_id).encode()
        call = msgspec.json.decode(line)["type"]
        stream = event_stream(call, getattr(event, "event", ""))
        town.feed(Record(stream, partition_of(key, DEFAULT_PARTITIONS), offset, at, key, line))
    town.tick(town.clock + 86_400_000)
    return town


def test_decisions_of_a_day(cluster: ShardCluster) -> None:
    rows = [row for row in cluster.rows if row.stream in ("actions", "outcomes", "dead-letters")]
    check_golden("day.actions.jsonl", "".join(row.body.decode() + "\n" for row in rows))


def test_persons_of_a_day(cluster: ShardCluster) -> None:
    people = [
        (name, codec.decode(value)) for p in range(DEFAULT_PARTITIONS) for name, value in cluster.store.persons(p)
    ]
    text = "".join(
        f"{name} {msgspec.json.encode(msgspec.to_builtins(person), order='sorted').decode()}\n"
        for name, person in sorted(people)
    )
    check_golden("day.people.jsonl", text)
