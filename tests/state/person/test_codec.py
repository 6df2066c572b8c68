"""The person codec: stable, versioned bytes; every released version loads."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings

from state.person import codec
from state.person.model import Person
from tests.harness.support import ROOT, examples
from tests.strategies.persons import full_person, strategy_for, typical_person

GOLDEN = ROOT / "tests" / "golden"


@given(strategy_for(Person))
@settings(max_examples=examples(60), deadline=None)
def test_encoding_round_trips(person: Person) -> None:
    data = codec.encode(person)
    again = codec.decode(data)
    assert again == person
    assert codec.encode(again) == data


def test_dictionary_order_survives() -> None:
    person = Person(id="a:x", timers={"b": 1, "a": 2})
    assert list(codec.decode(codec.encode(person)).timers) == ["b", "a"]


def test_golden_person_is_encoded_byte_for_byte() -> None:
    assert codec.encode(full_person()) == (GOLDEN / "person.v2").read_bytes()


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("person.v*")), ids=lambda path: path.name)
def test_every_golden_version_loads(path: Path) -> None:
    assert codec.decode(path.read_bytes()) == full_person()


def test_unknown_fields_are_ignored_and_missing_get_defaults() -> None:
    data = bytes([codec.VERSION]) + msgspec.msgpack.encode({"id": "a:x", "invented": [1], "bot": True})
    assert codec.decode(data) == Person(id="a:x", bot=True)


def test_old_versions_are_upgraded_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "VERSION", 3)
    monkeypatch.setattr(codec, "_VERSION_BYTE", b"\x03")
    monkeypatch.setattr(
        codec, "UPGRADES", {1: lambda plain: {"id": plain["name"]}, 2: lambda plain: {**plain, "band": "undecided"}}
    )
    old = b"\x01" + msgspec.msgpack.encode({"name": "a:x"})
    assert codec.decode(old) == Person(id="a:x", band="undecided")


def test_version_1_is_rejected_with_the_remedy() -> None:
    with pytest.raises(
        codec.UnsupportedVersion, match=r"version 1, .* reads version 2. Start with an empty data folder"
    ):
        codec.decode(b"\x01" + msgspec.msgpack.encode({"id": "a:x"}))


@pytest.mark.parametrize("data", [b"", b"\x00\x80", bytes([codec.VERSION + 1]) + b"\x80"])
def test_unknown_version_is_rejected(data: bytes) -> None:
    with pytest.raises(codec.UnsupportedVersion):
        codec.decode(data)


def test_damaged_bytes_are_rejected() -> None:
    with pytest.raises(msgspec.DecodeError):
        codec.decode(codec.encode(full_person())[:-3])


def test_a_typical_person_is_small() -> None:
    person = typical_person()
    assert len(codec.encode(person)) < 2_000
    person.session = person.cart = None
    person.timers.clear()
    assert len(codec.encode(person)) < 1_200, "at rest, with the links of five products"
