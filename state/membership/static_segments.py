"""Static segments: a trigger or a workflow adds a person, until a trigger removes them or the membership expires.

    person.static_segments   segment -> since (ms), at most MAX_STATIC_SEGMENTS; the oldest membership is evicted
    "untag:<name>"           timer of the expiry: `expires_after` the latest trigger that added the person

Membership is also in `person.segments`. For one input, removal takes precedence over adding, and adding over expiry.
Re-evaluation for a new playbook (`TimerFired("playbook")`) is not a trigger. A late event adds no one, and removes only
people who were members when it happened.

`tag` and `untag` are for code that runs after segments were matched, such as workflows. Dependent static segments
change at once; the rest of the playbook is evaluated again at the same instant (timer `again:`).
"""

from collections.abc import Sequence

from domain.action import Explanation, SegmentChange
from state.context import Input, StepContext, TimerFired, trigger_name
from state.person.model import MAX_STATIC_SEGMENTS, Person, ProfileFragment
from state.playbook.compiled import SegmentRule
from state.profile.profile import merged_profile

STEP_NAME = "match_segments"
PLAYBOOK_TIMER = "playbook"
CONTINUE_TIMER = "again:"


def tag(person: Person, name: str, context: StepContext, trigger: str) -> Sequence[SegmentChange]:
    """Add a person to a static segment, or renew the membership; return the segment changes.

    Does nothing if the playbook has no static segment of this name.

    >>> from domain.playbook.playbook import Playbook
    >>> from domain.playbook.segment import Segment
    >>> from state.playbook.compiled import compile_rules
    >>> context = StepContext(0, compile_rules(Playbook(segments=(Segment("vip", static=True, expires_after="1d"),))))
    >>> context.start_input("workflow", 5, 5)
    >>> person = Person(id="u:ann")
    >>> [(change.segment, change.entered) for change in tag(person, "vip", context, "workflow welcome")]
    [('vip', True)]
    >>> person.static_segments, person.segments, person.timers
    ({'vip': 5}, {'vip': 5}, {'untag:vip': 86400005, 'again:': 5})
    """
    rule = context.rules.segments_by_name.get(name)
    if rule is None or rule.static is None:
        return ()
    segment_changes = add_member(person, rule, context)
    if name not in person.segments:
        segment_changes.append(
            change_membership(
                person, name, True, context, Explanation(trigger=trigger, playbook=context.rules.short_hash)
            )
        )
    return _propagate(person, segment_changes, context)


def untag(person: Person, name: str, context: StepContext, trigger: str) -> Sequence[SegmentChange]:
    """Remove a person from a static segment; return the segment changes."""
    rule = context.rules.segments_by_name.get(name)
    if rule is None or rule.static is None or name not in person.static_segments:
        return ()
    remove_member(person, rule)
    return _propagate(
        person,
        [
            change_membership(
                person, name, False, context, Explanation(trigger=trigger, playbook=context.rules.short_hash)
            )
        ],
        context,
    )


def evaluate(
    person: Person,
    profile: ProfileFragment,
    rule: SegmentRule,
    event: Input | None,
    changes: Sequence[SegmentChange],
    context: StepContext,
) -> list[SegmentChange]:
    """Return what this input, and the segment changes so far, mean for one static segment."""
    static, name, now = rule.static, rule.name, context.now
    if static is None:
        return []
    inside = name in person.static_segments
    segment_changes: list[SegmentChange] = []
    reason, passed = "", tuple[str, ...]()
    cause = event
    if isinstance(event, TimerFired) and event.kind == PLAYBOOK_TIMER:
        cause, changes = None, ()
    late = context.late and event is not None
    if late and inside and context.event_time < person.static_segments[name]:
        cause = None
    for trigger_rule in static.exit_on:
        if trigger_rule.fires(person, profile, cause, changes, now):
            if inside:
                remove_member(person, rule)
                passed = trigger_rule.explain(person, profile, now)
            break
    else:
        for trigger_rule in () if late else static.enter_on:
            if trigger_rule.fires(person, profile, cause, changes, now):
                passed = trigger_rule.explain(person, profile, now)
                segment_changes = add_member(person, rule, context)
                break
        else:
            if (
                inside
                and static.max_stay
                and isinstance(event, TimerFired)
                and _stay_expired(person, static.expiry_timer, event, now)
            ):
                remove_member(person, rule)
                reason = "expired"
    entered = name in person.static_segments
    if entered is not (name in person.segments):
        trigger = "workflow" if event is None else trigger_name(event)
        segment_changes.append(
            change_membership(
                person,
                name,
                entered,
                context,
                Explanation(trigger=trigger, passed=passed, reason=reason, playbook=context.rules.short_hash),
            )
        )
    return segment_changes


def change_membership(
    person: Person, name: str, entered: bool, context: StepContext, because: Explanation
) -> SegmentChange:
    """Change `person.segments` and report it to later steps (`context.segment_changes`) and as an action."""
    if entered:
        person.segments[name] = person.static_segments.get(name, context.now)
    else:
        person.segments.pop(name, None)
    change = SegmentChange(
        id=context.next_effect_id(STEP_NAME),
        at=context.now,
        person=person.id,
        segment=name,
        entered=entered,
        anonymous_id=person.session.anonymous_id if person.session is not None else "",
        because=because,
    )
    context.segment_changes.append(change)
    return change


def add_member(person: Person, rule: SegmentRule, context: StepContext) -> list[SegmentChange]:
    """Store a membership and its expiry; return the segment change of a membership that is evicted."""
    segment_changes = []
    if rule.name not in person.static_segments:
        if len(person.static_segments) >= MAX_STATIC_SEGMENTS:
            oldest = min((at, name) for name, at in person.static_segments.items())[1]
            del person.static_segments[oldest]
            person.timers.pop("untag:" + oldest, None)
            person.timers[CONTINUE_TIMER] = context.now
            segment_changes.append(
                change_membership(
                    person,
                    oldest,
                    False,
                    context,
                    Explanation(trigger="tag", reason="max_segments", playbook=context.rules.short_hash),
                )
            )
        person.static_segments[rule.name] = context.now
    if rule.static is not None and rule.static.max_stay:
        person.timers[rule.static.expiry_timer] = context.now + rule.static.max_stay
    return segment_changes


def remove_member(person: Person, rule: SegmentRule) -> None:
    """Delete a membership and its timer."""
    del person.static_segments[rule.name]
    person.timers.pop("untag:" + rule.name, None)


def reconcile(person: Person, context: StepContext) -> None:
    """Adapt memberships to the playbook, after a new playbook or a merge.

    Memberships of segments that are no longer static are deleted. If `expires_after` is new, it counts from the start
    of the membership; if it was removed, the membership no longer expires. A running expiry is not changed.
    """
    rules, timers = context.rules.segments_by_name, person.timers
    for name, since in list(person.static_segments.items()):
        rule = rules.get(name)
        if rule is None or rule.static is None:
            del person.static_segments[name]
            timers.pop("untag:" + name, None)
        elif not rule.static.max_stay:
            timers.pop(rule.static.expiry_timer, None)
        elif rule.static.expiry_timer not in timers:
            timers[rule.static.expiry_timer] = max(context.now, since + rule.static.max_stay)


def _stay_expired(person: Person, timer: str, fired: TimerFired, now: int) -> bool:
    """Return whether the membership expires now, whichever timer of this instant fires first."""
    return f"{fired.kind}:{fired.id}" == timer or person.timers.get(timer, now + 1) <= now


def _propagate(person: Person, changes: list[SegmentChange], context: StepContext) -> Sequence[SegmentChange]:
    """Evaluate dependent static segments recursively, and schedule the re-evaluation of everything else."""
    if not changes:
        return ()
    person.timers[CONTINUE_TIMER] = context.now
    rules, profile, pending = context.rules, merged_profile(person), 0
    masks = rules.segment_index.masks
    for change in changes:
        pending |= masks.get("segment:" + change.segment, 0)
    while pending:  # lowest bit first: a segment comes after the segments it refers to
        low = pending & -pending
        pending ^= low
        rule = rules.segments[low.bit_length() - 1]
        for change in evaluate(person, profile, rule, None, changes, context):
            changes.append(change)
            pending |= masks.get("segment:" + change.segment, 0)
    return changes
