"""The whole engine over random playbooks and histories: the same answers however the work is shared, cut or killed.

What one visitor is told is what the steps alone tell them (`tests/harness/person.py`); three workers say what one
says; a
death at any moment changes nothing; and a rehearsal of the recorded history decides what was live. That it is also the
right thing is held against evaluating everything at every instant: conditions in
`tests/state/conditions/test_change_times.py`,
workflows in `tests/laws/test_workflows.py`, campaigns in `tests/laws/test_decisions.py`.
"""

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.action import Action
from domain.action import decode_action as action
from domain.action import decode_message as message
from domain.action import decode_outcome as outcome
from domain.playbook.playbook import Playbook
from domain.record import ACTIONS, MESSAGES, OUTCOMES, Record, event_stream, partition_of
from flows.simulation.reactions import ReactionSimulator
from flows.simulation.virtual_time import ClusterSimulation, LiveModels, ScheduledRecord
from operators.steps import STEPS
from state.playbook.compiled import Rules, compile_rules
from tests.harness.failing_cluster import PARTITION_COUNT, ClusterWithFailures
from tests.harness.person import T0, PersonHarness
from tests.harness.support import examples
from tests.models.workflows import workflow_definitions

PEOPLE = ("ann", "bea", "cara", "dora")
PRODUCT = {"product_id": "p", "name": "Mug", "price": 9.5, "category": "a", "quantity": 1}
NAMES = (
    "Page Viewed",
    "Product Viewed",
    "Product Added",
    "Cart Viewed",
    "Exit Intent",
    "Order Completed",
    "Quiz",
    "Offer Shown",
    "Consent Updated",
)
conditions: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {"session": {"pages_at_least": 2}},
        {"cart": {"untouched_for": "30s"}},
        {"session": {"seconds_at_least": 40}},
        {"did": {"event": "Product Viewed", "where": {"category": "a"}, "at_least": 2, "within": "1m"}},
        {"not": {"did": {"event": "Page Viewed", "within": "20s"}}},
        {"orders": {"last_within": "1m"}},
        {"sequence": {"steps": ["Product Viewed", "Product Added"], "within": "1m"}},
        {"in_segment": "lately"},
        {"any": [{"in_segment": "t"}, {"cart": {"value_at_least": 15}}]},
        {"was_shown": {"campaign": "c0", "within": "1m"}},
        {"funnel": {"at_least": "choosing"}},
        {"rfm": {"recency_at_least": 3}},
    ]
)
with_coupons = conditions | st.just({"holds_coupon": {"pool": "pool"}})
triggers: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {"event": "Product Added"},
        {"event": "Product Viewed", "properties": {"category": "a"}},
        {"segment": "s0"},
        {"exited_segment": "s0"},
        {"exit_intent": True},
        {"seconds_on_site": 30},
        {"event": "Quiz", "delay": "25s"},
    ]
)
limits = st.sampled_from(
    [{"per_session": 2}, {"per_session": 5, "min_interval": "20s"}, {"per_session": 9, "per_day": 2}]
)


def campaigns(coupons: bool) -> st.SearchStrategy[dict[str, Any]]:
    optional: dict[str, st.SearchStrategy[Any]] = {
        "frequency_caps": limits,
        "holdout": st.just(0.5),
        "goal": st.just({"event": "Order Completed", "within": "1m"}),
        "variants": st.just({"a": {}, "b": {"weight": 2.0}}),
        "cancel_on": st.just(["Cart Viewed"]),
    }
    if coupons:
        optional["coupon"] = st.just("pool")
    return st.fixed_dictionaries(
        {
            "trigger": triggers,
            "when": st.just({}) | (with_coupons if coupons else conditions),
            "priority": st.integers(0, 2),
            "format": st.sampled_from(["popup", "bar", "file"]),
            "purpose": st.sampled_from(["service", "marketing", "marketing"]),
        },
        optional=optional,
    )


event_bounds: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {"contact_pressure": {"per_day": 4}, "frequency_caps": {"per_session": 9, "per_day": 20, "cooldown": "5s"}},
        {"frequency_caps": {"per_session": 1, "cooldown": "11s"}},
        {"frequency_caps": {"per_session": 9, "per_day": 3}, "holdout": 0.3},
        {"contact_pressure": {"per_week": 3}, "consent": {"default": "denied"}},
    ]
)


@st.composite
def playbooks(draw: st.DrawFn, coupons: bool = False) -> Playbook:
    """With coupons, people share the desks that hand them out: they are not alone any more."""
    offers = draw(st.lists(campaigns(coupons), min_size=1, max_size=4))
    for one in offers:
        if one["format"] == "file" and one["trigger"].keys() & {"exit_intent", "seconds_on_site"}:
            one["format"] = "bar"
        if one["purpose"] == "service":
            one.pop("holdout", None)
    made = [{"name": f"c{n}", "content": {"default": {"title": f"c{n}"}}, **one} for n, one in enumerate(offers)]
    made.append(
        {
            "name": "offer",
            "format": "bar",
            "trigger": {"workflow": True},
            "purpose": "service",
            "content": {"default": {"title": "offer"}},
        }
    )
    held = with_coupons if coupons else conditions
    segments: list[dict[str, Any]] = [{"name": f"s{n}", "when": draw(held)} for n in range(draw(st.integers(1, 3)))]
    segments.append({"name": "lately", "when": {"did": {"event": "Product Viewed", "within": "30s"}}})
    segments.append({"name": "t", "static": True, "expires_after": "50s", "enter_on": [{"event": "Cart Viewed"}]})
    return msgspec.convert(
        {
            "shop": {
                "custom_events": ["Quiz"],
                "timezone": "Europe/Rome",
                **draw(event_bounds),
                "funnel": [
                    {"name": "looking", "when": {"did": {"event": "Product Viewed"}}},
                    {"name": "choosing", "when": {"cart": {"items_at_least": 1}}},
                ],
                "rfm": {"recency": ["20s", "40s", "1m", "2m"], "frequency": [1, 2, 3, 4], "monetary": [5, 10, 20, 40]},
            },
            "segments": segments,
            "campaigns": made,
            "workflows": [draw(workflow_definitions())],
            "coupons": [{"name": "pool", "percent": 10, "valid_for": "2m"}],
        },
        Playbook,
    )


histories = st.lists(
    st.tuples(
        st.sampled_from([0, 500, 7_000, 31_000, 31_000, 1_900_000]), st.sampled_from(PEOPLE), st.sampled_from(NAMES)
    ),
    min_size=5,
    max_size=24,
)
END = 200_000


def to_records(history: Any, login: bool = False) -> list[Record]:
    """A history as records; with `login`, ann's browser belongs to a known customer from her second event on."""
    records, at, seen = [], 0, 0
    for n, (gap, who, name) in enumerate(history):
        at += gap
        call = "page" if name == "Page Viewed" else "track"
        body: dict[str, Any] = {
            "type": call,
            "anonymousId": who,
            "messageId": f"m{n}",
            "properties": _properties(name, n),
            "context": {"attimo": {"country": "IT", "device": "desktop"}, "timezone": "Europe/Rome"},
        }
        if call == "track":
            body["event"] = name
        key = who
        if who == "ann":
            seen += 1
            if login and seen > 1:
                body["userId"] = key = "customer"
        stream = event_stream(call, name)
        records.append(
            Record(
                stream, partition_of(key.encode(), PARTITION_COUNT), n, T0 + at, key.encode(), msgspec.json.encode(body)
            )
        )
    return records


def _properties(name: str, n: int) -> dict[str, Any]:
    if name == "Order Completed":
        return {"order_id": f"o{n}", "total": 20, "products": [PRODUCT]}
    if name == "Consent Updated":
        return {"marketing": n % 3 > 0}
    if name == "Offer Shown":
        return {"campaign": f"c{n % 3}", "action_id": f"x{n}"}
    return PRODUCT if name.startswith("Product") else {}


def run_records(cluster: ClusterWithFailures, records: list[Record]) -> ClusterWithFailures:
    for record in records:
        cluster.advance(record.log_time - 1)
        cluster.apply(record)
    cluster.advance(records[-1].log_time + END)
    return cluster


def decisions_by_id(cluster: ClusterWithFailures) -> dict[str, bytes]:
    return {row.id: row.body for row in cluster.rows if row.stream in (ACTIONS, MESSAGES, OUTCOMES)}


def compile_with_coupons(playbook: Playbook) -> Rules:
    return compile_rules(playbook)


@given(playbooks(coupons=True), histories, st.sets(st.integers(0, 60), max_size=6), st.booleans())
@settings(max_examples=examples(40), deadline=None)
def test_workers_and_crashes_do_not_change_decisions(
    playbook: Playbook, history: Any, deaths: set[int], login: bool
) -> None:
    rules, records = compile_with_coupons(playbook), to_records(history, login)
    one = run_records(ClusterWithFailures(rules), records)
    three = run_records(ClusterWithFailures(rules, workers=3), records)
    killed = run_records(ClusterWithFailures(rules, crash_batches=sorted(deaths), cache_size=1), records)
    assert decisions_by_id(one) == decisions_by_id(three) == decisions_by_id(killed)
    assert one.persons() == three.persons() == killed.persons()
    assert len(decisions_by_id(one)) == len([row for row in one.rows if row.stream in (ACTIONS, MESSAGES, OUTCOMES)])


@given(playbooks(), histories)
@settings(max_examples=examples(40), deadline=None)
def test_batch_boundaries_do_not_change_decisions(playbook: Playbook, history: Any) -> None:
    rules, records = compile_with_coupons(playbook), to_records(history)
    one, whole = run_records(ClusterWithFailures(rules), records), ClusterWithFailures(rules)
    whole.apply(*records)
    whole.advance(records[-1].log_time + END)
    assert decisions_by_id(one) == decisions_by_id(whole)


@given(playbooks(), histories)
@settings(max_examples=examples(40), deadline=None)
def test_shard_decisions_match_the_plain_steps(playbook: Playbook, history: Any) -> None:
    rules, alone = compile_with_coupons(playbook), [(gap, "bea", name) for gap, _, name in history]
    hamlet = run_records(ClusterWithFailures(rules), to_records(alone))
    visitor, at = PersonHarness(playbook, "bea"), 0
    for n, (gap, _, name) in enumerate(alone):
        at += gap
        visitor.emit(at, name, **_properties(name, n))
    visitor.advance(at + END)
    found: list[Action] = [action(row.body) for row in hamlet.rows if row.stream == ACTIONS]
    assert [_essentials(one) for one in found] == [_essentials(one) for one in visitor.actions]


def _essentials(one: Action) -> tuple[Any, ...]:
    return (
        one.at,
        type(one).__name__,
        getattr(one, "campaign", getattr(one, "segment", "")),
        getattr(one, "entered", None),
        getattr(one, "what", None),
        one.because.reason,
    )


@given(playbooks(coupons=True), histories, st.booleans())
@settings(max_examples=examples(40), deadline=None)
def test_backtest_decisions_match_live(playbook: Playbook, history: Any, login: bool) -> None:
    """Codes of coupons are the rehearsal's own; letters have other numbers, so that ids differ after a login."""
    rules, records = compile_with_coupons(playbook), to_records(history, login)
    live = run_records(ClusterWithFailures(rules, codes_available=True), records)
    found: list[Any] = []
    for family in (("ann", "customer"), *((who,) for who in PEOPLE[1:])):
        own = [record for record in records if record.key in {name.encode() for name in family}]
        if own:
            reactions = ReactionSimulator(STEPS, assumed=False)
            household = ClusterSimulation(
                reactions, rules, PARTITION_COUNT, lambda partition, at: LiveModels(), stocked=True
            )
            household.run(
                [ScheduledRecord(record, record.log_time, LiveModels()) for record in own],
                records[-1].log_time + END,
                False,
            )
            found += [note.effect for note in reactions.entries if note.effect is not None]
    if not login:
        ids = {one.id for one in found}, set(decisions_by_id(live))
        assert [name for name in ids[0] ^ ids[1] if "coupon:" not in name] == []
    assert sorted(_without_codes(one) for one in found) == sorted(_without_codes(one) for one in all_decisions(live))


def all_decisions(cluster: ClusterWithFailures) -> list[Any]:
    read = {ACTIONS: action, MESSAGES: message, OUTCOMES: outcome}
    return [read[row.stream](row.body) for row in cluster.rows if row.stream in read]


def _without_codes(one: Any) -> str:
    """All that was decided, without the codes and what is called after where a letter stood."""
    return repr((type(one).__name__, _normalize(msgspec.to_builtins(one))))


def _normalize(part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    return {
        name: _normalize(what)
        for name, what in sorted(part.items())
        if name not in ("id", "action_id", "run", "withdraws", "code")
        and not (name == "coupon" and isinstance(what, str))
    }


def test_service_message_is_sent() -> None:
    playbook = msgspec.convert(
        {
            "campaigns": [
                {
                    "name": "mail",
                    "format": "file",
                    "trigger": {"event": "Product Added"},
                    "purpose": "service",
                    "content": {"default": {"title": "Hello"}},
                }
            ]
        },
        Playbook,
    )
    hamlet = run_records(ClusterWithFailures(compile_with_coupons(playbook)), to_records([(0, "bea", "Product Added")]))
    [sent] = [message(row.body) for row in hamlet.rows if row.stream == MESSAGES]
    assert (sent.campaign, sent.at) == ("mail", T0)
