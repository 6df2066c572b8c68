"""respect_limits: and do we say it, or hold our tongue?

    a proposal ─▶ may it? (address, consent, limits, pressure) ─▶ is its place free? ─▶ is it night? ─▶ held out?
                     └── no: Hold, with the reason ────────────────────┘       later ──────┘  hoped for ──┴─▶ speak

A proposal becomes a `Send`, a `Message`, or a `Hold` with its reason; the same hold is said once, until something else
is decided. A send reserves its place under the limits; when it is shown (or accepted) it counts for good; its end
(timer `reserved:<action id>`) or a hold at the edge gives it back (`state/exposures.py`). A message that falls into
quiet hours, and what waits for the next block of coupon codes, is decided again in full (`state/later.py`). Who is held
out gets nothing, reserves nothing, and counts for the goal (`state/hopes.py`).

The reasons are listed in `domain/reference.py`.
"""

from collections.abc import Sequence

from domain.action import Because, Disarm, Hold
from domain.effect import Effect
from domain.letter import Letter
from operators.arm_ahead import look_again
from operators.choose_actions import SECONDS_TIMER
from operators.speak import Silence, no_occasion, speak
from state import feedback, hopes, later
from state.addresses import why_not
from state.context import Context, Due, Happening
from state.decisions import remember, told
from state.desk import PENDING
from state.experiments import HELD_OUT, HOLDOUT, NOBODY, Side, side_of
from state.exposures import released
from state.limits import Proposal, blocked, freed_at
from state.person import Facts, Later, Person
from state.quiet import quiet_until
from state.rules import CampaignRule
from state.runs import SEND
from state.runs import told as tell
from state.view import known

NAME = "respect_limits"
QUIET = "quiet_hours"

_REFILL = frozenset(("limit", "group_limit", "pressure"))
"""Reasons that do not stand in the way of filling a slot again with what it shows already."""


def step(person: Person, event: Happening, context: Context) -> Sequence[Effect]:
    """Decide what was proposed, and what waited until now; take back what an event makes pointless.

    >>> import msgspec
    >>> from domain.event import Track
    >>> from domain.playbook import Playbook
    >>> from state.person import Session
    >>> from state.rules import compile_rules
    >>> hello = {"name": "hello", "format": "bar", "trigger": {"event": "Quiz Finished"}, "limits": {"total": 1},
    ...          "content": {"default": {"title": "Hello"}}}
    >>> rules = compile_rules(msgspec.convert({"campaigns": [hello]}, Playbook))
    >>> ann, context = Person(id="a:ann", session=Session("s", 0, 0, anonymous_id="ann")), Context(0, rules)
    >>> for n in (1, 2):
    ...     context.begin(f"clicks-0-{n}", n * 1_000, n * 1_000)
    ...     context.proposals = [Proposal(rules.campaigns["hello"])]
    ...     [effect] = step(ann, Track(event="Quiz Finished"), context)
    ...     print(type(effect).__name__, [effect.because.reason])
    Send ['']
    Hold ['limit']
    """
    if not context.proposals and not person.reserved and not isinstance(event, Due):  # nearly always
        return ()
    effects: list[Effect] = []
    before = [one.action_id for one in person.reserved]
    if isinstance(event, Due):
        effects += _due(person, event, context)
    elif not isinstance(event, Letter) and event.name in context.rules.disarming:
        effects += _take_back(person, event.name, context)
    if context.proposals:
        effects += _decide(person, event, context)
    look_again(person, before, context)
    return effects


def _due(person: Person, event: Due, context: Context) -> Sequence[Effect]:
    kind = event.kind
    for over in [one.action_id for one in person.reserved if one.until <= event.due]:
        released(person, over)  # whichever timer of this moment fires first
    if kind == "hope":
        return hopes.over(person, event.id, context)
    if kind == "later":
        _propose(person, later.came_due(person, event), context, waited=True)
    elif kind == "again" and event.id and person.later:  # codes of a pool have come: "<pool>#…"
        _propose(person, later.codes_came(person, event.id.partition("#")[0]), context)
    return ()


def _propose(person: Person, waiting: list[tuple[str, Later]], context: Context, *, waited: bool = False) -> None:
    """Propose what has waited until now; that its audience does not hold any more is a reason to hold it."""
    facts = known(person)
    for campaign, one in waiting:
        rule = context.rules.campaigns.get(campaign)
        if rule is None:
            tell(person, one.run, False, "audience", context)
            continue
        if one.run and (one.run not in person.runs or person.runs[one.run].waits != SEND):
            continue  # they went another way meanwhile
        reason = detail = ""
        if not rule.holds(person, facts, context.now):
            reason, detail = "audience", "; ".join(rule.explain(person, facts, context.now)[1])
        context.proposals.append(Proposal(rule, reason, detail, one.run, one.occasion, waited and bool(one.pool)))


# -- deciding --------------------------------------------------------------------------------------------------


def _decide(person: Person, event: Happening, context: Context) -> list[Effect]:
    facts = known(person)
    effects: list[Effect] = []
    won: dict[str, str] = {}
    decided: set[str] = set()
    for proposal in sorted(context.proposals, key=lambda one: (one.rule.rank, one.run)):
        rule = proposal.rule
        if rule.name in decided:
            if proposal.run:
                tell(person, proposal.run, False, "lower_priority", context)
            continue
        decided.add(rule.name)
        reason = _one(person, facts, proposal, won, event, context, effects)
        if proposal.run:
            tell(person, proposal.run, not reason, reason, context)
    return effects


def _one(person: Person, facts: Facts, proposal: Proposal, won: dict[str, str], event: Happening, context: Context,
         effects: list[Effect]) -> str:
    """Decide one proposal; the reason of a hold, else empty."""
    rule, limited = proposal.rule, ("", "")
    reason, detail = _why_not(person, facts, proposal, won, context)
    if reason in _REFILL and rule.format == "slot" and person.session is not None \
            and rule.name in person.session.filled:
        limited, reason = (reason, detail), ""
    if not reason and rule.kind == "event" and rule.campaign.coupon and not proposal.occasion:
        reason, detail = no_occasion(person, facts, rule, event, context)
    if not reason and (until := quiet_until(rule, facts, context.rules, context.now)):
        later.put_off(person, rule, until, proposal.occasion or rule.occasion, proposal.run)
        reason, detail = QUIET, "until they end, where they are"
    side = NOBODY if reason and reason not in HELD_OUT else side_of(person, rule, context.rules)
    if not reason and side.held_out:
        reason, detail = side.held_out, "so that the effect can be told"
    if not reason:
        try:
            effects.append(speak(person, facts, proposal, side, context, limited))
        except Silence as silence:
            reason, detail = silence.reason, silence.detail
            if reason == PENDING and not proposal.run and not proposal.waited:
                later.put_off(person, rule, context.now + rule.valid_for, proposal.occasion or rule.occasion,
                              pool=rule.campaign.coupon or "")
    if not reason:
        won[rule.place] = rule.name
        if rule.group:
            won["group " + rule.group] = rule.name
        return ""
    if rule.seconds and (freed := freed_at(person, facts, rule, context.rules, reason, context.now)) is not None \
            and freed < person.timers.get(SECONDS_TIMER, freed + 1):
        person.timers[SECONDS_TIMER] = freed
    action_id = ""
    if not told(person, rule.name, reason):
        hold = _hold(person, facts, proposal, side, reason, detail, context)
        action_id = hold.id
        effects.append(hold)
    if reason in HELD_OUT:
        hopes.begin(person, rule, action_id or context.id(NAME), context.now, HOLDOUT, side.propensity)
    return reason


def _why_not(person: Person, facts: Facts, proposal: Proposal, won: dict[str, str],
             context: Context) -> tuple[str, str]:
    rule = proposal.rule
    if proposal.reason:
        return proposal.reason, proposal.detail
    if rule.on_site:
        session = person.session
        if session is None or not session.anonymous_id:
            return "not_on_site", "no browser of this person is open"
    else:
        reason, detail = why_not(person, facts, rule.format)
        if reason:
            return reason, detail
    reason, detail = blocked(person, facts, rule, context.rules, context.now)
    if reason:
        return reason, detail
    if rule.group and (other := won.get("group " + rule.group)):
        return "lower_priority", f"{other} of the same group is said"
    if not rule.on_site:
        return "", ""
    if rule.place in won:
        return "lower_priority", f"{won[rule.place]} is shown"
    if rule.format != "slot":
        for waiting in person.reserved:
            other_rule = context.rules.campaigns.get(waiting.campaign)
            if other_rule is not None and other_rule.place == rule.place:
                return "already_reserved", f"{waiting.campaign} was sent and not shown yet"
    return "", ""


def _hold(person: Person, facts: Facts, proposal: Proposal, side: Side, reason: str, detail: str,
          context: Context) -> Hold:
    rule = proposal.rule
    held, failed = rule.explain(person, facts, context.now)
    run = person.runs.get(proposal.run) if proposal.run else None
    remember(person, rule.name, context.now, "hold", reason, detail)
    return Hold(
        id=context.id(NAME), at=context.now, person=person.id, campaign=rule.name,
        anonymous_id=person.session.anonymous_id if person.session is not None else "",
        because=Because(trigger=proposal.occasion or rule.occasion, held=held, failed=failed, reason=reason,
                        detail=detail, playbook=context.rules.short,
                        model=context.model.hash if context.model is not None else "",
                        variant=side.variant, propensity=side.propensity,
                        workflow=run.workflow if run is not None else ""))


# -- taking back -----------------------------------------------------------------------------------------------


def _take_back(person: Person, name: str, context: Context) -> list[Effect]:
    """The sends that were not shown (or accepted) yet and that this event makes pointless."""
    effects: list[Effect] = []
    for reserved in list(person.reserved):
        rule: CampaignRule | None = context.rules.campaigns.get(reserved.campaign)
        if rule is None or name not in rule.disarm_on:
            continue
        written = None if rule.on_site else feedback.find(person, reserved.action_id)
        if written is not None:
            effects.append(feedback.withdraw(person, written, f'event "{name}"', context))
            continue
        released(person, reserved.action_id)
        effects.append(Disarm(
            id=context.id(NAME), at=context.now, person=person.id, anonymous_id=reserved.anonymous_id,
            campaign=reserved.campaign, because=Because(trigger=name, playbook=context.rules.short)))
        remember(person, reserved.campaign, context.now, "disarm", name, action_id=reserved.action_id)
    return effects
