"""Pending goals: whether the goal of a campaign was reached within its attribution window.

    shown, accepted, held out ── pending goal, until at + within ──▶ goal event: Outcome, label True, its value
                                                                └──▶ timer `goal:<action id>`: label False

A campaign has one pending goal at a time, so one order is not counted twice, and the control group is comparable.
"""

from collections.abc import Sequence

from domain.action import Outcome
from domain.event import Event
from domain.playbook.campaign import AMOUNT_PROPERTIES
from domain.product import ExchangeRates, InvalidField, parse_amount
from state.conditions.properties import get_property, parse_number
from state.context import StepContext
from state.person.model import MAX_PENDING_GOALS, PendingGoal, Person
from state.playbook.campaign import CampaignRule

STEP_NAME = "goals"
GOAL_TIMER = "goal:"


def open_goal(person: Person, rule: CampaignRule, action_id: str, at: int, variant: str, propensity: float) -> None:
    """Hope for this campaign's goal from `at` (ms) on; nothing without a goal, or when it is hoped for already.

    When there are MAX_HOPES already, no more is hoped for.
    """
    if (
        rule.goal is None
        or len(person.pending_goals) >= MAX_PENDING_GOALS
        or any(one.campaign == rule.name for one in person.pending_goals)
    ):
        return
    _add(person, PendingGoal(rule.name, action_id, at, at + rule.goal_within, variant, propensity))


def goal_reached(person: Person, event: Event, context: StepContext) -> Sequence[Outcome]:
    """Resolve the pending goals that this event reaches and return their outcomes."""
    found: list[Outcome] = []
    at = context.event_time
    for rule in context.rules.by_goal_event.get(event.name, ()):
        for hope in [
            one for one in person.pending_goals if one.campaign == rule.name and one.opened_at <= at < one.until
        ]:
            if rule.goal_matches(event):
                _remove(person, hope)
                found.append(_outcome(person, hope, True, _goal_value(event, rule, context), context))
    return found


def goal_expired(person: Person, action_id: str, context: StepContext) -> Sequence[Outcome]:
    """End the attribution window of a pending goal. Removed campaigns have no outcome."""
    found = []
    for hope in [one for one in person.pending_goals if one.action_id == action_id]:
        _remove(person, hope)
        rule = context.rules.campaigns.get(hope.campaign)
        if rule is not None and rule.goal is not None:
            found.append(_outcome(person, hope, False, 0.0, context))
    return found


def merge(person: Person, goals: list[PendingGoal]) -> None:
    """Merge the pending goals of another id; the earlier one per campaign is kept."""
    for hope in goals:
        mine = next((one for one in person.pending_goals if one.campaign == hope.campaign), None)
        if mine is not None and (mine.opened_at, mine.action_id) <= (hope.opened_at, hope.action_id):
            continue
        if mine is not None:
            _remove(person, mine)
        elif len(person.pending_goals) >= MAX_PENDING_GOALS:
            continue
        _add(person, hope)


def _add(person: Person, goal: PendingGoal) -> None:
    person.pending_goals.append(goal)
    person.timers[GOAL_TIMER + goal.action_id] = goal.until


def _remove(person: Person, goal: PendingGoal) -> None:
    person.pending_goals.remove(goal)
    person.timers.pop(GOAL_TIMER + goal.action_id, None)


def _outcome(person: Person, goal: PendingGoal, label: bool, value: float, context: StepContext) -> Outcome:
    return Outcome(
        kind="goal",
        id=context.next_effect_id(STEP_NAME),
        person=person.id,
        at=context.now,
        features_at=goal.opened_at,
        label=label,
        features={},
        campaign=goal.campaign,
        variant=goal.variant,
        propensity=goal.propensity,
        value=value,
        action_id=goal.action_id,
    )


def _goal_value(event: Event, rule: CampaignRule, context: StepContext) -> float:
    """What the event's property says it is worth; 0 when it says nothing that can be counted, or there is no rate."""
    name = rule.goal.value if rule.goal is not None else ""
    if not name:
        return 0.0
    value = get_property(event, name)
    if name not in AMOUNT_PROPERTIES:
        return parse_number(value) or 0.0
    shop = context.rules.shop
    try:
        minor, foreign = parse_amount(
            value,
            "properties",
            name,
            get_property(event, "currency"),
            ExchangeRates(shop.currency, shop.exchange_rates),
        )
    except InvalidField:
        return 0.0
    return 0.0 if foreign else float(minor)
