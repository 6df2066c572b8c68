"""A person's bytes: stable, versioned, and readable for ever."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings

from state import codec
from state.person import Person
from tests.people import like, rich, typical
from tests.support import examples

GOLDEN = Path(__file__).parent / "golden"


@given(like(Person))
@settings(max_examples=examples(60), deadline=None)
def test_bytes_come_back_as_they_were(person: Person) -> None:
    data = codec.encode(person)
    again = codec.decode(data)
    assert again == person
    assert codec.encode(again) == data


def test_the_order_of_a_dictionary_survives() -> None:
    person = Person(id="a:x", timers={"b": 1, "a": 2})
    assert list(codec.decode(codec.encode(person)).timers) == ["b", "a"]


def test_the_golden_person_is_written_byte_for_byte() -> None:
    assert codec.encode(rich()) == (GOLDEN / "person.v1.1").read_bytes()


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("person.v*")), ids=lambda path: path.name)
def test_every_version_ever_written_still_loads(path: Path) -> None:
    assert codec.decode(path.read_bytes()) == rich()


def test_a_field_nobody_knows_is_passed_over_and_a_missing_one_has_its_default() -> None:
    data = bytes([codec.VERSION]) + msgspec.msgpack.encode({"id": "a:x", "invented": [1], "bot": True})
    assert codec.decode(data) == Person(id="a:x", bot=True)


def test_an_old_version_climbs_one_step_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "VERSION", 3)
    monkeypatch.setattr(codec, "_HEAD", b"\x03")
    monkeypatch.setattr(codec, "UPGRADES", {
        1: lambda plain: {"id": plain["name"]},
        2: lambda plain: {**plain, "band": "undecided"},
    })
    old = b"\x01" + msgspec.msgpack.encode({"name": "a:x"})
    assert codec.decode(old) == Person(id="a:x", band="undecided")


@pytest.mark.parametrize("data", [b"", b"\x00\x80", bytes([codec.VERSION + 1]) + b"\x80"])
def test_what_is_no_person_of_a_known_version_is_refused(data: bytes) -> None:
    with pytest.raises(codec.WrongVersion):
        codec.decode(data)


def test_damaged_bytes_are_refused() -> None:
    with pytest.raises(msgspec.DecodeError):
        codec.decode(codec.encode(rich())[:-3])


def test_a_typical_person_is_small() -> None:
    person = typical()
    assert len(codec.encode(person)) < 2_000
    person.session = person.cart = None
    person.timers.clear()
    assert len(codec.encode(person)) < 1_200, "at rest, with the links of five products"
