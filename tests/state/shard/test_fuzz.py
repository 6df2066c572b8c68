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

from connectors.playbook.folder import read_playbook
from domain import action as letters
from domain import action as messages
from domain import record as rejects
from domain.action import ShardMessage
from domain.record import DEFAULT_PARTITIONS, PUBLIC_STREAMS, SHARD_MESSAGES, Record, event_stream, partition_of
from operators.resolve_identity import MAX_LINKS
from operators.steps import STEPS
from state.coupons.leasing import code_cache_key
from state.person import codec
from state.person.model import MAX_FRAGMENTS, MAX_MESSAGES, MAX_PEERS, MAX_PENDING_SENDS
from state.playbook.compiled import compile_rules
from tests.harness import full_playbook
from tests.harness.shard import ShardHarness, offsets, record
from tests.harness.support import ROOT, examples

RULES = compile_rules(read_playbook(ROOT / "shop"))
SUPPRESSED_CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
PARTITION = partition_of(b"ann", DEFAULT_PARTITIONS)
EVENTS = (
    "Product Viewed",
    "Product Added",
    "Product Removed",
    "Cart Viewed",
    "Cart Cleared",
    "Checkout Started",
    "Order Completed",
    "Order Refunded",
    "Order Cancelled",
    "Order Updated",
    "Products Searched",
    "Exit Intent",
    "Offer Shown",
    "Offer Clicked",
    "Offer Dismissed",
    "Offer Suppressed",
    "Consent Updated",
    "Signed Out",
    "Unsubscribed",
    "Message Delivered",
    "Message Opened",
    "Message Clicked",
    "Message Bounced",
    "Message Suppressed",
    "Coupon Entered",
    "Coupon Applied",
    "Coupon Denied",
    "Coupon Removed",
    "Something Else",
)
FIELDS = (
    "product_id",
    "sku",
    "name",
    "category",
    "price",
    "quantity",
    "currency",
    "value",
    "total",
    "revenue",
    "order_id",
    "products",
    "query",
    "action_id",
    "campaign",
    "marketing",
    "cart_id",
    "coupon",
    "coupon_id",
    "url",
    "image_url",
    "path",
    "message_id",
    "channel",
    "purpose",
    "type",
    "hard",
    "reason",
    "detail",
    "consent",
)
plain_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=40),
    st.sampled_from(
        [
            "9.5",
            "1e999",
            "-1",
            "NaN",
            "EUR",
            "XXX",
            "p1",
            "javascript:alert(1)",
            "<b>",
            "{{ x }}",
            "\x00",
            "é" * 30,
            "C" * 5_000,
            "email",
            "email:marketing",
            "hard",
            "welcome_mail",
            "exit_offer",
            f"clicks-{PARTITION}-1-decide-0",
        ]
    ),
)
json_values = st.recursive(
    plain_values,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(FIELDS) | st.text(string.ascii_letters, max_size=8), inner, max_size=6)
    ),
    max_leaves=12,
)
properties = st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=10)
context = st.one_of(
    st.none(),
    json_values,
    st.fixed_dictionaries(
        {},
        optional={
            "page": st.one_of(
                json_values, st.fixed_dictionaries({"url": plain_values, "path": plain_values, "title": plain_values})
            ),
            "campaign": json_values,
            "locale": plain_values,
            "timezone": st.one_of(plain_values, st.just("Europe/Rome")),
            "userAgent": plain_values,
            "attimo": st.one_of(
                json_values,
                st.fixed_dictionaries({"country": plain_values, "device": plain_values, "bot": plain_values}),
            ),
        },
    ),
)
times = st.one_of(
    st.none(),
    plain_values,
    st.sampled_from(
        [
            "2026-01-01T00:00:00Z",
            "0001-01-01T00:00:00Z",
            "9999-12-31T23:59:59Z",
            "2026-01-01",
            "1969-12-31T23:00:00+14:00",
        ]
    ),
)
event_calls = st.fixed_dictionaries(
    {"type": st.sampled_from(["track", "page", "screen", "identify", "group", "alias"]), "anonymousId": st.just("ann")},
    optional={
        "event": st.sampled_from(EVENTS),
        "properties": st.one_of(properties, json_values),
        "traits": json_values,
        "context": context,
        "timestamp": times,
        "sentAt": times,
        "originalTimestamp": times,
        "receivedAt": times,
        "messageId": plain_values,
        "previousId": plain_values,
        "groupId": plain_values,
        "name": plain_values,
        "category": plain_values,
    },
)


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> ShardHarness:
    made = ShardHarness(tmp_path_factory.mktemp("fuzz"), STEPS, PARTITION)
    made.rules = RULES
    return made


def apply_and_check(harness: ShardHarness, stream: str, value: bytes, at: int) -> None:
    record = Record(stream, PARTITION, next(offsets), at, b"ann", value)
    rows = harness.apply(record, tick=at + 1)
    assert harness.shard.errors == []
    assert harness.shard.checkpoint.positions[stream] == record.offset
    for row in rows:
        msgspec.json.decode(row.body)


def json(value: Any) -> bytes:
    return msgspec.json.encode(value)


@settings(max_examples=examples(200), deadline=None, suppress_health_check=SUPPRESSED_CHECKS)
@given(stream=st.sampled_from(PUBLIC_STREAMS), call=event_calls, at=st.integers(1_700_000_000_000, 1_900_000_000_000))
def test_almost_valid_events(harness: ShardHarness, stream: str, call: dict[str, Any], at: int) -> None:
    apply_and_check(harness, stream, json(call), at)


@settings(max_examples=examples(100), deadline=None, suppress_health_check=SUPPRESSED_CHECKS)
@given(
    stream=st.sampled_from([*PUBLIC_STREAMS, "shard-messages"]), value=st.binary(max_size=200) | json_values.map(json)
)
def test_any_bytes(harness: ShardHarness, stream: str, value: bytes) -> None:
    apply_and_check(harness, stream, value, 1_700_000_000_000)


bodies = st.dictionaries(st.text(max_size=8), json_values, max_size=3) | st.fixed_dictionaries(
    {},
    optional={
        "value": plain_values | event_calls.map(lambda call: json(call).decode()),
        "at": plain_values,
        "v": plain_values,
        "counters": json_values | st.dictionaries(st.text(max_size=12), st.lists(plain_values, max_size=5), max_size=3),
        "fragments": json_values
        | st.dictionaries(
            st.text(max_size=4),
            st.fixed_dictionaries({}, optional={"version": plain_values, "counts": json_values, "orders": json_values}),
            max_size=3,
        ),
        "session": json_values,
        "timers": json_values,
        "runs": json_values,
        "coupons": json_values,
        "written": json_values,
        "codes": json_values | st.lists(plain_values, max_size=4),
        "wanted": plain_values,
        "why": plain_values,
        "playbook": plain_values,
    },
)


@settings(max_examples=examples(150), deadline=None, suppress_health_check=SUPPRESSED_CHECKS)
@given(
    kind=st.sampled_from(
        [
            "merge_request",
            "merge_response",
            "forward",
            "backfill",
            "lease_request",
            "lease_grant",
            "codes_available",
            "x",
        ]
    ),
    sender=st.sampled_from(
        ["a:eve", "", "c:welcome", code_cache_key("welcome", 1, DEFAULT_PARTITIONS), "d:welcome#x#"]
    ),
    to=st.sampled_from(["a:ann", "c:welcome", code_cache_key("welcome", PARTITION, DEFAULT_PARTITIONS), "", "d:#1#"]),
    seq=st.integers(),
    body=bodies,
)
def test_any_shard_message(
    harness: ShardHarness, kind: str, sender: str, to: str, seq: int, body: dict[str, Any]
) -> None:
    harness.shard.errors.clear()
    letter = {"kind": kind, "sender": sender, "to": to, "seq": seq, "body": body}
    apply_and_check(harness, "shard-messages", json(letter), 1_700_000_000_000)


@pytest.mark.parametrize(
    ("inside", "kind"),
    [(b'{"a":' * 5_000 + b"1" + b"}" * 5_000, "invalid"), (b'{"name":"' + b"x" * 5_000_000 + b'"}', "too_large")],
)
def test_deeply_nested_and_huge_payloads(harness: ShardHarness, inside: bytes, kind: str) -> None:
    value = b'{"type":"track","event":"Product Viewed","anonymousId":"ann","properties":' + inside + b"}"
    rows = harness.apply(Record("clicks", PARTITION, next(offsets), 1_700_000_000_000, b"ann", value))
    assert [rejects.decode_dead_letter(row.body).kind for row in rows] == [kind]
    assert harness.shard.errors == []


# -- what one person may take up --------------------------------------------------------------------------------------

MAX_PERSON_BYTES = 400_000
"""Of one id; of somebody who was known under many, each of them may bring as much."""
FREQUENT_CAMPAIGN = """
format = "webhook"
purpose = "service"
trigger = { event = "Checkout Started" }
content = { default = { title = "{{ cart.items[0].name }}" } }
"""
WORDS = "abcdefé<>{}%" * 5_000
CAMPAIGNS = ["added", "ten", "keen", "letter", "loud", "nobody's"]


def long_text(n: int, size: int) -> str:
    """Some text of this size, another one for each `n`."""
    return f"{n}-{WORDS[n % 12 : n % 12 + size]}"[:size]


def hostile_events(n: int, chance: random.Random) -> dict[str, Any]:
    """An event that is as large as it may be (or larger), about something new each time."""
    lines = [
        {
            "product_id": long_text(n * 99 + i, 128),
            "name": long_text(i, 256),
            "category": long_text(i, 128),
            "price": 5,
            "quantity": 2,
        }
        for i in range(60 if n % 20 == 0 else 2)
    ]
    message = f"clicks-{PARTITION}-{chance.randrange(n + 1)}-decide-{chance.randrange(2)}"
    properties: dict[str, Any] = {
        "product_id": long_text(n, 128),
        "name": long_text(n, 900),
        "category": long_text(n, 128),
        "brand": long_text(n, 900),
        "price": 9.5,
        "url": "https://x.example/" + long_text(n, 1_000),
        "image_url": "/" + long_text(n, 1_000),
        "query": long_text(n, 900),
        "order_id": long_text(n, 128),
        "revenue": 10,
        "products": lines,
        "cart_id": long_text(n, 900),
        "coupon": long_text(n, 30_000 if n % 50 == 0 else 60),
        "coupon_id": [long_text(n, 60)],
        "campaign": chance.choice(CAMPAIGNS),
        "action_id": long_text(n, 20_000) if n % 7 == 0 else message,
        "message_id": long_text(n, 9_000) if n % 7 == 0 else message,
        "purpose": long_text(n, 100),
        "reason": long_text(n, 9_000),
        "channel": chance.choice(["email", "sms", 5, long_text(n, 200)]),
        "detail": {"deep": [[[[{}]]]]},
        "type": chance.choice(["hard", "soft", None]),
    }
    name = chance.choice(EVENTS)
    if n % 30 == 1:
        return {
            "type": "identify",
            "traits": {
                **{long_text(n * 20 + i, 120): long_text(i, 2_000) for i in range(20)},
                "email": f"a{n}@x.example",
                "phone": str(n),
                "address": {long_text(n + i, 90): long_text(i, 400) for i in range(20)},
                "consent": {long_text(n * 20 + i, 120): i % 2 == 0 for i in range(20)},
            },
        }
    if n % 30 == 2:
        return {
            "type": "page",
            "context": {
                "page": {"url": long_text(n, 9_000), "path": long_text(n, 900), "referrer": long_text(n, 9_000)},
                "campaign": {"source": long_text(n, 900), "medium": long_text(n, 900), "name": long_text(n, 900)},
                "locale": long_text(n, 99),
                "timezone": long_text(n, 99),
                "userAgent": long_text(n, 900),
            },
        }
    if n % 30 == 3:
        return {"type": "group", "groupId": long_text(n, 900)}
    if name == "Something Else":
        name = long_text(n, 256)
    if name == "Consent Updated":
        properties = {long_text(n * 9 + i, 120): True for i in range(9)} | {"marketing": True}
    return {"type": "track", "event": name, "properties": properties}


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("known", "events"), [(False, 20_000), (True, 2_000)])
def test_person_size_stays_bounded_under_hostile_events(tmp_path: Path, known: bool, events: int) -> None:
    """Hostile events of one id; of a known customer each comes from another browser. Nothing ever comes back from a
    channel. What is too large is refused, and what is too much falls out.
    """
    (full_playbook.write_playbook(tmp_path / "shop") / "campaigns" / "loud.toml").write_text(FREQUENT_CAMPAIGN)
    bench = ShardHarness(tmp_path / "store", STEPS, PARTITION)
    bench.rules = compile_rules(read_playbook(tmp_path / "shop"))
    chance, at, key, most = random.Random(7), 1_700_000_000_000, "u:ann" if known else "a:ann", 0
    kinds: Counter[str] = Counter()
    for batch in range(events // 200):
        records = []
        for n in range(batch * 200, batch * 200 + 200):
            at += chance.choice([0, 900, 60_000])
            call = {
                **hostile_events(n, chance),
                "messageId": f"m{n}",
                "anonymousId": f"{n}-" + "x" * 240 if known else "ann",
            }
            if known:
                call["userId"] = "ann"
            records.append(
                Record(event_stream(call["type"], call.get("event", "")), PARTITION, n, at, b"ann", json(call))
            )
        rows = bench.apply(*records, tick=at)
        kinds.update(row.stream for row in rows)
        sent = [letters.decode_shard_message(row.body) for row in rows if row.stream == SHARD_MESSAGES]
        bench.apply(
            *[
                Record(
                    SHARD_MESSAGES,
                    PARTITION,
                    batch * 1_000 + n,
                    at,
                    b"ann",
                    letters.encode_shard_message(
                        ShardMessage(
                            kind="merge_response",
                            sender=claim.recipient,
                            recipient=key,
                            seq=claim.seq,
                            body={"fragments": {claim.recipient: {"version": 1}}},
                        )
                    ),
                )
                for n, claim in enumerate(sent)
                if claim.kind == "merge_request"
            ]
        )
        most = max(most, len(dict(bench.persons())[key]))
    assert bench.shard.errors == []
    assert kinds["messages"] * 20 > events
    assert kinds["actions"] * 20 > events
    assert most < MAX_PERSON_BYTES
    person = codec.decode(dict(bench.persons())[key])
    assert len(person.timers) < 300
    assert len(person.messages) == MAX_MESSAGES
    assert len(person.pending_sends) <= MAX_PENDING_SENDS
    assert known or len(person.pending_sends) == MAX_PENDING_SENDS
    assert len(person.fragments) == (MAX_FRAGMENTS if known else 1)
    assert len(person.identity_links) == (MAX_LINKS if known else 0)
    assert len(person.peer_sequences) == (MAX_PEERS if known else 0)


def test_forged_feedback_changes_no_other_person(tmp_path: Path) -> None:
    """Whoever has the public key may say so, of any id that they have guessed or seen."""
    bench = ShardHarness(tmp_path / "store", STEPS, PARTITION)
    bench.rules = compile_rules(read_playbook(full_playbook.write_playbook(tmp_path / "shop")))
    bob = next(
        name for name in (f"b{n}" for n in range(9_999)) if partition_of(name.encode(), DEFAULT_PARTITIONS) == PARTITION
    )
    for who in ("ann", bob):
        bench.apply(record(who, "identify", type="identify", traits={"email": f"{who}@x.example"}))
    rows = bench.apply(record(bob, "Product Added", properties={"product_id": "p"}))
    (message,) = [messages.decode_message(row.body) for row in rows if row.stream == "messages"]
    before = dict(bench.persons())
    for n, name in enumerate(("Delivered", "Opened", "Clicked", "Suppressed", "Bounced")):
        bench.apply(
            record(
                "ann",
                f"Message {name}",
                at=1_001 + n,
                properties={
                    "message_id": message.id,
                    "campaign": "letter",
                    "channel": "email",
                    "type": "hard",
                    "reason": "no",
                },
            )
        )
    assert dict(bench.persons())[f"a:{bob}"] == before[f"a:{bob}"]
    ann = codec.decode(dict(bench.persons())["a:ann"])
    assert ann.own_fragment().lifetime_counts["Message Bounced"].count == 1, "it is counted"
    assert (ann.exposures, ann.messages, ann.suppressed_addresses, ann.decisions, ann.pending_sends) == (
        {},
        [],
        {},
        {},
        [],
    )
    bench.apply(record(bob, "Message Bounced", at=3_000, properties={"message_id": message.id, "type": "hard"}))
    assert codec.decode(dict(bench.persons())[f"a:{bob}"]).suppressed_addresses, "of one's own it counts"
