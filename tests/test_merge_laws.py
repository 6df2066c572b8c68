"""Merging: the laws of the facet map, and what joining two open visits and carts keeps."""

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state import seen
from state.merge import OLDER, absorb, hand_over, join_carts, join_sessions, merge_facets
from state.person import MAX_FACETS, Cart, CartItem, Count, Facts, Order, Person, Reserved, Said, Session, Trait
from state.sessions import SESSION_FOR, SESSION_TIMER
from state.view import combine, known
from tests.people import T0, like, rich
from tests.support import examples

FACTS = like(Facts)
MAPS = st.dictionaries(st.sampled_from(["a:x", "a:y", "u:b"]), FACTS, max_size=3)
ROWS = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 50)), max_size=8)


def row(pairs: list[tuple[str, int]]) -> bytes:
    ordered = sorted({(minute, name) for name, minute in pairs})
    return seen.union(b"".join(name.encode() * 8 + minute.to_bytes(4, "big") for minute, name in ordered), b"")


@given(MAPS, MAPS)
@settings(max_examples=examples(60), deadline=None)
def test_merging_facets_is_commutative(one: dict[str, Facts], other: dict[str, Facts]) -> None:
    merged = merge_facets(one, other)
    assert merged == merge_facets(other, one)
    assert list(merged) == list(merge_facets(other, one))


@given(MAPS, MAPS, MAPS)
@settings(max_examples=examples(60), deadline=None)
def test_merging_facets_is_associative(a: dict[str, Facts], b: dict[str, Facts], c: dict[str, Facts]) -> None:
    assert merge_facets(merge_facets(a, b), c) == merge_facets(a, merge_facets(b, c))


@given(MAPS, MAPS)
@settings(max_examples=examples(60), deadline=None)
def test_merging_facets_is_idempotent(one: dict[str, Facts], other: dict[str, Facts]) -> None:
    assert merge_facets(one, one) == one
    merged = merge_facets(one, other)
    assert merge_facets(merged, other) == merged


@given(ROWS, ROWS, ROWS)
@settings(deadline=None)
def test_seen_messages_unite_by_the_same_laws(
    a: list[tuple[str, int]], b: list[tuple[str, int]], c: list[tuple[str, int]]
) -> None:
    one, two, three = row(a), row(b), row(c)
    assert seen.union(one, two) == seen.union(two, one)
    assert seen.union(seen.union(one, two), three) == seen.union(one, seen.union(two, three))
    assert seen.union(one, one) == one


@given(like(Session), like(Session))
@settings(max_examples=examples(60), deadline=None)
def test_joining_sessions_does_not_depend_on_who_joins_whom(one: Session, other: Session) -> None:
    one.id, other.id = "1a", "2b"
    assert join_sessions(one, other) == join_sessions(other, one)


@given(like(Cart), like(Cart))
@settings(max_examples=examples(60), deadline=None)
def test_joining_carts_keeps_every_product(one: Cart, other: Cart) -> None:
    joined = join_carts(one, other)
    assert joined is not None
    assert joined.items.keys() == one.items.keys() | other.items.keys()
    for product_id, item in joined.items.items():
        assert item.at == max(cart.items[product_id].at for cart in (one, other) if product_id in cart.items)


def anonymous() -> Person:
    """A visitor of two events, the second one the moment to learn from, with a cart."""
    return Person(
        id="a:x",
        facets={"a:x": Facts(version=2, first_seen=T0, last_seen=T0 + 60_000, sessions=1, pages=2,
                             counts={"Page Viewed": Count(2, T0, T0 + 60_000)})},
        session=Session("00aa", T0, T0 + 60_000, "x", True, pages=2, events=2, landing_page="/", source="ads",
                        snapshot={"events": 2.0}, snapshot_at=T0 + 60_000, snapshots=2),
        cart=Cart(items={"p": CartItem(1, 500, at=T0 + 50_000)}, created_at=T0 + 50_000, updated_at=T0 + 50_000),
        said={"exit": Said(2, T0 + 55_000, "00aa", 1, 5, 2)},
        reserved=[Reserved("id-1", "exit", T0 + 99_000, "x")],
        timers={SESSION_TIMER: T0 + SESSION_FOR, "reserved:id-1": T0 + 99_000, "seconds:hello": T0 + 5_000},
        seen=row([("a", 1)]),
    )


def sent(body: dict[str, object]) -> dict[str, object]:
    """As a letter carries it."""
    back: dict[str, object] = json.loads(msgspec.json.encode(body))
    return back


def test_who_hands_over_keeps_nothing() -> None:
    person = anonymous()
    hand_over(person)
    assert person == Person(id="a:x")


def test_a_new_person_takes_everything_over() -> None:
    before = anonymous()
    person = Person(id="u:ann")
    absorb(person, sent(hand_over(anonymous())), T0 + 61_000)
    assert person.facets == before.facets
    assert person.session == before.session
    assert person.cart == before.cart
    assert person.said == before.said
    assert person.reserved == before.reserved
    assert person.seen == before.seen
    assert person.timers == {SESSION_TIMER: T0 + 60_000 + SESSION_FOR, "reserved:id-1": T0 + 99_000}


def test_a_rich_person_survives_the_letter() -> None:
    person = Person(id="u:bob")
    absorb(person, sent(hand_over(rich())), T0)
    assert person.facets == merge_facets(rich().facets, {})
    expected = rich().session
    assert expected is not None
    expected.first_visit = False  # three visits are known
    assert person.session == expected
    assert person.cart == rich().cart


def logged_in() -> Person:
    return Person(
        id="u:ann",
        facets={"u:ann": Facts(version=1, first_seen=T0 + 61_000, last_seen=T0 + 62_000, sessions=1, pages=1)},
        session=Session("00bb", T0 + 61_000, T0 + 62_000, "x", True, pages=1, events=1, snapshot={"events": 1.0},
                        snapshot_at=T0 + 62_000, snapshots=1, device="mobile"),
        cart=Cart(items={"p": CartItem(3, 500, at=T0 + 62_000), "q": CartItem(1, 100, at=T0 + 61_500)},
                  created_at=T0 + 61_500, updated_at=T0 + 62_000),
        said={"exit": Said(1, T0 + 62_000, "00bb", 1, 5, 1)},
        timers={SESSION_TIMER: T0 + 61_000 + SESSION_FOR}, seen=row([("b", 2)]),
    )


def test_two_open_visits_become_one_visit_that_is_counted_once() -> None:
    person = logged_in()
    absorb(person, sent(hand_over(anonymous())), T0 + 63_000)
    session = person.session
    assert session is not None
    assert (session.id, session.started_at, session.last_at) == ("00aa", T0, T0 + 62_000)
    assert (session.pages, session.events, session.landing_page, session.device) == (3, 3, "/", "mobile")
    assert session.first_visit
    assert session.snapshots == 3
    assert session.snapshot in ({"events": 1.0}, {"events": 2.0})
    assert known(person).sessions == 1
    assert person.timers[SESSION_TIMER] == T0 + 62_000 + SESSION_FOR
    assert person.cart is not None
    assert person.cart.items["p"].quantity == 3
    assert person.said["exit"] == Said(3, T0 + 62_000, "00aa", 2, 5, 3)


def test_a_visit_is_not_the_first_when_the_known_person_came_before() -> None:
    person = Person(id="u:ann", facets={"u:ann": Facts(version=9, sessions=4)})
    absorb(person, sent(hand_over(anonymous())), T0 + 63_000)
    assert person.session is not None
    assert not person.session.first_visit


def test_a_label_that_was_given_is_never_given_again() -> None:
    for labelled in ("mine", "theirs"):
        person, other = logged_in(), anonymous()
        for whose, one in (("mine", person), ("theirs", other)):
            assert one.session is not None
            one.session.labelled = whose == labelled
        absorb(person, sent(hand_over(other)), T0 + 63_000)
        assert person.session is not None
        assert person.session.labelled


def test_an_order_with_nothing_to_learn_from_takes_the_other_halfs_moment() -> None:
    person = logged_in()
    session = person.session
    assert session is not None
    session.snapshot, session.snapshots = {}, 0
    session.ordered, session.ordered_at = True, T0 + 62_000
    absorb(person, sent(hand_over(anonymous())), T0 + 63_000)
    joined = person.session
    assert joined is not None
    assert (joined.ordered, joined.labelled, joined.snapshot) == (True, False, {"events": 2.0})


def test_a_moment_after_the_order_is_not_learned_from() -> None:
    person, other = logged_in(), anonymous()
    assert person.session is not None
    assert other.session is not None
    person.session.snapshot, person.session.snapshots = {}, 0
    person.session.ordered, person.session.ordered_at = True, T0 + 59_000
    absorb(person, sent(hand_over(other)), T0 + 63_000)
    assert person.session.snapshot == {}


def test_a_joined_visits_moment_is_chosen_evenly() -> None:
    kept = 0
    for n in range(2_000):
        one = Session(f"{n:016x}", T0, T0, snapshot={"one": 1.0}, snapshots=3)
        other = Session(f"{n + 7_000_000:016x}", T0 + 1, T0 + 1, snapshot={"other": 1.0}, snapshots=1)
        kept += join_sessions(one, other).snapshot == {"one": 1.0}
    assert 0.72 < kept / 2_000 < 0.78


def test_what_is_no_handover_changes_nothing() -> None:
    person = logged_in()
    with pytest.raises(msgspec.ValidationError):
        absorb(person, {"facets": {"a:x": {"pages": "many"}}}, T0)
    with pytest.raises(msgspec.ValidationError):
        absorb(person, {"v": 99}, T0)
    assert person == logged_in()


def test_an_order_reported_under_two_ids_is_one_order() -> None:
    mine = Facts(version=1, orders=[Order("o-1", T0, 1000, items=1)], order_count=1, revenue=1000, last_order_at=T0)
    theirs = Facts(version=1, orders=[Order("o-1", T0 + 1, 1000, items=1), Order("o-2", T0 + 2, 500)],
                   order_count=2, revenue=1500, last_order_at=T0 + 2)
    person = Person(id="u:ann", facets={"u:ann": mine, "a:x": theirs})
    facts = known(person)
    assert (facts.order_count, facts.revenue, [order.order_id for order in facts.orders]) == (2, 1500, ["o-1", "o-2"])


def test_consent_refused_and_given_at_the_same_time_is_refused() -> None:
    yes, no = Facts(consent={"mail": Trait(T0, True, 9)}), Facts(consent={"mail": Trait(T0, False, 1)})
    for facets in ([yes, no], [no, yes]):
        assert combine(facets).consent["mail"].value is False


def test_what_is_known_follows_every_fold() -> None:
    person = Person(id="u:ann", facets={"u:ann": Facts(version=1, pages=1), "a:x": Facts(version=1, pages=2)})
    assert known(person).pages == 3
    person.own().pages += 1
    person.own().version += 1
    assert known(person).pages == 4


def test_too_many_facets_are_put_together() -> None:
    person = Person(id="u:ann", facets={"u:ann": Facts(version=1, sessions=1)})
    for n in range(MAX_FACETS * 2):
        absorb(person, {"facets": {f"a:{n:03d}": {"version": 1, "sessions": 1, "last_seen": n + 1}}}, T0)
    assert len(person.facets) == MAX_FACETS
    assert OLDER in person.facets
    assert "a:000" not in person.facets
    assert "u:ann" in person.facets
    assert known(person).sessions == MAX_FACETS * 2 + 1


@pytest.mark.parametrize("many", [10, 2_500])
def test_a_message_is_recognised_for_48_hours(many: int) -> None:
    person = Person(id="a:x")
    now = T0
    ids = [seen.digest(f"m{n}") for n in range(many)]
    for message in ids:
        assert not seen.already(person, message, now)
    assert all(seen.already(person, message, now + 47 * 3_600_000) for message in ids)
    assert len(person.seen) == many * seen.WIDTH
    assert not seen.already(person, seen.digest("new"), now + 49 * 3_600_000)
    assert len(person.seen) == seen.WIDTH
    assert not seen.already(person, ids[0], now + 49 * 3_600_000)


def test_no_more_than_2500_messages_are_remembered() -> None:
    person = Person(id="a:x")
    for n in range(2_600):
        seen.already(person, seen.digest(f"m{n}"), T0)
    assert len(person.seen) == 2_500 * seen.WIDTH
    assert seen.already(person, seen.digest("m100"), T0)
    assert not seen.already(person, seen.digest("m99"), T0)


def test_a_hash_across_two_entries_is_no_hit() -> None:
    person = Person(id="a:x", seen=b"\x00" * 4 + b"ABCD" + b"EFGH" + b"\x00" * 12)
    assert not seen.already(person, b"ABCDEFGH", 0)
