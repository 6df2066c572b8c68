"""Campaigns are found, not asked one by one: nobody is lost, and it is decided as a plain loop over all would decide.

The plain loop here asks every campaign at every happening, in the order of rank, and remembers nothing.
"""

from collections.abc import Iterator, Sequence
from random import Random
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.action import Effect, Send, ShardMessage, Suppress
from domain.playbook.condition import Condition
from domain.playbook.playbook import Playbook
from domain.playbook.shop import ShopFrequencyCaps
from operators import advance_workflows, decide, match_segments, select_campaigns, update_profile
from operators.select_campaigns import clear_preload, preload_exit_offer, shortlist
from state.conditions.compile import compile_condition, dnf_clauses
from state.conditions.index import PredicateIndex
from state.context import Input, StepContext, TimerFired
from state.decisions.eligibility import NEVER
from state.person import codec
from state.person.model import ExposureCounter, Person, ProfileFragment, Source
from state.playbook.campaign import CampaignRule
from state.profile.profile import merged_profile
from tests.harness.person import PersonHarness, make_playbook, summarize
from tests.harness.support import examples
from tests.state.conditions.test_change_times import EVENTS, OTHER, PRODUCT, HistoryStep, segment_playbook
from tests.strategies.conditions import SHOP, conditions, persons, profile_with_counters, timestamps

# -- what is not found does not hold -------------------------------------------------------------------------------


@given(st.lists(conditions, min_size=1, max_size=40), persons(), timestamps)
@settings(max_examples=examples(80), deadline=None)
def test_index_finds_every_true_condition(plain: Any, person: Any, now: Any) -> None:
    facts = profile_with_counters(person, *plain)
    declared = [msgspec.convert(one, Condition) for one in plain]
    finder = PredicateIndex((n, dnf_clauses(one, SHOP)) for n, one in enumerate(declared))
    found = finder.candidates(person, facts)
    assert found == sorted(set(found))
    for n, one in enumerate(declared):
        compiled = compile_condition(one, SHOP)
        if n not in found:
            assert not compiled.is_met(person, facts, now), plain[n]
            assert compiled.next_change(person, facts, now) is None, plain[n]


COUNTRIES = ("CA", "IT", "DE", "FR")


def test_index_returns_few_candidates_of_a_thousand() -> None:
    declared = [
        msgspec.convert(
            {
                "has": {"country": COUNTRIES[n % 4], "trait": {"shop": n % 50}},
                "session": {"pages_at_least": 1 + n % 30},
            },
            Condition,
        )
        for n in range(1_000)
    ]
    finder = PredicateIndex((n, dnf_clauses(one, SHOP)) for n, one in enumerate(declared))
    assert finder.candidates(Person("a:x"), ProfileFragment(country="CA")) == []
    visitor = PersonHarness(make_playbook(), country="CA")
    visitor.emit(0, "Identified", shop=4)
    for at in range(12):
        visitor.emit(at, "Page Viewed")
    facts = visitor.person.own_fragment()
    holding = [n for n, one in enumerate(declared) if compile_condition(one).is_met(visitor.person, facts, visitor.now)]
    found = finder.candidates(visitor.person, facts)
    assert set(holding) <= set(found)
    assert 0 < len(holding) <= len(found) <= 12


RARE_BEHAVIOUR: dict[str, Any] = {
    "a product looked at": lambda n: {"did": {"event": "Product Viewed", "where": {"product_id": f"p{n}"}}},
    "often in a week": lambda n: {
        "did": {"event": "Product Viewed", "where": {"product_id": f"p{n}"}, "at_least": 2, "within": "7d"}
    },
    "an event of the shop's own": lambda n: {"did": {"event": f"Quiz {n} Finished", "within": "7d"}},
    "one after another": lambda n: {
        "sequence": {"steps": [{"event": "Product Viewed", "where": {"product_id": f"p{n}"}}, "Product Added"]}
    },
    "told before": lambda n: {"was_shown": {"campaign": f"c{n}"}},
    "brought by an advertisement": lambda n: {"has": {"campaign": f"ad-{n}"}},
    "brought by a medium": lambda n: {"has": {"medium": f"medium-{n}"}},
    "brought first by": lambda n: {"has": {"first_source": f"friend-{n}"}},
}


@pytest.mark.parametrize("kind", RARE_BEHAVIOUR)
def test_rare_behaviour_is_indexed(kind: str) -> None:
    declared = [
        msgspec.convert({"all": [RARE_BEHAVIOUR[kind](n), {"session": {"pages_at_least": 1}}]}, Condition)
        for n in range(500)
    ]
    finder = PredicateIndex((n, dnf_clauses(one, SHOP)) for n, one in enumerate(declared))
    visitor = PersonHarness(make_playbook(segments={f"s{n}": {"when": RARE_BEHAVIOUR[kind](n)} for n in range(500)}))
    visitor.emit(0, "Page Viewed")
    visitor.person.own_fragment().first_source = Source("friend-7")
    visitor.person.own_fragment().last_source = Source("friend-8", "medium-7", "ad-7")
    for at in (1, 2):
        visitor.emit(at, "Product Viewed", product_id="p7")
    visitor.emit(3, "Product Added", product_id="p7")
    visitor.emit(4, "Quiz 7 Finished")
    visitor.person.exposures["c7"] = ExposureCounter(total=1, last_at=visitor.now, times=[visitor.now])
    assert finder.candidates(visitor.person, merged_profile(visitor.person)) == [7]
    assert compile_condition(declared[7], SHOP).is_met(visitor.person, merged_profile(visitor.person), visitor.now)


# -- a plain loop --------------------------------------------------------------------------------------------------


class FullScan:
    """All campaigns of one kind, asked anew each time; `until` is by those that were looked at."""

    def __init__(self, rules: Sequence[CampaignRule]) -> None:
        self.rules, self.evaluated = rules, list[tuple[CampaignRule, int | None]]()

    def iterate(self, person: Person, facts: ProfileFragment, now: int) -> Iterator[CampaignRule]:
        for rule in self.rules:
            self.evaluated.append((rule, rule.next_change(person, facts, now)))
            if rule.is_met(person, facts, now):
                yield rule

    def valid_until(self) -> int:
        return min((at for _, at in self.evaluated if at is not None), default=NEVER)


def full_scan_step(person: Person, event: Input, context: StepContext) -> Sequence[Effect]:
    """select_campaigns, as a loop over everything."""
    facts, now, rules = merged_profile(person), context.now, context.rules
    if person.bot or person.merged_into:
        return clear_preload(person, context) if person.preloaded else ()
    name = "" if isinstance(event, (TimerFired, ShardMessage)) else event.name
    moved = {(move.segment, move.entered) for move in context.segment_changes}
    come = []
    session = person.session
    for rule in rules.ranked:
        trigger = rule.campaign.trigger
        if trigger.event:
            occasion = trigger.event == name and rule.matches(event)  # type: ignore[arg-type]  # it has a name
        elif trigger.segment:
            occasion = (trigger.segment, True) in moved
        elif trigger.exited_segment:
            occasion = (trigger.exited_segment, False) in moved
        else:
            occasion = rule.time_on_site > 0 and session is not None and rule.name not in session.time_triggered
        if occasion and rule.is_met(person, facts, now):
            come.append(rule)
    effects: Sequence[Effect] = ()
    if session is None:
        person.timers.pop("seconds:", None)
        effects = clear_preload(person, context) if person.preloaded else ()
    else:
        due = min(
            (
                at
                for rule in rules.ranked
                if rule.time_on_site
                for at in [rule.next_change(person, facts, now)]
                if at is not None
            ),
            default=NEVER,
        )
        if due < person.timers.get("seconds:", NEVER):
            person.timers["seconds:"] = due
        exits = FullScan([rule for rule in rules.ranked if rule.trigger_kind == "exit_intent"])
        plain: Any = SimpleNamespace(exit_offers=exits)  # no more of an audience is asked for
        effects = preload_exit_offer(person, facts, session, plain, event, context)
    shortlist(person, facts, iter(come), context)
    return effects


INDEXED_STEPS = (update_profile.step, match_segments.step, advance_workflows.step, select_campaigns.step, decide.step)
FULL_SCAN_STEPS = (update_profile.step, match_segments.step, advance_workflows.step, full_scan_step, decide.step)

TRIGGERS: tuple[dict[str, Any], ...] = (
    {"event": "Product Viewed"},
    {"event": "Product Viewed", "properties": {"category": "a"}},
    {"event": "Product Viewed", "properties": {"category": ["b", "z"], "price": {"at_least": 5}}},
    {"event": "Page Viewed"},
    {"segment": "s0"},
    {"segment": "base"},
    {"exited_segment": "base"},
    {"exited_segment": "s0"},
    *[{"exit_intent": True}] * 6,
    {"seconds_on_site": 1},
    {"seconds_on_site": 30},
    {"seconds_on_site": 61},
    {"seconds_on_site": 100},
    {"event": "Product Added", "delay": "30s"},
)
WHENS: tuple[dict[str, Any], ...] = (
    {},
    {"session": {"pages_at_least": 2}},
    {"session": {"pages_at_least": 4}, "has": {"country": "CA"}},
    {"session": {"seconds_at_least": 45}},
    {"cart": {"items_at_least": 1}},
    {"cart": {"untouched_for": "30s"}},
    {"cart": {"value_at_least": 20}},
    {"cart": {"contains_category": ["a", "c"]}},
    {"cart": {"contains_product": "q"}},
    {"cart": {"empty": True}, "session": {"products_at_least": 1}},
    {"in_segment": ["s0", "base"]},
    {"did": {"event": "Product Viewed", "within": "30s"}},
    {"did_not": {"event": "Product Viewed", "within": "30s"}},
    {"did": {"event": "Quiz Finished", "at_least": 2}},
    {"orders": {"count_at_least": 1}},
    {"orders": {"count_is": 0}},
    {"orders": {"last_within": "1m"}},
    {"orders": {"last_before": "30s"}},
    {"has": {"trait": {"plan": ["gold", 1]}}},
    {"any": [{"cart": {"value_at_least": 9}}, {"orders": {"last_within": "1m"}}]},
    {"has": {"country": ["IT", "FR"]}},
    {"all": [{"cart": {"untouched_for": "5s"}}, {"did": {"event": "Page Viewed", "within": "1m"}}]},
    {"any": [{"has": {"country": "CA"}, "session": {"searches_at_least": 1}}, {"in_segment": "base"}]},
    {"not": {"in_segment": "base"}},
    {"session": {"first_session": True}},
    {"has": {"last_seen_before": "30s"}},
)
LIMITS: tuple[dict[str, Any], ...] = ({}, {"per_session": 3}, {"total": 1}, {"per_day": 2, "per_session": 9})
SPANS: tuple[dict[str, Any], ...] = ({}, {}, {}, {}, {"start": "2023-11-14 22:14"}, {"end": "2023-11-14 22:15"})
CONTENT = ("x", "x", "{{ product.name }}")


def random_campaigns(random: Random, count: int, more: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Campaigns of all kinds. (Hypothesis by itself would mostly draw few.)"""
    pool = [*WHENS, *more, *more]
    return [
        {
            "trigger": random.choice(TRIGGERS),
            "frequency_caps": random.choice(LIMITS),
            **random.choice(SPANS),
            "format": random.choice(("popup", "bar", "banner")),
            "priority": random.randrange(4),
            "purpose": random.choice(("marketing", "service")),
            "content": {"default": {"title": random.choice(CONTENT)}},
            "when": {"all": random.sample(pool, random.choice((0, 1, 1, 2, 3)))},
            **({"unless": random.choice(pool)} if random.random() < 0.2 else {}),
        }
        for _ in range(count)
    ]


def random_history(random: Random, count: int) -> list[HistoryStep]:
    """What happens in some minutes, now and then after a while, sometimes heard of late."""
    gaps = (*(0, 400, 1_000, 5_000, 20_000, 61_000) * 5, 1_800_000)
    return [
        HistoryStep(
            random.choice(gaps),
            random.choice(EVENTS[:10] + EVENTS),
            random.choice((0, 0, 0, 0, 500, 29_000)),
            random.random() < 0.2,
        )
        for _ in range(count)
    ]


def playbook_of(declared: list[dict[str, Any]], segment: dict[str, Any], per_session: int) -> Playbook:
    whole = segment_playbook([segment])
    made = make_playbook(campaigns={f"c{n}": one for n, one in enumerate(declared)})
    shop = msgspec.structs.replace(whole.shop, frequency_caps=ShopFrequencyCaps(per_session, 50, "10s"))
    return Playbook(shop, whole.segments, (*whole.campaigns, *made.campaigns))


def run_history(
    harness: PersonHarness, steps: Sequence[Any], history: list[HistoryStep], cold: bool, monkeypatch: Any
) -> None:
    """A whole history; who is sent something sees it a second later, as a rule."""
    monkeypatch.setattr("tests.harness.person.STEPS", steps)
    at = 0
    for n, news in enumerate(history):
        at += news.gap
        name, properties = news.what
        harness.delay = news.delay
        before = len(harness.actions)
        harness.emit(at, name, **properties)
        harness.delay = 0
        if cold or news.reload:
            harness.store_and_reload()
        for action in harness.actions[before:]:
            if isinstance(action, Send) and n % 3:
                harness.emit(at, "Offer Shown", action_id=action.id, campaign=action.campaign)
    harness.advance(at + 130_000)


@given(st.integers(0, 2**32), st.lists(conditions, max_size=6))
@settings(max_examples=examples(20), deadline=None)
def test_indexed_decisions_match_a_full_scan(seed: Any, more: Any) -> None:
    random = Random(seed)
    segment = random.choice([one for one in WHENS if one and "s0" not in str(one)])
    whole = playbook_of(random_campaigns(random, random.randrange(10, 160), more), segment, random.randrange(2, 20))
    history = random_history(random, random.randrange(5, 40))
    told = []
    with pytest.MonkeyPatch.context() as monkeypatch:
        for steps, cold in ((INDEXED_STEPS, False), (INDEXED_STEPS, True), (FULL_SCAN_STEPS, True)):
            visitor = PersonHarness(whole, country="CA")
            run_history(visitor, steps, history, cold, monkeypatch)
            told.append((visitor.actions, visitor.fired, codec.encode(visitor.person)))
    hot, rested, plain = told
    assert hot[0] == rested[0] == plain[0]
    assert hot[1] == rested[1] == plain[1]
    assert hot[2] == rested[2] == plain[2]


# -- what is said when very many could be --------------------------------------------------------------------------


def many_campaigns(count: int, **rest: Any) -> dict[str, Any]:
    return {f"c{n:03d}": {"trigger": {"event": "Product Viewed"}, "priority": -n, **rest} for n in range(count)}


def test_suppressions_are_recorded_for_few_candidates_only() -> None:
    few = PersonHarness(make_playbook(campaigns=many_campaigns(10))).emit(0, "Product Viewed", **PRODUCT)
    assert [what for _, what, _ in summarize(few)] == ["send"] + ["suppress lower_priority"] * 9
    many = PersonHarness(make_playbook(campaigns=many_campaigns(11))).emit(0, "Product Viewed", **PRODUCT)
    assert summarize(many) == [
        (0, "send", "c000"),
        (0, "suppress lower_priority", "c001"),
        (0, "suppress lower_priority", "c002"),
    ]


def test_blocked_candidate_gives_way_per_placement() -> None:
    declared = many_campaigns(20, purpose="marketing") | {
        "late": {"trigger": {"event": "Product Viewed"}, "priority": -500, "purpose": "service"},
        "bar": {"trigger": {"event": "Product Viewed"}, "priority": -400, "format": "bar", "purpose": "service"},
    }
    visitor = PersonHarness(make_playbook(shop={"consent": {"default": "denied"}}, campaigns=declared))
    assert summarize(visitor.emit(0, "Product Viewed", **PRODUCT)) == [(0, "send", "bar"), (0, "send", "late")]


def test_first_of_many_blocked_candidates_gives_the_reason() -> None:
    visitor = PersonHarness(make_playbook(shop={"consent": {"default": "denied"}}, campaigns=many_campaigns(20)))
    (hold,) = visitor.emit(0, "Product Viewed", **PRODUCT)
    assert isinstance(hold, Suppress)
    assert (hold.campaign, hold.because.reason) == ("c000", "consent")


# -- the other occasions -------------------------------------------------------------------------------------------


def test_segment_exit_is_a_trigger() -> None:
    visitor = PersonHarness(
        make_playbook(
            segments={"full": {"when": {"cart": {"items_at_least": 1}}}},
            campaigns={"sorry": {"trigger": {"exited_segment": "full"}}, "hello": {"trigger": {"segment": "full"}}},
        )
    )
    assert summarize(visitor.emit(0, "Product Added", **PRODUCT)) == [(0, "entered", "full"), (0, "send", "hello")]
    gone = visitor.emit(40_000, "Cart Cleared")
    assert summarize(gone) == [(40_000, "exited", "full"), (40_000, "send", "sorry")]
    assert isinstance(gone[1], Send)
    assert gone[1].because.trigger == "left full"


def test_unless_start_and_end_are_exact_and_described() -> None:
    """T0 is 2023-11-14 23:13:20 in Rome."""
    visitor = PersonHarness(
        make_playbook(
            shop={"timezone": "Europe/Rome"},
            campaigns={
                "night": {
                    "trigger": {"exit_intent": True},
                    "unless": {"cart": {"items_at_least": 1}},
                    "start": "2023-11-14 23:14",
                    "end": "2023-11-14 23:15",
                }
            },
        )
    )
    visitor.emit(0, "Page Viewed")
    assert summarize(visitor.advance(60_000)) == [(40_000, "preload", "night")]
    (arm,) = visitor.actions
    assert not isinstance(arm, (Suppress,))
    assert arm.because is not None
    assert arm.because.passed == (
        "not: at least 1 in the cart (has 0)",
        "not before 2023-11-14 23:14 (Europe/Rome)",
        "before 2023-11-14 23:15 (Europe/Rome)",
    )
    assert summarize(visitor.emit(65_000, "Product Added", **OTHER)) == [(65_000, "cancel", "night")]
    assert summarize(visitor.emit(66_000, "Cart Cleared")) == [(66_000, "preload", "night")]
    assert summarize(visitor.advance(200_000)) == [(100_000, "cancel", "night")]


def test_campaign_dates_use_the_shop_time_zone() -> None:
    for zone, fires in (("Europe/Rome", False), ("Asia/Tokyo", True)):
        visitor = PersonHarness(
            make_playbook(
                shop={"timezone": zone},
                campaigns={"day": {"trigger": {"event": "Page Viewed"}, "start": "2023-11-15", "end": "2023-11-16"}},
            )
        )
        assert bool(visitor.emit(0, "Page Viewed")) is fires


def test_delayed_campaign_is_decided_when_due() -> None:
    declared = {"soon": {"trigger": {"event": "Product Added", "delay": "1m"}, "when": {"cart": {"items_at_least": 1}}}}
    visitor = PersonHarness(make_playbook(campaigns=declared))
    assert visitor.emit(0, "Product Added", **PRODUCT) == []
    (send,) = visitor.advance(200_000)
    assert (send.at - visitor.now + 200_000, summarize([send])[0][1:]) == (60_000, ("send", "soon"))
    visitor = PersonHarness(make_playbook(campaigns=declared))
    visitor.emit(0, "Product Added", **PRODUCT)
    visitor.emit(30_000, "Cart Cleared")
    assert summarize(visitor.advance(200_000)) == [(60_000, "suppress not_eligible", "soon")]
