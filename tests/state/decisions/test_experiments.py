"""Experiments: shares, the same side for ever and everywhere, and what a holdout leaves behind."""

from collections import Counter
from typing import Any

import pytest

from domain.action import Preload, Send, Suppress, target_name
from domain.playbook.playbook import Playbook
from operators.render import prepare_content
from state.decisions import experiments
from state.decisions.experiments import GLOBAL_HOLDOUT, HOLDOUT, Assignment, assign, assigned_variant
from state.merge import build_merge_response, merge_into
from state.person import codec
from state.person.model import MAX_ASSIGNMENTS, Person
from state.playbook.compiled import Rules, compile_rules
from tests.harness.person import T0, PersonHarness, make_playbook

SAMPLE_SIZE = 20_000
VARIANT_B_CONTENT = {"default": {"title": "B"}, "mobile": {"body": "<p>b</p>"}}
VARIANTS = {"a": {"weight": 1}, "b": {"weight": 3, "content": VARIANT_B_CONTENT}}


def quiz_campaign(shop: dict[str, Any] | None = None, **campaign: Any) -> Playbook:
    return make_playbook(shop=shop or {}, campaigns={"c": {"trigger": {"event": "Quiz Finished"}, **campaign}})


def assignments(rules: Rules, people: int = SAMPLE_SIZE, name: str = "c") -> Counter[Assignment]:
    return Counter(assign(Person(f"a:{n}"), rules.campaigns[name], rules) for n in range(people))


def chi_square(found: Counter[Assignment]) -> float:
    """How far the shares are from the propensities. (Same ids, same draw: this is a number, not a chance.)"""
    whole = sum(found.values())
    return sum((n - whole * side.propensity) ** 2 / (whole * side.propensity) for side, n in found.items())


def test_variant_shares_match_the_configuration() -> None:
    found = assignments(compile_rules(quiz_campaign(variants=VARIANTS, holdout=0.2)))
    assert {side: round(side.propensity, 9) for side in found} == {
        Assignment("holdout", 0.2, HOLDOUT): 0.2,
        Assignment("a", 0.2): 0.2,
        Assignment("b", 0.6000000000000001): 0.6,
    }
    assert chi_square(found) < 9.2, "two degrees of freedom: 99 of 100 fair draws are below"


def test_shares_with_a_global_holdout_add_up() -> None:
    found = assignments(compile_rules(quiz_campaign({"holdout": 0.1}, variants=VARIANTS, holdout=0.2)))
    shares = {(side.variant, round(side.propensity, 6)) for side in found}
    assert shares == {("holdout", 0.28), ("a", 0.18), ("b", 0.54)}
    together = Counter({Assignment(side.variant, side.propensity): 0 for side in found})
    for side, n in found.items():
        together[Assignment(side.variant, next(s for v, s in shares if v == side.variant))] += n
    assert chi_square(Counter({side: n for side, n in together.items() if n})) < 9.2
    assert {side.holdout_reason for side in found} == {"", HOLDOUT, GLOBAL_HOLDOUT}


def test_campaigns_are_assigned_independently() -> None:
    rules = compile_rules(
        make_playbook(
            campaigns={name: {"trigger": {"event": "Quiz Finished"}, "variants": {"a": {}, "b": {}}} for name in "cd"}
        )
    )
    pairs: Counter[Assignment] = Counter()
    for n in range(SAMPLE_SIZE):
        person = Person(f"a:{n}")
        pairs[Assignment("".join(assign(person, rules.campaigns[name], rules).variant for name in "cd"), 0.25)] += 1
    assert chi_square(pairs) < 11.3, "three degrees of freedom"


def test_no_assignment_without_an_experiment() -> None:
    rules, person = compile_rules(quiz_campaign()), Person("a:x")
    assert assign(person, rules.campaigns["c"], rules) == Assignment("", 1.0, "")
    assert person.assignments == {}


def test_service_campaigns_skip_the_global_holdout() -> None:
    rules = compile_rules(quiz_campaign({"holdout": 0.5}, purpose="service"))
    assert set(assignments(rules, 50)) == {Assignment()}


def test_assignment_is_stable_when_shares_change() -> None:
    before = compile_rules(quiz_campaign(variants=VARIANTS))
    after = compile_rules(quiz_campaign(variants={"a": {"weight": 9}, "b": {}}))
    for n in range(100):
        person = Person(f"a:{n}")
        side = assign(person, before.campaigns["c"], before)
        person = codec.decode(codec.encode(person))
        assert assign(person, after.campaigns["c"], after) == side


def test_removed_variant_is_reassigned() -> None:
    rules, person = compile_rules(quiz_campaign(variants=VARIANTS)), Person("a:x", assignments={"c": "z 0.5"})
    side = assign(person, rules.campaigns["c"], rules)
    assert side == assign(Person("a:x"), rules.campaigns["c"], rules)
    assert assigned_variant(person, "c") == side.variant
    assert assigned_variant(person, "d") == ""


def merge_assigned(known: dict[str, str], anonymous: dict[str, str]) -> Person:
    ann, browser = Person("u:ann", assignments=known), Person("a:x", assignments=anonymous)
    merge_into(ann, build_merge_response(browser), T0)
    assert browser.assignments == {}
    return ann


def test_login_keeps_the_customers_assignment() -> None:
    rules = compile_rules(quiz_campaign(variants=VARIANTS))
    for mine, theirs, stays in (
        ({}, {"c": "a 0.25"}, "a"),
        ({}, {"c": "b 0.75"}, "b"),
        ({"c": "b 0.75"}, {"c": "a 0.25"}, "b"),
        ({"c": "a 0.25"}, {}, "a"),
    ):
        assert assign(merge_assigned(mine, theirs), rules.campaigns["c"], rules).variant == stays


def test_evicted_assignment_is_redrawn_identically() -> None:
    person = Person("a:x", assignments={f"c{n}": "a 0.5" for n in range(MAX_ASSIGNMENTS)})
    rules = compile_rules(quiz_campaign(variants=VARIANTS))
    side = assign(person, rules.campaigns["c"], rules)
    assert len(person.assignments) == MAX_ASSIGNMENTS
    assert "c0" not in person.assignments
    del person.assignments["c"]
    assert assign(person, rules.campaigns["c"], rules) == side
    experiments.merge(person, {f"d{n}": "a 0.5" for n in range(9)})
    assert len(person.assignments) == MAX_ASSIGNMENTS


# -- in the steps --------------------------------------------------------------------------------------------------


def person_with_variant(made: Playbook, variant: str, device: str = "desktop") -> PersonHarness:
    """Somebody on this side."""
    rules = compile_rules(made)
    for n in range(1_000):
        if assign(Person(f"a:v{n}"), rules.campaigns["c"], rules).variant == variant:
            return PersonHarness(made, f"v{n}", device=device)
    raise AssertionError(f"nobody is on the side {variant}")


@pytest.mark.parametrize(
    ("side", "device", "variant", "title", "html"),
    [
        ("a", "desktop", "a/default", "c", "<p>all</p>"),
        ("a", "mobile", "a/mobile", "phone", "<p>all</p>"),
        ("b", "desktop", "b/default", "B", "<p>all</p>"),
        ("b", "mobile", "b/mobile", "B", "<p>b</p>"),
    ],
)
def test_variant_content_falls_back_to_the_campaign(
    side: str, device: str, variant: str, title: str, html: str
) -> None:
    made = quiz_campaign(
        variants=VARIANTS, content={"default": {"title": "c", "body": "<p>all</p>"}, "mobile": {"title": "phone"}}
    )
    (send,) = person_with_variant(made, side, device).emit(0, "Quiz Finished")
    assert isinstance(send, Send)
    assert (send.because.variant, send.content.title, send.content.html) == (variant, title, html)
    assert send.because.propensity == {"a": 0.25, "b": 0.75}[side]


def test_content_is_parsed_once_per_variant_and_device() -> None:
    rules = compile_rules(quiz_campaign(variants=VARIANTS))
    rule = rules.campaigns["c"]
    assert prepare_content(rule, "desktop", rules, "b") is prepare_content(rule, "tablet", rules, "b")
    assert prepare_content(rule, "mobile", rules, "b") is not prepare_content(rule, "desktop", rules, "b")
    assert prepare_content(rule, "mobile", rules, "a") is prepare_content(rule, "desktop", rules, "a")
    assert prepare_content(rule, "desktop", rules).variant == "default"


def test_holdout_frees_the_placement_for_others() -> None:
    made = make_playbook(
        campaigns={
            "c": {"trigger": {"event": "Quiz Finished"}, "holdout": 0.5, "priority": 9, "goal": {}},
            "d": {"trigger": {"event": "Quiz Finished"}},
        }
    )
    visitor = person_with_variant(made, "holdout")
    hold, send = visitor.emit(0, "Quiz Finished")
    assert isinstance(hold, Suppress)
    assert isinstance(send, Send)
    assert (hold.because.reason, hold.because.variant, hold.because.propensity) == ("holdout", "holdout", 0.5)
    assert send.campaign == "d"
    assert [one.campaign for one in visitor.person.pending_sends] == ["d"]
    assert visitor.emit(40_000, "Quiz Finished")[0].because.reason == "", "said once"
    assert [(one.campaign, one.variant, one.opened_at) for one in visitor.person.pending_goals] == [
        ("c", "holdout", T0)
    ]


def test_suppressed_person_is_not_counted_as_holdout() -> None:
    made = quiz_campaign({"consent": {"default": "denied"}}, holdout=0.5, goal={})
    visitor = person_with_variant(made, "holdout")
    (hold,) = visitor.emit(0, "Quiz Finished")
    assert hold.because.reason == "consent"
    assert visitor.person.pending_goals == []
    assert visitor.person.assignments == {}, "nobody asked for their side"


def test_exit_offer_uses_variants_and_holdout() -> None:
    made = make_playbook(
        campaigns={
            "c": {"trigger": {"exit_intent": True}, "holdout": 0.5, "variants": VARIANTS, "goal": {}, "priority": 1},
            "d": {"trigger": {"exit_intent": True}},
        }
    )
    (arm,) = person_with_variant(made, "b").emit(0, "Page Viewed")
    assert isinstance(arm, Preload)
    assert (arm.campaign, arm.because.variant, arm.because.propensity) == ("c", "b/default", 0.375)
    visitor = person_with_variant(made, "holdout")
    (arm,) = visitor.emit(0, "Page Viewed")
    assert isinstance(arm, Preload)
    assert arm.campaign == "d"
    assert visitor.person.pending_goals == [], "the moment has not come"
    (hold,) = visitor.emit(1_000, "Exit Intent")
    assert (target_name(hold), hold.because.reason) == ("c", "holdout")
    assert [one.variant for one in visitor.person.pending_goals] == ["holdout"]


def test_preloaded_offer_opens_a_goal_with_its_variant() -> None:
    made = make_playbook(campaigns={"c": {"trigger": {"exit_intent": True}, "variants": VARIANTS, "goal": {}}})
    visitor = person_with_variant(made, "b")
    (arm,) = visitor.emit(0, "Page Viewed")
    visitor.emit(1_000, "Offer Shown", action_id=arm.id, campaign="c")
    assert [(one.variant, one.propensity, one.action_id) for one in visitor.person.pending_goals] == [
        ("b", 0.75, arm.id)
    ]
