"""Hopes: what was said (or held out) and why; was the goal reached in time?

    shown, accepted, held out ── a hope, until at + within ──▶ the goal's event: Outcome, label True, its value
                                                          └──▶ time is up (timer `hope:<action id>`): label False

One outcome per hope. A campaign has one hope at a time: another showing while it is open belongs to the first, so that
one order is not counted twice, and people who are held out can be compared with people who are not.
"""

from collections.abc import Sequence

from domain.campaign import AMOUNTS
from domain.event import Event
from domain.outcome import Outcome
from domain.product import Prices, WrongField, amount
from state.context import Context
from state.person import MAX_HOPES, Hope, Person
from state.properties import number, property_of
from state.rules import CampaignRule

NAME = "hopes"
HOPE_TIMER = "hope:"


def begin(person: Person, rule: CampaignRule, action_id: str, at: int, variant: str, propensity: float) -> None:
    """Hope for this campaign's goal from `at` (ms) on; nothing without a goal, or when it is hoped for already.

    When there are MAX_HOPES already, no more is hoped for.
    """
    if rule.goal is None or len(person.hopes) >= MAX_HOPES or any(one.campaign == rule.name for one in person.hopes):
        return
    _add(person, Hope(rule.name, action_id, at, at + rule.goal_within, variant, propensity))


def reached(person: Person, event: Event, context: Context) -> Sequence[Outcome]:
    """The hopes that this event fulfils, each as the outcome that it was."""
    found: list[Outcome] = []
    at = context.event_time
    for rule in context.rules.goals.get(event.name, ()):
        for hope in [one for one in person.hopes if one.campaign == rule.name and one.at <= at < one.until]:
            if rule.goal_matches(event):
                _drop(person, hope)
                found.append(_outcome(person, hope, True, _worth(event, rule, context), context))
    return found


def over(person: Person, action_id: str, context: Context) -> Sequence[Outcome]:
    """Time is up for one hope. Of a campaign that left the playbook meanwhile nobody can say what came of it."""
    found = []
    for hope in [one for one in person.hopes if one.action_id == action_id]:
        _drop(person, hope)
        rule = context.rules.campaigns.get(hope.campaign)
        if rule is not None and rule.goal is not None:
            found.append(_outcome(person, hope, False, 0.0, context))
    return found


def join(person: Person, hopes: list[Hope]) -> None:
    """Hope for what another id of this person had reason to; of two hopes for one campaign the earlier one stays."""
    for hope in hopes:
        mine = next((one for one in person.hopes if one.campaign == hope.campaign), None)
        if mine is not None and (mine.at, mine.action_id) <= (hope.at, hope.action_id):
            continue
        if mine is not None:
            _drop(person, mine)
        elif len(person.hopes) >= MAX_HOPES:
            continue
        _add(person, hope)


def _add(person: Person, hope: Hope) -> None:
    person.hopes.append(hope)
    person.timers[HOPE_TIMER + hope.action_id] = hope.until


def _drop(person: Person, hope: Hope) -> None:
    person.hopes.remove(hope)
    person.timers.pop(HOPE_TIMER + hope.action_id, None)


def _outcome(person: Person, hope: Hope, label: bool, value: float, context: Context) -> Outcome:
    return Outcome(
        kind="goal", id=context.id(NAME), person=person.id, at=context.now, taken_at=hope.at, label=label, features={},
        campaign=hope.campaign, variant=hope.variant, propensity=hope.propensity, value=value,
        action_id=hope.action_id)


def _worth(event: Event, rule: CampaignRule, context: Context) -> float:
    """What the event's property says it is worth; 0 when it says nothing that can be counted, or there is no rate."""
    name = rule.goal.value if rule.goal is not None else ""
    if not name:
        return 0.0
    value = property_of(event, name)
    if name not in AMOUNTS:
        return number(value) or 0.0
    shop = context.rules.shop
    try:
        minor, foreign = amount(value, "properties", name, property_of(event, "currency"),
                                Prices(shop.currency, shop.rates))
    except WrongField:
        return 0.0
    return 0.0 if foreign else float(minor)
