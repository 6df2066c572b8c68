"""What is stored or said outside is an interface: names, channels, and a whole day of decisions, held by golden files.

`ATTIMO_BLESS=1 pytest tests/test_golden.py` writes them anew; the difference is then to be read before it is committed.
"""

import os
import re
from pathlib import Path

import msgspec
import pytest

from connectors.binding import bound_key
from connectors.kafka_topics import topic_of
from connectors.playbook_folder import read
from domain.action import armed_key, channel, filled_key
from domain.event import decode, milliseconds
from domain.partition import partition_of
from domain.record import Record
from domain.streams import ALL, PARTITIONS, partitions_of, stream_of
from flows.onsite import STEPS
from state import codec
from state.rules import compile_rules
from tests.support import ROOT
from tests.town import Town

GOLDEN = Path(__file__).parent / "golden"


def same(name: str, found: str) -> None:
    """Equal to the golden file of this name (or written there, when asked to). The playbook's hash is left out."""
    path, found = GOLDEN / name, re.sub(r'"(playbook|rules)":"[0-9a-f]{12}"', r'"\1":"…"', found)
    if os.environ.get("ATTIMO_BLESS"):
        path.write_text(found)
    assert found == path.read_text(), f"{name} has changed: ATTIMO_BLESS=1 writes it anew, read the difference"


def test_names_outside() -> None:
    topics = [f"topic {topic_of('demo', stream)} {partitions_of(stream)}" for stream in ALL]
    redis = [f"channel {channel('demo', 'a1')}", f"hash {armed_key('demo', 'a1')}",
             f"string {bound_key('demo', 'a1')}", f"string {filled_key('demo')}"]
    same("names", "\n".join([*topics, *redis]) + "\n")


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Town:
    """A day in the shipped shop: five people, one of them in Canada, one who logs in, one robot."""
    town = Town(tmp_path_factory.mktemp("day"), STEPS, compile_rules(read(ROOT / "shop")))
    for offset, line in enumerate((GOLDEN / "day.events.jsonl").read_bytes().splitlines(), 1):
        event = decode(line)
        assert event.timestamp is not None
        at = milliseconds(event.timestamp)
        town.tick(at - 1)
        key = str(event.user_id or event.anonymous_id).encode()
        call = msgspec.json.decode(line)["type"]
        stream = stream_of(call, getattr(event, "event", ""))
        town.feed(Record(stream, partition_of(key, PARTITIONS), offset, at, key, line))
    town.tick(town.clock + 86_400_000)
    return town


def test_a_days_decisions(town: Town) -> None:
    rows = [row for row in town.rows if row.stream in ("actions", "outcomes", "rejects")]
    same("day.actions.jsonl", "".join(row.body.decode() + "\n" for row in rows))


def test_a_days_people(town: Town) -> None:
    people = [(name, codec.decode(value)) for p in range(PARTITIONS) for name, value in town.store.persons(p)]
    text = "".join(f"{name} {msgspec.json.encode(msgspec.to_builtins(person), order='sorted').decode()}\n"
                   for name, person in sorted(people))
    same("day.people.jsonl", text)
