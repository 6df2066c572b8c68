"""Experiments: shares, the same side for ever and everywhere, and what a holdout leaves behind."""

from collections import Counter
from typing import Any

import pytest

from domain.action import Arm, Hold, Send, subject
from domain.playbook import Playbook
from operators.render import prepare
from state import codec, experiments
from state.experiments import GLOBAL_HOLDOUT, HOLDOUT, Side, assigned, side_of
from state.merge import absorb, hand_over
from state.person import MAX_ASSIGNED, Person
from state.rules import Rules, compile_rules
from tests.visitor import T0, Visitor, playbook

MANY = 20_000
B = {"default": {"title": "B"}, "mobile": {"body": "<p>b</p>"}}
VARIANTS = {"a": {"share": 1}, "b": {"share": 3, "content": B}}


def on_quiz(shop: dict[str, Any] | None = None, **campaign: Any) -> Playbook:
    return playbook(shop=shop or {}, campaigns={"c": {"trigger": {"event": "Quiz Finished"}, **campaign}})


def sides(rules: Rules, people: int = MANY, name: str = "c") -> Counter[Side]:
    return Counter(side_of(Person(f"a:{n}"), rules.campaigns[name], rules) for n in range(people))


def chi_square(found: Counter[Side]) -> float:
    """How far the shares are from the propensities. (Same ids, same draw: this is a number, not a chance.)"""
    whole = sum(found.values())
    return sum((n - whole * side.propensity) ** 2 / (whole * side.propensity) for side, n in found.items())


def test_shares_are_what_they_say() -> None:
    found = sides(compile_rules(on_quiz(variants=VARIANTS, holdout=0.2)))
    assert {side: round(side.propensity, 9) for side in found} == {
        Side("holdout", 0.2, HOLDOUT): 0.2, Side("a", 0.2): 0.2, Side("b", 0.6000000000000001): 0.6}
    assert chi_square(found) < 9.2, "two degrees of freedom: 99 of 100 fair draws are below"


def test_shares_with_a_holdout_of_everything_add_up_too() -> None:
    found = sides(compile_rules(on_quiz({"holdout": 0.1}, variants=VARIANTS, holdout=0.2)))
    shares = {(side.variant, round(side.propensity, 6)) for side in found}
    assert shares == {("holdout", 0.28), ("a", 0.18), ("b", 0.54)}
    together = Counter({Side(side.variant, side.propensity): 0 for side in found})
    for side, n in found.items():
        together[Side(side.variant, next(s for v, s in shares if v == side.variant))] += n
    assert chi_square(Counter({side: n for side, n in together.items() if n})) < 9.2
    assert {side.held_out for side in found} == {"", HOLDOUT, GLOBAL_HOLDOUT}


def test_two_campaigns_are_drawn_each_for_itself() -> None:
    rules = compile_rules(playbook(campaigns={
        name: {"trigger": {"event": "Quiz Finished"}, "variants": {"a": {}, "b": {}}} for name in "cd"}))
    pairs: Counter[Side] = Counter()
    for n in range(MANY):
        person = Person(f"a:{n}")
        pairs[Side("".join(side_of(person, rules.campaigns[name], rules).variant for name in "cd"), 0.25)] += 1
    assert chi_square(pairs) < 11.3, "three degrees of freedom"


def test_nobody_is_drawn_where_there_is_no_experiment() -> None:
    rules, person = compile_rules(on_quiz()), Person("a:x")
    assert side_of(person, rules.campaigns["c"], rules) == Side("", 1.0, "")
    assert person.assigned == {}


def test_service_is_not_held_out_of_everything() -> None:
    rules = compile_rules(on_quiz({"holdout": 0.5}, purpose="service"))
    assert set(sides(rules, 50)) == {Side()}


def test_a_side_stays_when_shares_change_and_keeps_its_share() -> None:
    before = compile_rules(on_quiz(variants=VARIANTS))
    after = compile_rules(on_quiz(variants={"a": {"share": 9}, "b": {}}))
    for n in range(100):
        person = Person(f"a:{n}")
        side = side_of(person, before.campaigns["c"], before)
        person = codec.decode(codec.encode(person))
        assert side_of(person, after.campaigns["c"], after) == side


def test_a_side_that_is_gone_is_drawn_anew() -> None:
    rules, person = compile_rules(on_quiz(variants=VARIANTS)), Person("a:x", assigned={"c": "z 0.5"})
    side = side_of(person, rules.campaigns["c"], rules)
    assert side == side_of(Person("a:x"), rules.campaigns["c"], rules)
    assert assigned(person, "c") == side.variant
    assert assigned(person, "d") == ""


def joined(known: dict[str, str], anonymous: dict[str, str]) -> Person:
    ann, browser = Person("u:ann", assigned=known), Person("a:x", assigned=anonymous)
    absorb(ann, hand_over(browser), T0)
    assert browser.assigned == {}
    return ann


def test_what_a_browser_was_shown_stays_after_login_unless_the_customer_had_a_side() -> None:
    rules = compile_rules(on_quiz(variants=VARIANTS))
    for mine, theirs, stays in (({}, {"c": "a 0.25"}, "a"), ({}, {"c": "b 0.75"}, "b"),
                                ({"c": "b 0.75"}, {"c": "a 0.25"}, "b"), ({"c": "a 0.25"}, {}, "a")):
        assert side_of(joined(mine, theirs), rules.campaigns["c"], rules).variant == stays


def test_sides_are_bounded_the_oldest_gives_way_and_is_drawn_the_same_again() -> None:
    person = Person("a:x", assigned={f"c{n}": "a 0.5" for n in range(MAX_ASSIGNED)})
    rules = compile_rules(on_quiz(variants=VARIANTS))
    side = side_of(person, rules.campaigns["c"], rules)
    assert len(person.assigned) == MAX_ASSIGNED
    assert "c0" not in person.assigned
    del person.assigned["c"]
    assert side_of(person, rules.campaigns["c"], rules) == side
    experiments.join(person, {f"d{n}": "a 0.5" for n in range(9)})
    assert len(person.assigned) == MAX_ASSIGNED


# -- in the steps --------------------------------------------------------------------------------------------------


def visitor_of(made: Playbook, variant: str, device: str = "desktop") -> Visitor:
    """Somebody on this side."""
    rules = compile_rules(made)
    for n in range(1_000):
        if side_of(Person(f"a:v{n}"), rules.campaigns["c"], rules).variant == variant:
            return Visitor(made, f"v{n}", device=device)
    raise AssertionError(f"nobody is on the side {variant}")


@pytest.mark.parametrize(("side", "device", "variant", "title", "html"), [
    ("a", "desktop", "a/default", "c", "<p>all</p>"), ("a", "mobile", "a/mobile", "phone", "<p>all</p>"),
    ("b", "desktop", "b/default", "B", "<p>all</p>"), ("b", "mobile", "b/mobile", "B", "<p>b</p>"),
])
def test_each_side_has_its_words_and_the_rest_is_the_campaigns(
    side: str, device: str, variant: str, title: str, html: str,
) -> None:
    made = on_quiz(variants=VARIANTS, content={
        "default": {"title": "c", "body": "<p>all</p>"}, "mobile": {"title": "phone"}})
    (send,) = visitor_of(made, side, device).does(0, "Quiz Finished")
    assert isinstance(send, Send)
    assert (send.because.variant, send.content.title, send.content.html) == (variant, title, html)
    assert send.because.propensity == {"a": 0.25, "b": 0.75}[side]


def test_words_are_parsed_once_for_each_side_and_device() -> None:
    rules = compile_rules(on_quiz(variants=VARIANTS))
    rule = rules.campaigns["c"]
    assert prepare(rule, "desktop", rules, "b") is prepare(rule, "tablet", rules, "b")
    assert prepare(rule, "mobile", rules, "b") is not prepare(rule, "desktop", rules, "b")
    assert prepare(rule, "mobile", rules, "a") is prepare(rule, "desktop", rules, "a")
    assert prepare(rule, "desktop", rules).variant == "default"


def test_who_is_held_out_gets_nothing_and_leaves_the_place_to_others() -> None:
    made = playbook(campaigns={
        "c": {"trigger": {"event": "Quiz Finished"}, "holdout": 0.5, "priority": 9, "goal": {}},
        "d": {"trigger": {"event": "Quiz Finished"}}})
    visitor = visitor_of(made, "holdout")
    hold, send = visitor.does(0, "Quiz Finished")
    assert isinstance(hold, Hold)
    assert isinstance(send, Send)
    assert (hold.because.reason, hold.because.variant, hold.because.propensity) == ("holdout", "holdout", 0.5)
    assert send.campaign == "d"
    assert [one.campaign for one in visitor.person.reserved] == ["d"]
    assert visitor.does(40_000, "Quiz Finished")[0].because.reason == "", "said once"
    assert [(one.campaign, one.variant, one.at) for one in visitor.person.hopes] == [("c", "holdout", T0)]


def test_who_would_not_have_got_it_anyway_is_not_counted_as_held_out() -> None:
    made = on_quiz({"consent": {"default": "denied"}}, holdout=0.5, goal={})
    visitor = visitor_of(made, "holdout")
    (hold,) = visitor.does(0, "Quiz Finished")
    assert hold.because.reason == "consent"
    assert visitor.person.hopes == []
    assert visitor.person.assigned == {}, "nobody asked for their side"


def test_an_exit_offer_has_sides_too() -> None:
    made = playbook(campaigns={
        "c": {"trigger": {"exit_intent": True}, "holdout": 0.5, "variants": VARIANTS, "goal": {}, "priority": 1},
        "d": {"trigger": {"exit_intent": True}}})
    (arm,) = visitor_of(made, "b").does(0, "Page Viewed")
    assert isinstance(arm, Arm)
    assert (arm.campaign, arm.because.variant, arm.because.propensity) == ("c", "b/default", 0.375)
    visitor = visitor_of(made, "holdout")
    (arm,) = visitor.does(0, "Page Viewed")
    assert isinstance(arm, Arm)
    assert arm.campaign == "d"
    assert visitor.person.hopes == [], "the moment has not come"
    (hold,) = visitor.does(1_000, "Exit Intent")
    assert (subject(hold), hold.because.reason) == ("c", "holdout")
    assert [one.variant for one in visitor.person.hopes] == ["holdout"]


def test_what_was_shown_from_an_arm_is_hoped_for_with_its_side() -> None:
    made = playbook(campaigns={"c": {"trigger": {"exit_intent": True}, "variants": VARIANTS, "goal": {}}})
    visitor = visitor_of(made, "b")
    (arm,) = visitor.does(0, "Page Viewed")
    visitor.does(1_000, "Offer Shown", action_id=arm.id, campaign="c")
    assert [(one.variant, one.propensity, one.action_id) for one in visitor.person.hopes] == [("b", 0.75, arm.id)]
