"""Merging: the laws of the facet map, and what joining two open visits and carts keeps."""

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state.merge import (
    OVERFLOW_ORIGIN,
    build_merge_response,
    merge_carts,
    merge_fragment_maps,
    merge_into,
    merge_sessions,
)
from state.person import dedup
from state.person.model import (
    MAX_FRAGMENTS,
    Cart,
    CartItem,
    ExposureCounter,
    LifetimeCount,
    Order,
    PendingSend,
    Person,
    ProfileFragment,
    Session,
    Trait,
)
from state.profile.profile import merge_fragments, merged_profile
from state.profile.session import SESSION_TIMEOUT, SESSION_TIMER
from tests.harness.support import examples
from tests.strategies.persons import T0, full_person, strategy_for

FRAGMENTS = strategy_for(ProfileFragment)
FRAGMENT_MAPS = st.dictionaries(st.sampled_from(["a:x", "a:y", "u:b"]), FRAGMENTS, max_size=3)
MESSAGE_TIMES = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 50)), max_size=8)


def encode_ids(pairs: list[tuple[str, int]]) -> bytes:
    ordered = sorted({(minute, name) for name, minute in pairs})
    return dedup.merge_seen(b"".join(name.encode() * 8 + minute.to_bytes(4, "big") for minute, name in ordered), b"")


@given(FRAGMENT_MAPS, FRAGMENT_MAPS)
@settings(max_examples=examples(60), deadline=None)
def test_fragment_merge_is_commutative(one: dict[str, ProfileFragment], other: dict[str, ProfileFragment]) -> None:
    merged = merge_fragment_maps(one, other)
    assert merged == merge_fragment_maps(other, one)
    assert list(merged) == list(merge_fragment_maps(other, one))


@given(FRAGMENT_MAPS, FRAGMENT_MAPS, FRAGMENT_MAPS)
@settings(max_examples=examples(60), deadline=None)
def test_fragment_merge_is_associative(
    a: dict[str, ProfileFragment], b: dict[str, ProfileFragment], c: dict[str, ProfileFragment]
) -> None:
    assert merge_fragment_maps(merge_fragment_maps(a, b), c) == merge_fragment_maps(a, merge_fragment_maps(b, c))


@given(FRAGMENT_MAPS, FRAGMENT_MAPS)
@settings(max_examples=examples(60), deadline=None)
def test_fragment_merge_is_idempotent(one: dict[str, ProfileFragment], other: dict[str, ProfileFragment]) -> None:
    assert merge_fragment_maps(one, one) == one
    merged = merge_fragment_maps(one, other)
    assert merge_fragment_maps(merged, other) == merged


@given(MESSAGE_TIMES, MESSAGE_TIMES, MESSAGE_TIMES)
@settings(deadline=None)
def test_message_id_union_follows_the_merge_laws(
    a: list[tuple[str, int]], b: list[tuple[str, int]], c: list[tuple[str, int]]
) -> None:
    one, two, three = encode_ids(a), encode_ids(b), encode_ids(c)
    assert dedup.merge_seen(one, two) == dedup.merge_seen(two, one)
    assert dedup.merge_seen(dedup.merge_seen(one, two), three) == dedup.merge_seen(one, dedup.merge_seen(two, three))
    assert dedup.merge_seen(one, one) == one


@given(strategy_for(Session), strategy_for(Session))
@settings(max_examples=examples(60), deadline=None)
def test_session_merge_is_commutative(one: Session, other: Session) -> None:
    one.id, other.id = "1a", "2b"
    assert merge_sessions(one, other) == merge_sessions(other, one)


@given(strategy_for(Cart), strategy_for(Cart))
@settings(max_examples=examples(60), deadline=None)
def test_cart_merge_keeps_every_product(one: Cart, other: Cart) -> None:
    joined = merge_carts(one, other)
    assert joined is not None
    assert joined.items.keys() == one.items.keys() | other.items.keys()
    for product_id, item in joined.items.items():
        assert item.at == max(cart.items[product_id].at for cart in (one, other) if product_id in cart.items)


def anonymous_person() -> Person:
    """A visitor of two events, the second one the moment to learn from, with a cart."""
    return Person(
        id="a:x",
        fragments={
            "a:x": ProfileFragment(
                version=2,
                first_seen=T0,
                last_seen=T0 + 60_000,
                sessions=1,
                pages=2,
                lifetime_counts={"Page Viewed": LifetimeCount(2, T0, T0 + 60_000)},
            )
        },
        session=Session(
            "00aa",
            T0,
            T0 + 60_000,
            "x",
            True,
            pages=2,
            events=2,
            landing_page="/",
            source="ads",
            snapshot={"events": 2.0},
            snapshot_at=T0 + 60_000,
            snapshot_candidates=2,
        ),
        cart=Cart(items={"p": CartItem(1, 500, at=T0 + 50_000)}, created_at=T0 + 50_000, updated_at=T0 + 50_000),
        exposures={"exit": ExposureCounter(2, T0 + 55_000, "00aa", 1, 5, 2)},
        pending_sends=[PendingSend("id-1", "exit", T0 + 99_000, "x")],
        timers={SESSION_TIMER: T0 + SESSION_TIMEOUT, "reserved:id-1": T0 + 99_000, "seconds:hello": T0 + 5_000},
        seen_messages=encode_ids([("a", 1)]),
    )


def round_trip(body: dict[str, object]) -> dict[str, object]:
    """As a letter carries it."""
    back: dict[str, object] = json.loads(msgspec.json.encode(body))
    return back


def test_merged_away_person_keeps_nothing() -> None:
    person = anonymous_person()
    build_merge_response(person)
    assert person == Person(id="a:x")


def test_new_person_receives_everything() -> None:
    before = anonymous_person()
    person = Person(id="u:ann")
    merge_into(person, round_trip(build_merge_response(anonymous_person())), T0 + 61_000)
    assert person.fragments == before.fragments
    assert person.session == before.session
    assert person.cart == before.cart
    assert person.exposures == before.exposures
    assert person.pending_sends == before.pending_sends
    assert person.seen_messages == before.seen_messages
    assert person.timers == {SESSION_TIMER: T0 + 60_000 + SESSION_TIMEOUT, "reserved:id-1": T0 + 99_000}


def test_full_person_survives_the_merge_response() -> None:
    person = Person(id="u:bob")
    merge_into(person, round_trip(build_merge_response(full_person())), T0)
    assert person.fragments == merge_fragment_maps(full_person().fragments, {})
    expected = full_person().session
    assert expected is not None
    expected.first_session = False  # three visits are known
    assert person.session == expected
    assert person.cart == full_person().cart


def known_person() -> Person:
    return Person(
        id="u:ann",
        fragments={
            "u:ann": ProfileFragment(version=1, first_seen=T0 + 61_000, last_seen=T0 + 62_000, sessions=1, pages=1)
        },
        session=Session(
            "00bb",
            T0 + 61_000,
            T0 + 62_000,
            "x",
            True,
            pages=1,
            events=1,
            snapshot={"events": 1.0},
            snapshot_at=T0 + 62_000,
            snapshot_candidates=1,
            device="mobile",
        ),
        cart=Cart(
            items={"p": CartItem(3, 500, at=T0 + 62_000), "q": CartItem(1, 100, at=T0 + 61_500)},
            created_at=T0 + 61_500,
            updated_at=T0 + 62_000,
        ),
        exposures={"exit": ExposureCounter(1, T0 + 62_000, "00bb", 1, 5, 1)},
        timers={SESSION_TIMER: T0 + 61_000 + SESSION_TIMEOUT},
        seen_messages=encode_ids([("b", 2)]),
    )


def test_two_open_sessions_become_one() -> None:
    person = known_person()
    merge_into(person, round_trip(build_merge_response(anonymous_person())), T0 + 63_000)
    session = person.session
    assert session is not None
    assert (session.id, session.started_at, session.last_at) == ("00aa", T0, T0 + 62_000)
    assert (session.pages, session.events, session.landing_page, session.device) == (3, 3, "/", "mobile")
    assert session.first_session
    assert session.snapshot_candidates == 3
    assert session.snapshot in ({"events": 1.0}, {"events": 2.0})
    assert merged_profile(person).sessions == 1
    assert person.timers[SESSION_TIMER] == T0 + 62_000 + SESSION_TIMEOUT
    assert person.cart is not None
    assert person.cart.items["p"].quantity == 3
    assert person.exposures["exit"] == ExposureCounter(3, T0 + 62_000, "00aa", 2, 5, 3)


def test_merged_session_is_not_first_for_a_known_person() -> None:
    person = Person(id="u:ann", fragments={"u:ann": ProfileFragment(version=9, sessions=4)})
    merge_into(person, round_trip(build_merge_response(anonymous_person())), T0 + 63_000)
    assert person.session is not None
    assert not person.session.first_session


def test_session_label_is_given_once() -> None:
    for labelled in ("mine", "theirs"):
        person, other = known_person(), anonymous_person()
        for whose, one in (("mine", person), ("theirs", other)):
            assert one.session is not None
            one.session.labelled = whose == labelled
        merge_into(person, round_trip(build_merge_response(other)), T0 + 63_000)
        assert person.session is not None
        assert person.session.labelled


def test_order_without_snapshot_uses_the_other_sessions() -> None:
    person = known_person()
    session = person.session
    assert session is not None
    session.snapshot, session.snapshot_candidates = {}, 0
    session.ordered, session.ordered_at = True, T0 + 62_000
    merge_into(person, round_trip(build_merge_response(anonymous_person())), T0 + 63_000)
    joined = person.session
    assert joined is not None
    assert (joined.ordered, joined.labelled, joined.snapshot) == (True, False, {"events": 2.0})


def test_snapshot_after_the_order_is_dropped() -> None:
    person, other = known_person(), anonymous_person()
    assert person.session is not None
    assert other.session is not None
    person.session.snapshot, person.session.snapshot_candidates = {}, 0
    person.session.ordered, person.session.ordered_at = True, T0 + 59_000
    merge_into(person, round_trip(build_merge_response(other)), T0 + 63_000)
    assert person.session.snapshot == {}


def test_snapshot_of_a_merged_session_is_sampled_uniformly() -> None:
    kept = 0
    for n in range(2_000):
        one = Session(f"{n:016x}", T0, T0, snapshot={"one": 1.0}, snapshot_candidates=3)
        other = Session(f"{n + 7_000_000:016x}", T0 + 1, T0 + 1, snapshot={"other": 1.0}, snapshot_candidates=1)
        kept += merge_sessions(one, other).snapshot == {"one": 1.0}
    assert 0.72 < kept / 2_000 < 0.78


def test_invalid_merge_response_changes_nothing() -> None:
    person = known_person()
    with pytest.raises(msgspec.ValidationError):
        merge_into(person, {"fragments": {"a:x": {"pages": "many"}}}, T0)
    with pytest.raises(msgspec.ValidationError):
        merge_into(person, {"v": 99}, T0)
    assert person == known_person()


def test_order_under_two_ids_counts_once() -> None:
    mine = ProfileFragment(
        version=1, orders=[Order("o-1", T0, 1000, items=1)], order_count=1, revenue=1000, last_order_at=T0
    )
    theirs = ProfileFragment(
        version=1,
        orders=[Order("o-1", T0 + 1, 1000, items=1), Order("o-2", T0 + 2, 500)],
        order_count=2,
        revenue=1500,
        last_order_at=T0 + 2,
    )
    person = Person(id="u:ann", fragments={"u:ann": mine, "a:x": theirs})
    facts = merged_profile(person)
    assert (facts.order_count, facts.revenue, [order.order_id for order in facts.orders]) == (2, 1500, ["o-1", "o-2"])


def test_equal_time_consent_conflict_denies() -> None:
    yes, no = (
        ProfileFragment(consent={"mail": Trait(T0, True, 9)}),
        ProfileFragment(consent={"mail": Trait(T0, False, 1)}),
    )
    for facets in ([yes, no], [no, yes]):
        assert merge_fragments(facets).consent["mail"].value is False


def test_merged_profile_follows_every_update() -> None:
    person = Person(
        id="u:ann", fragments={"u:ann": ProfileFragment(version=1, pages=1), "a:x": ProfileFragment(version=1, pages=2)}
    )
    assert merged_profile(person).pages == 3
    person.own_fragment().pages += 1
    person.own_fragment().version += 1
    assert merged_profile(person).pages == 4


def test_excess_fragments_are_combined() -> None:
    person = Person(id="u:ann", fragments={"u:ann": ProfileFragment(version=1, sessions=1)})
    for n in range(MAX_FRAGMENTS * 2):
        merge_into(person, {"fragments": {f"a:{n:03d}": {"version": 1, "sessions": 1, "last_seen": n + 1}}}, T0)
    assert len(person.fragments) == MAX_FRAGMENTS
    assert OVERFLOW_ORIGIN in person.fragments
    assert "a:000" not in person.fragments
    assert "u:ann" in person.fragments
    assert merged_profile(person).sessions == MAX_FRAGMENTS * 2 + 1


@pytest.mark.parametrize("many", [10, 2_500])
def test_message_ids_are_deduplicated_for_48_hours(many: int) -> None:
    person = Person(id="a:x")
    now = T0
    ids = [dedup.digest(f"m{n}") for n in range(many)]
    for message in ids:
        assert not dedup.check_duplicate(person, message, now)
    assert all(dedup.check_duplicate(person, message, now + 47 * 3_600_000) for message in ids)
    assert len(person.seen_messages) == many * dedup.ENTRY_BYTES
    assert not dedup.check_duplicate(person, dedup.digest("new"), now + 49 * 3_600_000)
    assert len(person.seen_messages) == dedup.ENTRY_BYTES
    assert not dedup.check_duplicate(person, ids[0], now + 49 * 3_600_000)


def test_at_most_2500_message_ids_are_kept() -> None:
    person = Person(id="a:x")
    for n in range(2_600):
        dedup.check_duplicate(person, dedup.digest(f"m{n}"), T0)
    assert len(person.seen_messages) == 2_500 * dedup.ENTRY_BYTES
    assert dedup.check_duplicate(person, dedup.digest("m100"), T0)
    assert not dedup.check_duplicate(person, dedup.digest("m99"), T0)


def test_hash_spanning_two_entries_does_not_match() -> None:
    person = Person(id="a:x", seen_messages=b"\x00" * 4 + b"ABCD" + b"EFGH" + b"\x00" * 12)
    assert not dedup.check_duplicate(person, b"ABCDEFGH", 0)
