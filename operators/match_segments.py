"""match_segments: update memberships and emit segment changes at the exact time.

Only segments that the input can change are evaluated. The timers `segment:<name>`, `untag:<name>` and `rfm:` fire when
time alone changes a membership; all changes due at one instant are evaluated together. The RFM cell comes first, then
static segments, funnel stages and dynamic segments, each after the segments it refers to.

A late event changes memberships, but its changes do not trigger campaigns or workflows.
"""

from collections.abc import Sequence

from domain.action import Effect, Explanation, SegmentChange, ShardMessage
from domain.playbook.condition import SCORE_BANDS
from state.context import Input, StepContext, TimerFired, trigger_name
from state.membership import static_segments
from state.membership.changes import changed_dependencies
from state.membership.rfm import in_rfm_segment, publish_change, update_rfm
from state.person.model import Person, ProfileFragment
from state.playbook.compiled import SegmentRule
from state.profile.profile import merged_profile

_SEGMENT_TIMERS = ("segment", "untag")
_NON_EVENTS = (TimerFired, ShardMessage)
_PLAYBOOK_INPUTS = ("playbook", "backfill")
"""Inputs by which the playbook changes and not the person."""


def step(person: Person, event: Input, context: StepContext) -> Sequence[Effect]:
    """Update `person.segments`; return the changes, also in `context.segment_changes` for later operators.

    >>> from domain.playbook.condition import Condition, InSession
    >>> from domain.event import Page
    >>> from domain.playbook.playbook import Playbook
    >>> from domain.playbook.segment import Segment
    >>> from state.person.model import Session
    >>> from state.playbook.compiled import compile_rules
    >>> engaged = Segment("engaged", Condition(session=InSession(pages_at_least=3)))
    >>> person = Person(id="a:x", session=Session("s", 0, 0, pages=3))
    >>> context = StepContext(0, compile_rules(Playbook(segments=(engaged,))))
    >>> [(move.segment, move.entered) for move in step(person, Page(), context)]
    [('engaged', True)]
    """
    rules = context.rules
    if person.bot or person.merged_into:
        return publish_change(person, None, context) if person.population_snapshot is not None else ()
    profile = merged_profile(person)
    context.changed_dependencies = changed = changed_dependencies(person, profile, event)
    new_playbook = person.playbook_hash != rules.short_hash
    effects: list[Effect] = []
    if (
        (rules.rfm_thresholds is not None or new_playbook)
        and (profile.order_count or person.rfm)
        and (
            changed is None
            or new_playbook
            or "orders" in changed
            or isinstance(event, TimerFired)
            or person.derived.quintiles is not context.quintiles
        )
    ):
        before = person.rfm
        effects += update_rfm(person, profile, event, context)
        if changed is not None and person.rfm != before:
            changed.append("rfm")
    if new_playbook:
        person.playbook_hash = rules.short_hash
        context.changed_dependencies = changed = None
        _exit_removed(person, context, effects)
    segment_changes = context.segment_changes
    if segment_changes and changed is not None:
        changed += [f"segment:{segment_change.segment}" for segment_change in segment_changes]
    index = rules.segment_index
    pending, silent = index.candidates(changed, person, profile), False
    if isinstance(event, _NON_EVENTS):
        silent = event.kind in _PLAYBOOK_INPUTS
        if isinstance(event, TimerFired):
            pending |= _due_segments(person, event, context)
    if person.static_segments and (new_playbook or isinstance(event, ShardMessage)):
        static_segments.reconcile(person, context)
    if pending:
        first_new, now = len(segment_changes), context.now
        memberships, timers, masks = person.segments, person.timers, index.masks
        while pending:  # lowest bit first: a segment follows the segments it refers to
            bit = pending & -pending
            pending ^= bit
            rule = rules.segments[bit.bit_length() - 1]
            if rule.static is not None:
                for segment_change in static_segments.evaluate(
                    person, profile, rule, event, [] if silent else segment_changes, context
                ):
                    pending |= masks.get("segment:" + segment_change.segment, 0)
                continue
            is_met = rule.is_met(person, profile, now)
            if is_met != (rule.name in memberships):
                _change_membership(person, profile, rule, is_met, event, context)
                pending |= masks.get(rule.dependency, 0)
            if rule.time_dependent:
                changes_at = rule.next_change(person, profile, now)
                if changes_at is not None and changes_at < timers.get(rule.timer, changes_at + 1):
                    timers[rule.timer] = changes_at
        if len(segment_changes) > first_new:
            new_changes = segment_changes[first_new:]
            effects += new_changes
            if changed is not None:
                changed += [f"segment:{segment_change.segment}" for segment_change in new_changes]
    if silent or context.late:  # triggers no campaigns or workflows
        context.segment_changes = []
    return effects


def _due_segments(person: Person, event: TimerFired, context: StepContext) -> int:
    """Return the segments with a due timer as a bit mask; delete their `segment:` timers."""
    rules, timers, now = context.rules.segments_by_name, person.timers, context.now
    mask = 1 << rules[event.id].order if event.kind in _SEGMENT_TIMERS and event.id in rules else 0
    for timer, due in list(timers.items()):
        if due <= now:
            kind, _, name = timer.partition(":")
            if kind in _SEGMENT_TIMERS and name in rules:
                mask |= 1 << rules[name].order
                if kind == "segment":
                    del timers[timer]
    return mask


def _change_membership(
    person: Person, profile: ProfileFragment, rule: SegmentRule, entered: bool, event: Input, context: StepContext
) -> SegmentChange:
    trigger = trigger_name(event)
    passed, failed = rule.explain(person, profile, context.now)
    return static_segments.change_membership(
        person,
        rule.name,
        entered,
        context,
        Explanation(trigger=trigger, passed=passed, failed=failed, playbook=context.rules.short_hash),
    )


def _exit_removed(person: Person, context: StepContext, effects: list[Effect]) -> None:
    """Exit the segments that the new playbook no longer has, except learned segments and RFM cells."""
    because = Explanation(trigger="playbook", reason="removed", playbook=context.rules.short_hash)
    rules = context.rules.segments_by_name
    removed = [
        name
        for name in person.segments
        if name not in rules and name not in SCORE_BANDS and not in_rfm_segment(name, person)
    ]
    effects += [static_segments.change_membership(person, name, False, context, because) for name in removed]
    for timer in [timer for timer in person.timers if timer.startswith("segment:") and timer[8:] not in rules]:
        del person.timers[timer]
