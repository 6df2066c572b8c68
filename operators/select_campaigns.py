"""select_campaigns: find candidates for a trigger, and the exit offer that the browser preloads.

    event, segment change, time on site  ->  candidates for `decide`
    exit intent                          ->  Preload, Cancel

The timer `seconds:` fires at the next second of the session at which a campaign can trigger. The timer
`arm:exit_intent` fires when the preloaded offer can change over time or must be renewed.

Up to ten candidates are all decided, so that each suppression has a reason. Of more, only candidates that pass all
checks are kept: three for each placement by rank, ten for each channel; if none passes, the first one is suppressed.

Late events do not trigger campaigns. On-site campaigns are not triggered by off-site events or by events older than
the session timeout.
"""

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from heapq import merge
from itertools import chain, islice
from operator import attrgetter

import msgspec

from domain.action import Cancel, Effect, Explanation, Preload, ShardMessage
from operators.compose import Rendered, Suppressed, ensure_coupon, render_for_person
from operators.render import content_fingerprint, prepare_content
from state.context import Input, StepContext, TimerFired
from state.decisions.deferred import defer
from state.decisions.eligibility import NEVER, EligibilityCache, KindCache, invalidate, update_eligibility
from state.decisions.experiments import NO_EXPERIMENT, Assignment, assign
from state.decisions.frequency import Candidate, cap_resets_at, suppression_reason
from state.decisions.log import record_decision, summarize_conditions
from state.person.model import Person, PreloadedOffer, ProfileFragment, Session
from state.playbook.campaign import CampaignRule
from state.playbook.compiled import SERVICE
from state.profile.profile import merged_profile
from state.profile.session import SESSION_TIMEOUT

MAX_UNFILTERED = 10
PER_PLACEMENT, PER_CHANNEL = 3, 10


def shortlist(person: Person, profile: ProfileFragment, rules: Iterator[CampaignRule], context: StepContext) -> None:
    """Add campaigns as candidates, or defer those with a delay; `rules` are sorted by rank and read lazily.

    >>> import msgspec
    >>> from domain.playbook.playbook import Playbook
    >>> from state.playbook.compiled import compile_rules
    >>> hello = {"name": "hello", "format": "bar", "trigger": {"event": "Quiz Finished"},
    ...          "content": {"default": {"title": "Hello"}}}
    >>> context = StepContext(0, compile_rules(msgspec.convert({"campaigns": [hello]}, Playbook)))
    >>> shortlist(Person(id="a:ann"), ProfileFragment(), iter(context.rules.ranked), context)
    >>> [proposal.rule.name for proposal in context.candidates]
    ['hello']
    """
    if context.rules.has_delays:
        rules = _defer_delayed(person, rules, context)
    selected = list(islice(rules, MAX_UNFILTERED + 1))
    if len(selected) > MAX_UNFILTERED:
        selected = _sendable(person, profile, chain(selected, rules), context) or selected[:1]
    context.candidates += [Candidate(rule) for rule in selected]


def _defer_delayed(person: Person, rules: Iterator[CampaignRule], context: StepContext) -> Iterator[CampaignRule]:
    now: list[CampaignRule] = []
    for rule in rules:
        if rule.delay:
            defer(person, rule, context.now + rule.delay, rule.trigger_description)
        else:
            now.append(rule)
    return iter(now)


def _sendable(
    person: Person, profile: ProfileFragment, rules: Iterable[CampaignRule], context: StepContext
) -> list[CampaignRule]:
    playbook, now = context.rules, context.now
    sendable: list[CampaignRule] = []
    capacity = {
        placement: PER_PLACEMENT if on_site else PER_CHANNEL for placement, on_site in playbook.placements.items()
    }
    for pending in person.pending_sends:
        other = playbook.campaigns.get(pending.campaign)
        if other is not None and other.on_site and other.format != "slot":
            capacity.pop(other.placement, None)
    cap_reached = False
    for rule in rules:
        placement = rule.placement
        if placement not in capacity or (
            cap_reached and rule.on_site and rule.purpose != SERVICE and rule.format != "slot"
        ):
            continue
        reason = suppression_reason(person, profile, rule, playbook, now)[0]
        if not reason:
            sendable.append(rule)
            capacity[placement] -= 1
            if not capacity[placement]:
                del capacity[placement]
        elif reason == "cooldown":  # applies to the whole placement
            del capacity[placement]
        elif reason == "shop_cap":  # applies to all on-site placements, except service campaigns
            cap_reached = cap_reached or rule.on_site
        if not capacity or (cap_reached and not playbook.has_cap_exempt):
            break
    return sendable


STEP_NAME = "select_campaigns"
EXIT_SLOT = "exit_intent"
PRELOAD_TIMER = "arm:exit_intent"

CLEARING_EVENTS = frozenset(("Order Completed", "Signed Out", "Consent Updated"))
"""Events on which the widget drops its preloaded offers by itself."""

_encode = msgspec.json.Encoder().encode


def preload_exit_offer(
    person: Person,
    profile: ProfileFragment,
    session: Session,
    eligibility: EligibilityCache,
    event: Input,
    context: StepContext,
) -> Sequence[Effect]:
    """Choose the exit offer for the browser; preload or cancel it when the choice changes."""
    rules, now = context.rules, context.now
    name = "" if isinstance(event, (TimerFired, ShardMessage)) else event.name
    if context.late and name == "Exit Intent":  # the person has been active since then
        name = ""
    effects: list[Effect] = []
    preloaded = previous = person.preloaded.get(EXIT_SLOT)
    if not isinstance(event, TimerFired):
        session.cancelled_offer = ""
    if preloaded is not None:
        rule = rules.campaigns.get(preloaded.campaign)
        cancelled = rule is not None and name in rule.cancel_on
        if cancelled or name in CLEARING_EVENTS or preloaded.anonymous_id != session.anonymous_id:
            session.cancelled_offer = preloaded.campaign if cancelled else ""
            effects.append(_cancel_preload(person, preloaded, event, context))
            preloaded = None
    next_change = NEVER
    best: Candidate | None = None
    winner: CampaignRule | None = None
    cap_reached = False
    for rule in eligibility.exit_offers.iterate(person, profile, now) if session.anonymous_id else ():
        # sorted by rank: the first offer that is not suppressed wins
        if rule.name == session.cancelled_offer or (cap_reached and rule.purpose != SERVICE):
            continue
        reason, detail = suppression_reason(person, profile, rule, rules, now)
        assignment = assign(person, rule, rules) if not reason else NO_EXPERIMENT
        if assignment.holdout_reason:
            if name == "Exit Intent":  # record the counterfactual exposure of the control group
                context.candidates.append(
                    Candidate(rule, assignment.holdout_reason, "control group, to measure the effect")
                )
            continue
        if not reason:
            reason, detail = _update_preload(person, profile, session, rule, assignment, preloaded, context, effects)
        if not reason:
            winner = rule
            break
        best = best or Candidate(rule, reason, detail)
        if (resets_at := cap_resets_at(person, profile, rule, rules, reason, now)) is not None:
            next_change = min(next_change, resets_at)
        if reason == "shop_cap":  # applies to all offers except service campaigns
            cap_reached = True
        if cap_reached and rule.rank >= rules.last_exempt_exit_rank:
            break
    next_change = min(next_change, eligibility.exit_offers.valid_until())
    if winner is not None:
        until = person.preloaded[EXIT_SLOT].until
        renew_at = until - _renewal_margin(winner)  # an offer cannot be renewed beyond its coupon
        next_change = min(next_change, renew_at if renew_at > now else until)
    elif preloaded is not None:
        effects.append(_cancel_preload(person, preloaded, event, context))
    if next_change < person.timers.get(PRELOAD_TIMER, NEVER):
        person.timers[PRELOAD_TIMER] = next_change
    if name == "Exit Intent" and previous is None and winner is None and best is not None:
        context.candidates.append(best)
    return effects


def recheck_preload(person: Person, previous_ids: Sequence[str], context: StepContext) -> None:
    """Re-evaluate the preloaded offer if the pending sends differ from `previous_ids` (action ids)."""
    if person.session is None or not context.rules.exit_offers:
        return
    passed = [one.action_id for one in person.pending_sends]
    if passed != previous_ids and (person.preloaded or not set(previous_ids).issubset(passed)):
        person.timers[PRELOAD_TIMER] = context.now


def _update_preload(
    person: Person,
    profile: ProfileFragment,
    session: Session,
    rule: CampaignRule,
    assignment: Assignment,
    preloaded: PreloadedOffer | None,
    context: StepContext,
    effects: list[Effect],
) -> tuple[str, str]:
    """Preload the current version of an offer; return (reason, detail) if it has no coupon or content."""
    rules, now = context.rules, context.now
    prepared = prepare_content(rule, session.device or profile.device, rules, assignment.variant)
    same = preloaded is not None and preloaded.campaign == rule.name
    still_valid = preloaded is not None and same and now < preloaded.until - _renewal_margin(rule)
    if (
        still_valid
        and context.changed_dependencies is not None
        and prepared.depends_on.isdisjoint(context.changed_dependencies)
    ):
        return "", ""
    try:
        until = ensure_coupon(person, profile, rule, prepared, context)
    except Suppressed as suppressed:
        return suppressed.reason, suppressed.detail
    fingerprint = content_fingerprint(prepared, person, profile)
    still_valid = still_valid or (preloaded is not None and same and now < preloaded.until and until <= preloaded.until)
    previous_fingerprint, _, previous_hash = (
        preloaded.content_key.partition("/") if still_valid and preloaded is not None else ("", "", "")
    )
    if previous_fingerprint == fingerprint:
        return "", ""
    failures = person.derived.failed_preloads
    failed_with, failure, detail = failures.get(rule.name, ("", "", ""))
    if failed_with == fingerprint:  # same content as at the last failure
        return failure, detail
    try:
        rendered = render_for_person(person, profile, prepared, until, context)
    except Suppressed as suppressed:
        failures[rule.name] = fingerprint, suppressed.reason, suppressed.detail
        return suppressed.reason, suppressed.detail
    content_hash = _content_hash(rule, rendered)
    key = f"{fingerprint}/{content_hash}"
    if preloaded is not None and previous_hash == content_hash:  # other inputs, same content in the browser
        preloaded.content_key = key
        return "", ""
    if preloaded is not None and not same:
        effects.append(_cancel_preload(person, preloaded, None, context))
    effects.append(_preload(person, profile, session, rule, assignment, rendered, key, context))
    return "", ""


def _content_hash(rule: CampaignRule, rendered: Rendered) -> str:
    content_hash = [
        rendered.prepared.variant,
        rule.format,
        rule.priority,
        rule.campaign.cancel_on,
        rendered.content,
        rendered.discount,
    ]
    return blake2b(_encode(content_hash), digest_size=8).hexdigest()


def _preload(
    person: Person,
    profile: ProfileFragment,
    session: Session,
    rule: CampaignRule,
    assignment: Assignment,
    rendered: Rendered,
    content_key: str,
    context: StepContext,
) -> Preload:
    passed, failed = rule.explain(person, profile, context.now)
    action = Preload(
        id=context.next_effect_id(STEP_NAME),
        at=context.now,
        person=person.id,
        anonymous_id=session.anonymous_id,
        campaign=rule.name,
        format=rule.format,
        content=rendered.content,
        not_after=rendered.until,
        priority=rule.priority,
        cancel_on=rule.campaign.cancel_on,
        discount=rendered.discount,
        because=Explanation(
            trigger=rule.trigger_description,
            passed=passed,
            failed=failed,
            playbook=context.rules.short_hash,
            model=context.model.hash if context.model is not None else "",
            variant=rendered.prepared.variant,
            propensity=assignment.propensity,
        ),
    )
    person.preloaded[EXIT_SLOT] = PreloadedOffer(
        rule.name,
        action.id,
        content_key,
        rendered.until,
        session.anonymous_id,
        assignment.variant,
        assignment.propensity,
    )
    record_decision(
        person, rule.name, context.now, "preload", rule.trigger_description, summarize_conditions(passed), action.id
    )
    return action


def _cancel_preload(person: Person, preloaded: PreloadedOffer, event: Input | None, context: StepContext) -> Cancel:
    person.preloaded.pop(EXIT_SLOT, None)
    trigger = (
        ""
        if event is None or isinstance(event, ShardMessage)
        else "time"
        if isinstance(event, TimerFired)
        else event.name
    )
    action = Cancel(
        id=context.next_effect_id(STEP_NAME),
        at=context.now,
        person=person.id,
        anonymous_id=preloaded.anonymous_id,
        campaign=preloaded.campaign,
        because=Explanation(
            trigger=trigger,
            reason="replaced" if event is None else "no longer holds",
            playbook=context.rules.short_hash,
        ),
    )
    record_decision(
        person, preloaded.campaign, context.now, "cancel", action.because.reason, action_id=preloaded.action_id
    )
    return action


def clear_preload(person: Person, context: StepContext) -> Sequence[Effect]:
    """Cancel the preloaded offers: the session ended, or nothing can be preloaded.

    >>> from domain.playbook.playbook import Playbook
    >>> from state.playbook.compiled import compile_rules
    >>> ann = Person(id="a:ann", preloaded={"exit_intent": PreloadedOffer("stay", "an-action", "key", 9_000, "ann")})
    >>> context = StepContext(0, compile_rules(Playbook()))
    >>> [(one.campaign, one.because.reason) for one in clear_preload(ann, context)], ann.preloaded
    ([('stay', 'the visit is over')], {})
    """
    person.timers.pop(PRELOAD_TIMER, None)
    offers = list(person.preloaded.values())
    person.preloaded.clear()
    return [
        Cancel(
            id=context.next_effect_id(STEP_NAME),
            at=context.now,
            person=person.id,
            anonymous_id=preloaded.anonymous_id,
            campaign=preloaded.campaign,
            because=Explanation(reason="the visit is over", playbook=context.rules.short_hash),
        )
        for preloaded in offers
    ]


def _renewal_margin(rule: CampaignRule) -> int:
    """Return how long before its end (ms) a preloaded offer is renewed."""
    return min(60_000, rule.valid_for // 10)


TIME_ON_SITE_TIMER = "seconds:"

_by_rank = attrgetter("rank")


def step(person: Person, event: Input, context: StepContext) -> Sequence[Effect]:
    """Add the triggered campaigns as candidates; preload and cancel the exit offer.

    >>> import msgspec
    >>> from domain.event import Track
    >>> from domain.playbook.playbook import Playbook
    >>> from state.playbook.compiled import compile_rules
    >>> hello = {"name": "hello", "format": "bar", "trigger": {"event": "Quiz Finished"},
    ...          "content": {"default": {"title": "Hello"}}}
    >>> context = StepContext(0, compile_rules(msgspec.convert({"campaigns": [hello]}, Playbook)))
    >>> context.start_input("clicks-0-1", 5_000, 5_000)
    >>> step(Person(id="a:ann"), Track(event="Quiz Finished"), context)
    ()
    >>> [proposal.rule.name for proposal in context.candidates]
    ['hello']
    """
    rules = context.rules
    if person.bot or person.merged_into:
        invalidate(person)
        return clear_preload(person, context) if person.preloaded else ()
    profile = merged_profile(person)
    triggered: list[Iterator[CampaignRule]] = []
    if not isinstance(event, (TimerFired, ShardMessage)) and event.name in rules.on_event and not context.late:
        ranks = [
            rank
            for rank in rules.on_event[event.name].candidates(event, person, profile)
            if rules.ranked[rank].matches(event)
        ]
        if ranks:
            triggered.append(_eligible(ranks, person, profile, context))
    for segment_change in context.segment_changes:
        index = (rules.on_entered if segment_change.entered else rules.on_left).get(segment_change.segment)
        if index is not None and (ranks := index.candidates(person, profile)):
            triggered.append(_eligible(ranks, person, profile, context))
    if triggered and _is_off_site(event, context):
        triggered = [_without_on_site(selected) for selected in triggered]
    effects: Sequence[Effect] = ()
    session = person.session
    if session is None:
        invalidate(person)
        if TIME_ON_SITE_TIMER in person.timers:
            del person.timers[TIME_ON_SITE_TIMER]
        if person.preloaded:
            effects = clear_preload(person, context)
    elif rules.exit_offers or rules.time_on_site:
        eligibility = update_eligibility(person, profile, context)
        if _check_time_on_site(person, profile, eligibility.time_on_site, context):
            triggered.append(
                rule
                for rule in eligibility.time_on_site.iterate(person, profile, context.now)
                if rule.name not in session.time_triggered
            )
        exits = eligibility.exit_offers
        if person.preloaded or exits.ranks or exits.find_next(person, profile, context.now) or exits.change_times:
            effects = preload_exit_offer(person, profile, session, eligibility, event, context)
    elif person.preloaded:
        effects = clear_preload(person, context)
    if triggered:
        shortlist(person, profile, triggered[0] if len(triggered) == 1 else merge(*triggered, key=_by_rank), context)
    return effects


def _is_off_site(event: Input, context: StepContext) -> bool:
    """Return whether the event is off-site or older than the session timeout."""
    if isinstance(event, (TimerFired, ShardMessage)):
        return False
    seen = event.context.attimo if event.context is not None else None
    return (seen is not None and seen.offline) or context.now - context.event_time >= SESSION_TIMEOUT


def _without_on_site(rules: Iterator[CampaignRule]) -> Iterator[CampaignRule]:
    return (rule for rule in rules if not rule.on_site)


def _eligible(
    ranks: Iterable[int], person: Person, profile: ProfileFragment, context: StepContext
) -> Iterator[CampaignRule]:
    ranked, now = context.rules.ranked, context.now
    for rank in ranks:
        rule = ranked[rank]
        if rule.is_met(person, profile, now):
            yield rule


def _check_time_on_site(
    person: Person, profile: ProfileFragment, time_on_site: KindCache, context: StepContext
) -> bool:
    """Return whether a time-on-site campaign is eligible; set the timer for the next change."""
    while time_on_site.find_next(person, profile, context.now):
        pass
    if time_on_site.change_times:
        due = min(time_on_site.change_times.values())
        if due < person.timers.get(TIME_ON_SITE_TIMER, NEVER):
            person.timers[TIME_ON_SITE_TIMER] = due
    return bool(time_on_site.ranks)
