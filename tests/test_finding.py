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

from domain.action import Hold, Send
from domain.condition import Condition
from domain.effect import Effect
from domain.letter import Letter
from domain.playbook import Playbook
from domain.shop import ShopLimits
from operators import advance_workflows, choose_actions, fold_profile, match_segments, respect_limits
from operators.arm_ahead import arm_ahead, forget
from operators.propose import propose
from state import codec
from state.audience import NEVER
from state.conditions import compile_condition
from state.context import Context, Due, Happening
from state.finder import Finder
from state.person import Facts, Person, Said, Source
from state.rules import CampaignRule
from state.view import known
from state.ways import ways
from tests.arbitrary import SHOP, conditions, moments, people, remembering
from tests.support import examples
from tests.test_conditions_in_time import HAPPENINGS, OTHER, PRODUCT, Told, segments_of
from tests.visitor import Visitor, playbook, short

# -- what is not found does not hold -------------------------------------------------------------------------------


@given(st.lists(conditions, min_size=1, max_size=40), people(), moments)
@settings(max_examples=examples(80), deadline=None)
def test_whatever_holds_is_found_and_what_is_not_found_time_alone_does_not_change(
        plain: Any, person: Any, now: Any) -> None:
    facts = remembering(person, *plain)
    declared = [msgspec.convert(one, Condition) for one in plain]
    finder = Finder((n, ways(one, SHOP)) for n, one in enumerate(declared))
    found = finder.find(person, facts)
    assert found == sorted(set(found))
    for n, one in enumerate(declared):
        compiled = compile_condition(one, SHOP)
        if n not in found:
            assert not compiled.holds(person, facts, now), plain[n]
            assert compiled.next_change(person, facts, now) is None, plain[n]


COUNTRIES = ("CA", "IT", "DE", "FR")


def test_of_a_thousand_only_a_handful_is_found() -> None:
    declared = [msgspec.convert({
        "has": {"country": COUNTRIES[n % 4], "trait": {"shop": n % 50}}, "session": {"pages_at_least": 1 + n % 30},
    }, Condition) for n in range(1_000)]
    finder = Finder((n, ways(one, SHOP)) for n, one in enumerate(declared))
    assert finder.find(Person("a:x"), Facts(country="CA")) == []
    visitor = Visitor(playbook(), country="CA")
    visitor.does(0, "Identified", shop=4)
    for at in range(12):
        visitor.does(at, "Page Viewed")
    facts = visitor.person.own()
    holding = [n for n, one in enumerate(declared) if compile_condition(one).holds(visitor.person, facts, visitor.now)]
    found = finder.find(visitor.person, facts)
    assert set(holding) <= set(found)
    assert 0 < len(holding) <= len(found) <= 12


FEW: dict[str, Any] = {
    "a product looked at": lambda n: {"did": {"event": "Product Viewed", "where": {"product_id": f"p{n}"}}},
    "often in a week": lambda n: {"did": {
        "event": "Product Viewed", "where": {"product_id": f"p{n}"}, "at_least": 2, "within": "7d"}},
    "an event of the shop's own": lambda n: {"did": {"event": f"Quiz {n} Finished", "within": "7d"}},
    "one after another": lambda n: {"sequence": {
        "steps": [{"event": "Product Viewed", "where": {"product_id": f"p{n}"}}, "Product Added"]}},
    "told before": lambda n: {"was_said": {"campaign": f"c{n}"}},
    "brought by an advertisement": lambda n: {"has": {"campaign": f"ad-{n}"}},
    "brought by a medium": lambda n: {"has": {"medium": f"medium-{n}"}},
    "brought first by": lambda n: {"has": {"first_source": f"friend-{n}"}},
}


@pytest.mark.parametrize("kind", FEW)
def test_what_few_have_done_is_asked_of_them_alone(kind: str) -> None:
    declared = [msgspec.convert({"all": [FEW[kind](n), {"session": {"pages_at_least": 1}}]}, Condition)
                for n in range(500)]
    finder = Finder((n, ways(one, SHOP)) for n, one in enumerate(declared))
    visitor = Visitor(playbook(segments={f"s{n}": {"when": FEW[kind](n)} for n in range(500)}))
    visitor.does(0, "Page Viewed")
    visitor.person.own().first_source = Source("friend-7")
    visitor.person.own().last_source = Source("friend-8", "medium-7", "ad-7")
    for at in (1, 2):
        visitor.does(at, "Product Viewed", product_id="p7")
    visitor.does(3, "Product Added", product_id="p7")
    visitor.does(4, "Quiz 7 Finished")
    visitor.person.said["c7"] = Said(total=1, last_at=visitor.now, times=[visitor.now])
    assert finder.find(visitor.person, known(visitor.person)) == [7]
    assert compile_condition(declared[7], SHOP).holds(visitor.person, known(visitor.person), visitor.now)


# -- a plain loop --------------------------------------------------------------------------------------------------


class Everybody:
    """All campaigns of one kind, asked anew each time; `until` is by those that were looked at."""

    def __init__(self, rules: Sequence[CampaignRule]) -> None:
        self.rules, self.asked = rules, list[tuple[CampaignRule, int | None]]()

    def each(self, person: Person, facts: Facts, now: int) -> Iterator[CampaignRule]:
        for rule in self.rules:
            self.asked.append((rule, rule.next_change(person, facts, now)))
            if rule.holds(person, facts, now):
                yield rule

    def until(self) -> int:
        return min((at for _, at in self.asked if at is not None), default=NEVER)


def plain_step(person: Person, event: Happening, context: Context) -> Sequence[Effect]:
    """choose_actions, as a loop over everything."""
    facts, now, rules = known(person), context.now, context.rules
    if person.bot or person.alias_of:
        return forget(person, context) if person.armed else ()
    name = "" if isinstance(event, (Due, Letter)) else event.name
    moved = {(move.segment, move.entered) for move in context.moves}
    come = []
    session = person.session
    for rule in rules.ranked:
        trigger = rule.campaign.trigger
        if trigger.event:
            occasion = trigger.event == name and rule.matches(event)  # type: ignore[arg-type]  # it has a name
        elif trigger.segment:
            occasion = (trigger.segment, True) in moved
        elif trigger.left_segment:
            occasion = (trigger.left_segment, False) in moved
        else:
            occasion = rule.seconds > 0 and session is not None and rule.name not in session.sent
        if occasion and rule.holds(person, facts, now):
            come.append(rule)
    effects: Sequence[Effect] = ()
    if session is None:
        person.timers.pop("seconds:", None)
        effects = forget(person, context) if person.armed else ()
    else:
        due = min((at for rule in rules.ranked if rule.seconds
                   for at in [rule.next_change(person, facts, now)] if at is not None), default=NEVER)
        if due < person.timers.get("seconds:", NEVER):
            person.timers["seconds:"] = due
        exits = Everybody([rule for rule in rules.ranked if rule.kind == "exit_intent"])
        plain: Any = SimpleNamespace(exits=exits)  # no more of an audience is asked for
        effects = arm_ahead(person, facts, session, plain, event, context)
    propose(person, facts, iter(come), context)
    return effects


FOUND = (fold_profile.step, match_segments.step, advance_workflows.step, choose_actions.step, respect_limits.step)
PLAIN = (fold_profile.step, match_segments.step, advance_workflows.step, plain_step, respect_limits.step)

TRIGGERS: tuple[dict[str, Any], ...] = (
    {"event": "Product Viewed"}, {"event": "Product Viewed", "properties": {"category": "a"}},
    {"event": "Product Viewed", "properties": {"category": ["b", "z"], "price": {"at_least": 5}}},
    {"event": "Page Viewed"}, {"segment": "s0"}, {"segment": "base"}, {"left_segment": "base"}, {"left_segment": "s0"},
    *[{"exit_intent": True}] * 6, {"seconds_on_site": 1}, {"seconds_on_site": 30}, {"seconds_on_site": 61},
    {"seconds_on_site": 100}, {"event": "Product Added", "delay": "30s"},
)
WHENS: tuple[dict[str, Any], ...] = (
    {}, {"session": {"pages_at_least": 2}}, {"session": {"pages_at_least": 4}, "has": {"country": "CA"}},
    {"session": {"seconds_at_least": 45}}, {"cart": {"items_at_least": 1}}, {"cart": {"untouched_for": "30s"}},
    {"cart": {"value_at_least": 20}}, {"cart": {"contains_category": ["a", "c"]}}, {"cart": {"contains_product": "q"}},
    {"cart": {"empty": True}, "session": {"products_at_least": 1}}, {"in_segment": ["s0", "base"]},
    {"did": {"event": "Product Viewed", "within": "30s"}}, {"did_not": {"event": "Product Viewed", "within": "30s"}},
    {"did": {"event": "Quiz Finished", "at_least": 2}}, {"orders": {"count_at_least": 1}}, {"orders": {"count_is": 0}},
    {"orders": {"last_within": "1m"}}, {"orders": {"last_before": "30s"}}, {"has": {"trait": {"plan": ["gold", 1]}}},
    {"any": [{"cart": {"value_at_least": 9}}, {"orders": {"last_within": "1m"}}]}, {"has": {"country": ["IT", "FR"]}},
    {"all": [{"cart": {"untouched_for": "5s"}}, {"did": {"event": "Page Viewed", "within": "1m"}}]},
    {"any": [{"has": {"country": "CA"}, "session": {"searches_at_least": 1}}, {"in_segment": "base"}]},
    {"not": {"in_segment": "base"}}, {"session": {"first_visit": True}}, {"has": {"last_seen_before": "30s"}},
)
LIMITS: tuple[dict[str, Any], ...] = ({}, {"per_session": 3}, {"total": 1}, {"per_day": 2, "per_session": 9})
SPANS: tuple[dict[str, Any], ...] = ({}, {}, {}, {}, {"start": "2023-11-14 22:14"}, {"end": "2023-11-14 22:15"})
WORDS = ("x", "x", "{{ product.name }}")


def drawn(random: Random, count: int, more: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Campaigns of all kinds. (Hypothesis by itself would mostly draw few.)"""
    pool = [*WHENS, *more, *more]
    return [{
        "trigger": random.choice(TRIGGERS), "limits": random.choice(LIMITS), **random.choice(SPANS),
        "format": random.choice(("popup", "bar", "banner")), "priority": random.randrange(4),
        "purpose": random.choice(("marketing", "service")),
        "content": {"default": {"title": random.choice(WORDS)}},
        "when": {"all": random.sample(pool, random.choice((0, 1, 1, 2, 3)))},
        **({"unless": random.choice(pool)} if random.random() < 0.2 else {}),
    } for _ in range(count)]


def happened(random: Random, count: int) -> list[Told]:
    """What happens in some minutes, now and then after a while, sometimes heard of late."""
    gaps = (*(0, 400, 1_000, 5_000, 20_000, 61_000) * 5, 1_800_000)
    return [Told(random.choice(gaps),
                 random.choice(HAPPENINGS[:10] + HAPPENINGS), random.choice((0, 0, 0, 0, 500, 29_000)),
                 random.random() < 0.2) for _ in range(count)]


def shop_of(declared: list[dict[str, Any]], segment: dict[str, Any], per_session: int) -> Playbook:
    whole = segments_of([segment])
    made = playbook(campaigns={f"c{n}": one for n, one in enumerate(declared)})
    shop = msgspec.structs.replace(whole.shop, limits=ShopLimits(per_session, 50, "10s"))
    return Playbook(shop, whole.segments, (*whole.campaigns, *made.campaigns))


def through(visitor: Visitor, steps: Sequence[Any], history: list[Told], cold: bool, monkeypatch: Any) -> None:
    """A whole history; who is sent something sees it a second later, as a rule."""
    monkeypatch.setattr("tests.visitor.STEPS", steps)
    at = 0
    for n, news in enumerate(history):
        at += news.gap
        name, properties = news.what
        visitor.late = news.late
        before = len(visitor.actions)
        visitor.does(at, name, **properties)
        visitor.late = 0
        if cold or news.rests:
            visitor.rests()
        for action in visitor.actions[before:]:
            if isinstance(action, Send) and n % 3:
                visitor.does(at, "Offer Shown", action_id=action.id, campaign=action.campaign)
    visitor.waits(at + 130_000)


@given(st.integers(0, 2**32), st.lists(conditions, max_size=6))
@settings(max_examples=examples(20), deadline=None)
def test_found_or_asked_one_by_one_hot_or_cold_the_same_is_decided(seed: Any, more: Any) -> None:
    random = Random(seed)
    segment = random.choice([one for one in WHENS if one and "s0" not in str(one)])
    whole = shop_of(drawn(random, random.randrange(10, 160), more), segment, random.randrange(2, 20))
    history = happened(random, random.randrange(5, 40))
    told = []
    with pytest.MonkeyPatch.context() as monkeypatch:
        for steps, cold in ((FOUND, False), (FOUND, True), (PLAIN, True)):
            visitor = Visitor(whole, country="CA")
            through(visitor, steps, history, cold, monkeypatch)
            told.append((visitor.actions, visitor.fired, codec.encode(visitor.person)))
    hot, rested, plain = told
    assert hot[0] == rested[0] == plain[0]
    assert hot[1] == rested[1] == plain[1]
    assert hot[2] == rested[2] == plain[2]


# -- what is said when very many could be --------------------------------------------------------------------------


def crowd(count: int, **rest: Any) -> dict[str, Any]:
    return {f"c{n:03d}": {"trigger": {"event": "Product Viewed"}, "priority": -n, **rest} for n in range(count)}


def test_of_ten_all_are_decided_and_of_more_only_those_that_could_be_said() -> None:
    few = Visitor(playbook(campaigns=crowd(10))).does(0, "Product Viewed", **PRODUCT)
    assert [what for _, what, _ in short(few)] == ["send"] + ["hold lower_priority"] * 9
    many = Visitor(playbook(campaigns=crowd(11))).does(0, "Product Viewed", **PRODUCT)
    assert short(many) == [(0, "send", "c000"), (0, "hold lower_priority", "c001"), (0, "hold lower_priority", "c002")]


def test_each_place_has_its_own_and_what_is_blocked_leaves_it_to_the_next() -> None:
    declared = crowd(20, purpose="marketing") | {
        "late": {"trigger": {"event": "Product Viewed"}, "priority": -500, "purpose": "service"},
        "bar": {"trigger": {"event": "Product Viewed"}, "priority": -400, "format": "bar", "purpose": "service"}}
    visitor = Visitor(playbook(shop={"consent": {"default": "denied"}}, campaigns=declared))
    assert short(visitor.does(0, "Product Viewed", **PRODUCT)) == [(0, "send", "bar"), (0, "send", "late")]


def test_of_many_that_are_all_blocked_the_first_one_says_why() -> None:
    visitor = Visitor(playbook(shop={"consent": {"default": "denied"}}, campaigns=crowd(20)))
    (hold,) = visitor.does(0, "Product Viewed", **PRODUCT)
    assert isinstance(hold, Hold)
    assert (hold.campaign, hold.because.reason) == ("c000", "consent")


# -- the other occasions -------------------------------------------------------------------------------------------


def test_leaving_a_segment_is_an_occasion() -> None:
    visitor = Visitor(playbook(
        segments={"full": {"when": {"cart": {"items_at_least": 1}}}},
        campaigns={"sorry": {"trigger": {"left_segment": "full"}}, "hello": {"trigger": {"segment": "full"}}}))
    assert short(visitor.does(0, "Product Added", **PRODUCT)) == [(0, "entered", "full"), (0, "send", "hello")]
    gone = visitor.does(40_000, "Cart Cleared")
    assert short(gone) == [(40_000, "left", "full"), (40_000, "send", "sorry")]
    assert isinstance(gone[1], Send)
    assert gone[1].because.trigger == "left full"


def test_unless_start_and_end_are_reasons_with_words_and_exact_moments() -> None:
    """T0 is 2023-11-14 23:13:20 in Rome."""
    visitor = Visitor(playbook(shop={"timezone": "Europe/Rome"}, campaigns={"night": {
        "trigger": {"exit_intent": True}, "unless": {"cart": {"items_at_least": 1}},
        "start": "2023-11-14 23:14", "end": "2023-11-14 23:15"}}))
    visitor.does(0, "Page Viewed")
    assert short(visitor.waits(60_000)) == [(40_000, "arm", "night")]
    (arm,) = visitor.actions
    assert not isinstance(arm, (Hold,))
    assert arm.because is not None
    assert arm.because.held == ("not: at least 1 in the cart (has 0)", "not before 2023-11-14 23:14 (Europe/Rome)",
                                "before 2023-11-14 23:15 (Europe/Rome)")
    assert short(visitor.does(65_000, "Product Added", **OTHER)) == [(65_000, "disarm", "night")]
    assert short(visitor.does(66_000, "Cart Cleared")) == [(66_000, "arm", "night")]
    assert short(visitor.waits(200_000)) == [(100_000, "disarm", "night")]


def test_a_day_begins_and_ends_at_midnight_of_the_shop() -> None:
    for zone, fires in (("Europe/Rome", False), ("Asia/Tokyo", True)):
        visitor = Visitor(playbook(shop={"timezone": zone}, campaigns={"day": {
            "trigger": {"event": "Page Viewed"}, "start": "2023-11-15", "end": "2023-11-16"}}))
        assert bool(visitor.does(0, "Page Viewed")) is fires


def test_a_delay_decides_later_by_what_is_true_then() -> None:
    declared = {"soon": {"trigger": {"event": "Product Added", "delay": "1m"}, "when": {"cart": {"items_at_least": 1}}}}
    visitor = Visitor(playbook(campaigns=declared))
    assert visitor.does(0, "Product Added", **PRODUCT) == []
    (send,) = visitor.waits(200_000)
    assert (send.at - visitor.now + 200_000, short([send])[0][1:]) == (60_000, ("send", "soon"))
    visitor = Visitor(playbook(campaigns=declared))
    visitor.does(0, "Product Added", **PRODUCT)
    visitor.does(30_000, "Cart Cleared")
    assert short(visitor.waits(200_000)) == [(60_000, "hold audience", "soon")]
