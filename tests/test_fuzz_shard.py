"""Whatever a producer writes to a topic, the flow goes on: it is folded, or a reject with its reason; never a bug."""

import random
import string
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.playbook_folder import read
from domain import letter as letters
from domain import message as messages
from domain import reject as rejects
from domain.letter import Letter
from domain.partition import partition_of
from domain.record import Record
from domain.streams import LETTERS, PARTITIONS, PUBLIC, stream_of
from flows.onsite import STEPS
from operators.resolve_identity import MAX_LINKS
from state import codec
from state.desk import desk_key
from state.person import MAX_FACETS, MAX_MAIL, MAX_RESERVED, MAX_WRITTEN
from state.rules import compile_rules
from tests import whole_playbook
from tests.shards import Bench, offsets, record
from tests.support import ROOT, examples

RULES = compile_rules(read(ROOT / "shop"))
UNHURRIED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
HERE = partition_of(b"ann", PARTITIONS)
EVENTS = ("Product Viewed", "Product Added", "Product Removed", "Cart Viewed", "Cart Cleared", "Checkout Started",
          "Order Completed", "Order Refunded", "Order Cancelled", "Order Updated", "Products Searched", "Exit Intent",
          "Offer Shown", "Offer Clicked", "Offer Dismissed", "Offer Held", "Consent Updated", "Signed Out",
          "Unsubscribed", "Message Delivered", "Message Opened", "Message Clicked", "Message Bounced", "Message Held",
          "Coupon Entered", "Coupon Applied", "Coupon Denied", "Coupon Removed", "Something Else")
FIELDS = ("product_id", "sku", "name", "category", "price", "quantity", "currency", "value", "total", "revenue",
          "order_id", "products", "query", "action_id", "campaign", "marketing", "cart_id", "coupon", "coupon_id",
          "url", "image_url", "path", "message_id", "channel", "purpose", "type", "hard", "reason", "detail", "consent")
plain = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=40),
    st.sampled_from(["9.5", "1e999", "-1", "NaN", "EUR", "XXX", "p1", "javascript:alert(1)", "<b>", "{{ x }}",
                     "\x00", "é" * 30, "C" * 5_000, "email", "email:marketing", "hard", "welcome_mail", "exit_offer",
                     f"clicks-{HERE}-1-respect_limits-0"]))
anything = st.recursive(plain, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
    st.sampled_from(FIELDS) | st.text(string.ascii_letters, max_size=8), inner, max_size=6), max_leaves=12)
properties = st.dictionaries(st.sampled_from(FIELDS), anything, max_size=10)
context = st.one_of(st.none(), anything, st.fixed_dictionaries({}, optional={
    "page": st.one_of(anything, st.fixed_dictionaries({"url": plain, "path": plain, "title": plain})),
    "campaign": anything, "locale": plain, "timezone": st.one_of(plain, st.just("Europe/Rome")), "userAgent": plain,
    "attimo": st.one_of(anything, st.fixed_dictionaries({"country": plain, "device": plain, "bot": plain}))}))
times = st.one_of(st.none(), plain, st.sampled_from([
    "2026-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2026-01-01", "1969-12-31T23:00:00+14:00"]))
calls = st.fixed_dictionaries(
    {"type": st.sampled_from(["track", "page", "screen", "identify", "group", "alias"]), "anonymousId": st.just("ann")},
    optional={"event": st.sampled_from(EVENTS), "properties": st.one_of(properties, anything), "traits": anything,
              "context": context, "timestamp": times, "sentAt": times, "originalTimestamp": times, "receivedAt": times,
              "messageId": plain, "previousId": plain, "groupId": plain, "name": plain, "category": plain})


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    made = Bench(tmp_path_factory.mktemp("fuzz"), STEPS, HERE)
    made.rules = RULES
    return made


def apply(bench: Bench, stream: str, value: bytes, at: int) -> None:
    record = Record(stream, HERE, next(offsets), at, b"ann", value)
    rows = bench.apply(record, tick=at + 1)
    assert bench.shard.bugs == []
    assert bench.shard.head.positions[stream] == record.offset
    for row in rows:
        msgspec.json.decode(row.body)


def json(value: Any) -> bytes:
    return msgspec.json.encode(value)


@settings(max_examples=examples(200), deadline=None, suppress_health_check=UNHURRIED)
@given(stream=st.sampled_from(PUBLIC), call=calls, at=st.integers(1_700_000_000_000, 1_900_000_000_000))
def test_nearly_right_events(bench: Bench, stream: str, call: dict[str, Any], at: int) -> None:
    apply(bench, stream, json(call), at)


@settings(max_examples=examples(100), deadline=None, suppress_health_check=UNHURRIED)
@given(stream=st.sampled_from([*PUBLIC, "letters"]), value=st.binary(max_size=200) | anything.map(json))
def test_anything_at_all(bench: Bench, stream: str, value: bytes) -> None:
    apply(bench, stream, value, 1_700_000_000_000)


bodies = st.dictionaries(st.text(max_size=8), anything, max_size=3) | st.fixed_dictionaries({}, optional={
    "value": plain | calls.map(lambda call: json(call).decode()), "at": plain, "v": plain,
    "traces": anything | st.dictionaries(st.text(max_size=12), st.lists(plain, max_size=5), max_size=3),
    "facets": anything | st.dictionaries(st.text(max_size=4), st.fixed_dictionaries({}, optional={
        "version": plain, "counts": anything, "orders": anything}), max_size=3),
    "session": anything, "timers": anything, "runs": anything, "coupons": anything, "written": anything,
    "codes": anything | st.lists(plain, max_size=4), "wanted": plain, "why": plain, "playbook": plain})


@settings(max_examples=examples(150), deadline=None, suppress_health_check=UNHURRIED)
@given(kind=st.sampled_from(["claim", "handover", "forward", "warmed", "lease", "grant", "codes", "x"]),
       sender=st.sampled_from(["a:eve", "", "c:welcome", desk_key("welcome", 1, PARTITIONS), "d:welcome#x#"]),
       to=st.sampled_from(["a:ann", "c:welcome", desk_key("welcome", HERE, PARTITIONS), "", "d:#1#"]),
       seq=st.integers(), body=bodies)
def test_letters(bench: Bench, kind: str, sender: str, to: str, seq: int, body: dict[str, Any]) -> None:
    bench.shard.bugs.clear()
    letter = {"kind": kind, "sender": sender, "to": to, "seq": seq, "body": body}
    apply(bench, "letters", json(letter), 1_700_000_000_000)


@pytest.mark.parametrize(("inside", "kind"), [
    (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, "unreadable"),
    (b'{"name":"' + b"x" * 5_000_000 + b'"}', "too_large"),
])
def test_deep_and_huge(bench: Bench, inside: bytes, kind: str) -> None:
    value = b'{"type":"track","event":"Product Viewed","anonymousId":"ann","properties":' + inside + b"}"
    rows = bench.apply(Record("clicks", HERE, next(offsets), 1_700_000_000_000, b"ann", value))
    assert [rejects.decode(row.body).kind for row in rows] == [kind]
    assert bench.shard.bugs == []


# -- what one person may take up --------------------------------------------------------------------------------------

MOST_BYTES = 400_000
"""Of one id; of somebody who was known under many, each of them may bring as much."""
LOUD = """
format = "webhook"
purpose = "service"
trigger = { event = "Checkout Started" }
content = { default = { title = "{{ cart.items[0].name }}" } }
"""
WORDS = "abcdefé<>{}%" * 5_000
CAMPAIGNS = ["added", "ten", "keen", "letter", "loud", "nobody's"]


def long(n: int, size: int) -> str:
    """Some text of this size, another one for each `n`."""
    return f"{n}-{WORDS[n % 12:n % 12 + size]}"[:size]


def hostile(n: int, chance: random.Random) -> dict[str, Any]:
    """An event that is as large as it may be (or larger), about something new each time."""
    lines = [{"product_id": long(n * 99 + i, 128), "name": long(i, 256), "category": long(i, 128), "price": 5,
              "quantity": 2} for i in range(60 if n % 20 == 0 else 2)]
    message = f"clicks-{HERE}-{chance.randrange(n + 1)}-respect_limits-{chance.randrange(2)}"
    properties: dict[str, Any] = {
        "product_id": long(n, 128), "name": long(n, 900), "category": long(n, 128), "brand": long(n, 900), "price": 9.5,
        "url": "https://x.example/" + long(n, 1_000), "image_url": "/" + long(n, 1_000), "query": long(n, 900),
        "order_id": long(n, 128), "revenue": 10, "products": lines, "cart_id": long(n, 900),
        "coupon": long(n, 30_000 if n % 50 == 0 else 60), "coupon_id": [long(n, 60)],
        "campaign": chance.choice(CAMPAIGNS), "action_id": long(n, 20_000) if n % 7 == 0 else message,
        "message_id": long(n, 9_000) if n % 7 == 0 else message, "purpose": long(n, 100), "reason": long(n, 9_000),
        "channel": chance.choice(["email", "sms", 5, long(n, 200)]),
        "detail": {"deep": [[[[{}]]]]}, "type": chance.choice(["hard", "soft", None])}
    name = chance.choice(EVENTS)
    if n % 30 == 1:
        return {"type": "identify", "traits": {
            **{long(n * 20 + i, 120): long(i, 2_000) for i in range(20)}, "email": f"a{n}@x.example",
            "phone": str(n), "address": {long(n + i, 90): long(i, 400) for i in range(20)},
            "consent": {long(n * 20 + i, 120): i % 2 == 0 for i in range(20)}}}
    if n % 30 == 2:
        return {"type": "page", "context": {
            "page": {"url": long(n, 9_000), "path": long(n, 900), "referrer": long(n, 9_000)},
            "campaign": {"source": long(n, 900), "medium": long(n, 900), "name": long(n, 900)},
            "locale": long(n, 99), "timezone": long(n, 99), "userAgent": long(n, 900)}}
    if n % 30 == 3:
        return {"type": "group", "groupId": long(n, 900)}
    if name == "Something Else":
        name = long(n, 256)
    if name == "Consent Updated":
        properties = {long(n * 9 + i, 120): True for i in range(9)} | {"marketing": True}
    return {"type": "track", "event": name, "properties": properties}


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("known", "events"), [(False, 20_000), (True, 2_000)])
def test_nobody_becomes_larger_than_a_person_may(tmp_path: Path, known: bool, events: int) -> None:
    """Hostile events of one id; of a known customer each comes from another browser. Nothing ever comes back from a
    channel. What is too large is refused, and what is too much falls out.
    """
    (whole_playbook.write(tmp_path / "shop") / "campaigns" / "loud.toml").write_text(LOUD)
    bench = Bench(tmp_path / "store", STEPS, HERE)
    bench.rules = compile_rules(read(tmp_path / "shop"))
    chance, at, key, most = random.Random(7), 1_700_000_000_000, "u:ann" if known else "a:ann", 0
    kinds: Counter[str] = Counter()
    for batch in range(events // 200):
        records = []
        for n in range(batch * 200, batch * 200 + 200):
            at += chance.choice([0, 900, 60_000])
            call = {**hostile(n, chance), "messageId": f"m{n}", "anonymousId": f"{n}-" + "x" * 240 if known else "ann"}
            if known:
                call["userId"] = "ann"
            records.append(Record(stream_of(call["type"], call.get("event", "")), HERE, n, at, b"ann", json(call)))
        rows = bench.apply(*records, tick=at)
        kinds.update(row.stream for row in rows)
        sent = [letters.decode(row.body) for row in rows if row.stream == LETTERS]
        bench.apply(*[
            Record(LETTERS, HERE, batch * 1_000 + n, at, b"ann", letters.encode(Letter(
                kind="handover", sender=claim.to, to=key, seq=claim.seq, body={"facets": {claim.to: {"version": 1}}})))
            for n, claim in enumerate(sent) if claim.kind == "claim"])
        most = max(most, len(dict(bench.persons())[key]))
    assert bench.shard.bugs == []
    assert kinds["messages"] * 20 > events
    assert kinds["actions"] * 20 > events
    assert most < MOST_BYTES
    person = codec.decode(dict(bench.persons())[key])
    assert len(person.timers) < 300
    assert len(person.written) == MAX_WRITTEN
    assert len(person.reserved) <= MAX_RESERVED
    assert known or len(person.reserved) == MAX_RESERVED
    assert len(person.facets) == (MAX_FACETS if known else 1)
    assert len(person.links) == (MAX_LINKS if known else 0)
    assert len(person.mail) == (MAX_MAIL if known else 0)


def test_what_is_told_of_other_peoples_messages_changes_nobody(tmp_path: Path) -> None:
    """Whoever has the public key may say so, of any id that they have guessed or seen."""
    bench = Bench(tmp_path / "store", STEPS, HERE)
    bench.rules = compile_rules(read(whole_playbook.write(tmp_path / "shop")))
    bob = next(name for name in (f"b{n}" for n in range(9_999)) if partition_of(name.encode(), PARTITIONS) == HERE)
    for who in ("ann", bob):
        bench.apply(record(who, "identify", type="identify", traits={"email": f"{who}@x.example"}))
    rows = bench.apply(record(bob, "Product Added", properties={"product_id": "p"}))
    (message,) = [messages.decode(row.body) for row in rows if row.stream == "messages"]
    before = dict(bench.persons())
    for n, name in enumerate(("Delivered", "Opened", "Clicked", "Held", "Bounced")):
        bench.apply(record("ann", f"Message {name}", at=1_001 + n, properties={
            "message_id": message.id, "campaign": "letter", "channel": "email", "type": "hard", "reason": "no"}))
    assert dict(bench.persons())[f"a:{bob}"] == before[f"a:{bob}"]
    ann = codec.decode(dict(bench.persons())["a:ann"])
    assert ann.own().counts["Message Bounced"].n == 1, "it is counted"
    assert (ann.said, ann.written, ann.unreachable, ann.decisions, ann.reserved) == ({}, [], {}, {}, [])
    bench.apply(record(bob, "Message Bounced", at=3_000, properties={"message_id": message.id, "type": "hard"}))
    assert codec.decode(dict(bench.persons())[f"a:{bob}"]).unreachable, "of one's own it counts"
