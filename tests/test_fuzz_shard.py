"""Whatever a producer writes to a topic, the flow goes on: it is folded, or a reject with its reason; never a bug."""

import string
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.playbook_folder import read
from domain import reject as rejects
from domain.partition import partition_of
from domain.record import Record
from domain.streams import PARTITIONS, PUBLIC
from flows.onsite import STEPS
from state import codec
from state.desk import desk_key
from state.rules import compile_rules
from tests import whole_playbook
from tests.shards import Bench, offsets, record
from tests.support import ROOT

RULES = compile_rules(read(ROOT / "shop"))
UNHURRIED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
HERE = partition_of(b"ann", PARTITIONS)
EVENTS = ("Product Viewed", "Product Added", "Product Removed", "Cart Viewed", "Cart Cleared", "Checkout Started",
          "Order Completed", "Order Refunded", "Order Cancelled", "Order Updated", "Products Searched", "Exit Intent",
          "Offer Shown", "Offer Clicked", "Offer Dismissed", "Offer Held", "Consent Updated", "Signed Out",
          "Unsubscribed", "Message Delivered", "Message Opened", "Message Clicked", "Message Bounced", "Message Held",
          "Coupon Entered", "Coupon Applied", "Coupon Denied", "Coupon Removed", "Something Else")
FIELDS = ("product_id", "sku", "name", "category", "price", "quantity", "currency", "value", "total", "revenue",
          "order_id", "products", "query", "action_id", "campaign", "marketing", "cart_id", "coupon", "coupon_id", "url",
          "image_url", "path", "message_id", "channel", "purpose", "type", "hard", "reason", "detail", "consent")
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


@settings(max_examples=400, deadline=None, suppress_health_check=UNHURRIED)
@given(stream=st.sampled_from(PUBLIC), call=calls, at=st.integers(1_700_000_000_000, 1_900_000_000_000))
def test_nearly_right_events(bench: Bench, stream: str, call: dict[str, Any], at: int) -> None:
    apply(bench, stream, json(call), at)


@settings(max_examples=200, deadline=None, suppress_health_check=UNHURRIED)
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


@settings(max_examples=300, deadline=None, suppress_health_check=UNHURRIED)
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
