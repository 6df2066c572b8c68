"""decide: send, defer or suppress each campaign candidate.

    candidate ─▶ address, consent, caps, pressure ─▶ placement free? ─▶ quiet hours? ─▶ holdout? ─▶ compose
                      └── Suppress, with the reason ──┘                  defer ──┘

The same suppression is recorded once, until a different decision. A send reserves its place under the frequency caps;
when it is shown (or accepted) it counts permanently; when it expires (timer `reserved:<action id>`) or is suppressed
by the browser, its place is released (`state/decisions/exposures.py`). Deferred campaigns (quiet hours, coupon codes
not yet available) are decided again in full (`state/decisions/deferred.py`). A person in the control group receives
nothing, reserves nothing, and counts for the goal (`state/decisions/goals.py`).

`domain/playbook/schema.py` lists the reasons.
"""

from collections.abc import Sequence

from domain.action import Cancel, Effect, Explanation, ShardMessage, Suppress
from operators.compose import Suppressed, compose, trigger_not_covered
from operators.select_campaigns import TIME_ON_SITE_TIMER, recheck_preload
from state.context import Input, StepContext, TimerFired
from state.coupons.leasing import PENDING
from state.decisions import deferred, goals, messages
from state.decisions.experiments import HOLDOUT, HOLDOUT_REASONS, NO_EXPERIMENT, Assignment, assign
from state.decisions.exposures import release
from state.decisions.frequency import Candidate, cap_resets_at, quiet_until, suppression_reason
from state.decisions.log import is_repeat, record_decision
from state.membership.workflow_runs import SEND, report_send
from state.person.addresses import unreachable_reason
from state.person.model import DeferredCampaign, Person, ProfileFragment
from state.playbook.campaign import CampaignRule
from state.profile.profile import merged_profile

STEP_NAME = "decide"
QUIET_HOURS = "quiet_hours"

_REFILL_REASONS = frozenset(("campaign_cap", "group_cap", "contact_pressure"))
"""Reasons that do not prevent a slot from being filled again with the content it already shows."""


def step(person: Person, event: Input, context: StepContext) -> Sequence[Effect]:
    """Decide new and due deferred candidates, and cancel the sends that this event cancels.

    >>> import msgspec
    >>> from domain.event import Track
    >>> from domain.playbook.playbook import Playbook
    >>> from state.person.model import Session
    >>> from state.playbook.compiled import compile_rules
    >>> hello = {"name": "hello", "format": "bar", "trigger": {"event": "Quiz Finished"},
    ...          "frequency_caps": {"total": 1}, "content": {"default": {"title": "Hello"}}}
    >>> rules = compile_rules(msgspec.convert({"campaigns": [hello]}, Playbook))
    >>> ann, context = Person(id="a:ann", session=Session("s", 0, 0, anonymous_id="ann")), StepContext(0, rules)
    >>> for n in (1, 2):
    ...     context.start_input(f"clicks-0-{n}", n * 1_000, n * 1_000)
    ...     context.candidates = [Candidate(rules.campaigns["hello"])]
    ...     [effect] = step(ann, Track(event="Quiz Finished"), context)
    ...     print(type(effect).__name__, [effect.because.reason])
    Send ['']
    Suppress ['campaign_cap']
    """
    if (
        not context.candidates and not person.pending_sends and not isinstance(event, TimerFired)
    ):  # the most frequent case
        return ()
    effects: list[Effect] = []
    previous_ids = [one.action_id for one in person.pending_sends]
    if isinstance(event, TimerFired):
        effects += _on_timer(person, event, context)
    elif not isinstance(event, ShardMessage) and event.name in context.rules.cancelling_events:
        effects += _cancel_pending(person, event.name, context)
    if context.candidates:
        effects += _decide(person, event, context)
    recheck_preload(person, previous_ids, context)
    return effects


def _on_timer(person: Person, event: TimerFired, context: StepContext) -> Sequence[Effect]:
    kind = event.kind
    for action_id in [one.action_id for one in person.pending_sends if one.until <= event.due]:
        release(person, action_id)  # before any other timer of the same instant
    if kind == "goal":
        return goals.goal_expired(person, event.id, context)
    if kind == "later":
        _add_deferred(person, deferred.pop_due(person, event), context, waited_for_codes=True)
    elif kind == "again" and event.id and person.deferred:  # codes of a pool have arrived: "<pool>#…"
        _add_deferred(person, deferred.pop_waiting_for(person, event.id.partition("#")[0]), context)
    return ()


def _add_deferred(
    person: Person,
    deferred: list[tuple[str, DeferredCampaign]],
    context: StepContext,
    *,
    waited_for_codes: bool = False,
) -> None:
    """Add deferred campaigns as candidates; suppress those whose conditions have become false."""
    profile = merged_profile(person)
    for campaign, one in deferred:
        rule = context.rules.campaigns.get(campaign)
        if rule is None:
            report_send(person, one.run_id, False, "not_eligible", context)
            continue
        if one.run_id and (one.run_id not in person.runs or person.runs[one.run_id].waiting_for != SEND):
            continue  # the run no longer waits for this send
        reason = detail = ""
        if not rule.is_met(person, profile, context.now):
            reason, detail = "not_eligible", "; ".join(rule.explain(person, profile, context.now)[1])
        context.candidates.append(
            Candidate(rule, reason, detail, one.run_id, one.trigger, waited_for_codes and bool(one.pool))
        )


# -- deciding --------------------------------------------------------------------------------------------------


def _decide(person: Person, event: Input, context: StepContext) -> list[Effect]:
    profile = merged_profile(person)
    effects: list[Effect] = []
    winners: dict[str, str] = {}
    decided: set[str] = set()
    for candidate in sorted(context.candidates, key=lambda one: (one.rule.rank, one.run_id)):
        rule = candidate.rule
        if rule.name in decided:
            if candidate.run_id:
                report_send(person, candidate.run_id, False, "lower_priority", context)
            continue
        decided.add(rule.name)
        reason = _decide_candidate(person, profile, candidate, winners, event, context, effects)
        if candidate.run_id:
            report_send(person, candidate.run_id, not reason, reason, context)
    return effects


def _decide_candidate(
    person: Person,
    profile: ProfileFragment,
    candidate: Candidate,
    winners: dict[str, str],
    event: Input,
    context: StepContext,
    effects: list[Effect],
) -> str:
    """Decide one candidate; return the suppression reason, or an empty string."""
    rule, exceeded_cap = candidate.rule, ("", "")
    reason, detail = _blocking_reason(person, profile, candidate, winners, context)
    if (
        reason in _REFILL_REASONS
        and rule.format == "slot"
        and person.session is not None
        and rule.name in person.session.filled_slots
    ):
        exceeded_cap, reason = (reason, detail), ""
    if not reason and rule.trigger_kind == "event" and rule.campaign.coupon and not candidate.trigger:
        reason, detail = trigger_not_covered(person, profile, rule, event, context)
    if not reason and (until := quiet_until(rule, profile, context.rules, context.now)):
        deferred.defer(person, rule, until, candidate.trigger or rule.trigger_description, candidate.run_id)
        reason, detail = QUIET_HOURS, "until they end, where they are"
    assignment = NO_EXPERIMENT if reason and reason not in HOLDOUT_REASONS else assign(person, rule, context.rules)
    if not reason and assignment.holdout_reason:
        reason, detail = assignment.holdout_reason, "control group, to measure the effect"
    if not reason:
        try:
            effects.append(compose(person, profile, candidate, assignment, context, exceeded_cap))
        except Suppressed as suppressed:
            reason, detail = suppressed.reason, suppressed.detail
            if reason == PENDING and not candidate.run_id and not candidate.waited_for_codes:
                deferred.defer(
                    person,
                    rule,
                    context.now + rule.valid_for,
                    candidate.trigger or rule.trigger_description,
                    pool=rule.campaign.coupon or "",
                )
    if not reason:
        winners[rule.placement] = rule.name
        if rule.group:
            winners["group " + rule.group] = rule.name
        return ""
    if (
        rule.time_on_site
        and (resets_at := cap_resets_at(person, profile, rule, context.rules, reason, context.now)) is not None
        and resets_at < person.timers.get(TIME_ON_SITE_TIMER, resets_at + 1)
    ):
        person.timers[TIME_ON_SITE_TIMER] = resets_at
    action_id = ""
    if not is_repeat(person, rule.name, reason):
        suppression = _suppress(person, profile, candidate, assignment, reason, detail, context)
        action_id = suppression.id
        effects.append(suppression)
    if reason in HOLDOUT_REASONS:
        goals.open_goal(
            person, rule, action_id or context.next_effect_id(STEP_NAME), context.now, HOLDOUT, assignment.propensity
        )
    return reason


def _blocking_reason(
    person: Person, profile: ProfileFragment, candidate: Candidate, winners: dict[str, str], context: StepContext
) -> tuple[str, str]:
    rule = candidate.rule
    if candidate.reason:
        return candidate.reason, candidate.detail
    if rule.on_site:
        session = person.session
        if session is None or not session.anonymous_id:
            return "not_on_site", "no browser of this person is open"
    else:
        reason, detail = unreachable_reason(person, profile, rule.format)
        if reason:
            return reason, detail
    reason, detail = suppression_reason(person, profile, rule, context.rules, context.now)
    if reason:
        return reason, detail
    if rule.group and (other := winners.get("group " + rule.group)):
        return "lower_priority", f"{other} of the same group is said"
    if not rule.on_site:
        return "", ""
    if rule.placement in winners:
        return "lower_priority", f"{winners[rule.placement]} is shown"
    if rule.format != "slot":
        for pending in person.pending_sends:
            other_rule = context.rules.campaigns.get(pending.campaign)
            if other_rule is not None and other_rule.placement == rule.placement:
                return "already_reserved", f"{pending.campaign} was sent and not shown yet"
    return "", ""


def _suppress(
    person: Person,
    profile: ProfileFragment,
    candidate: Candidate,
    assignment: Assignment,
    reason: str,
    detail: str,
    context: StepContext,
) -> Suppress:
    rule = candidate.rule
    passed, failed = rule.explain(person, profile, context.now)
    run = person.runs.get(candidate.run_id) if candidate.run_id else None
    record_decision(person, rule.name, context.now, "suppress", reason, detail)
    return Suppress(
        id=context.next_effect_id(STEP_NAME),
        at=context.now,
        person=person.id,
        campaign=rule.name,
        anonymous_id=person.session.anonymous_id if person.session is not None else "",
        because=Explanation(
            trigger=candidate.trigger or rule.trigger_description,
            passed=passed,
            failed=failed,
            reason=reason,
            detail=detail,
            playbook=context.rules.short_hash,
            model=context.model.hash if context.model is not None else "",
            variant=assignment.variant,
            propensity=assignment.propensity,
            workflow=run.workflow if run is not None else "",
        ),
    )


# -- cancelling ------------------------------------------------------------------------------------------------


def _cancel_pending(person: Person, event_name: str, context: StepContext) -> list[Effect]:
    """Cancel the pending sends whose `cancel_on` names this event."""
    effects: list[Effect] = []
    for pending in list(person.pending_sends):
        rule: CampaignRule | None = context.rules.campaigns.get(pending.campaign)
        if rule is None or event_name not in rule.cancel_on:
            continue
        message = None if rule.on_site else messages.find_message(person, pending.action_id)
        if message is not None:
            effects.append(messages.withdraw(person, message, f'event "{event_name}"', context))
            continue
        release(person, pending.action_id)
        effects.append(
            Cancel(
                id=context.next_effect_id(STEP_NAME),
                at=context.now,
                person=person.id,
                anonymous_id=pending.anonymous_id,
                campaign=pending.campaign,
                because=Explanation(trigger=event_name, playbook=context.rules.short_hash),
            )
        )
        record_decision(person, pending.campaign, context.now, "cancel", event_name, action_id=pending.action_id)
    return effects
