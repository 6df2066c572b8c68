"""Tags: static segments. Who an occasion (or a workflow) puts in is in, until another takes them out or time is up.

    person.tags      segment -> since when (ms), at most MAX_TAGS; the one they are in longest falls out
    "untag:<name>"   the timer at which their stay is over: that long after the latest occasion that put them in

Membership also stands in `person.segments`, like any other. Where several things come together in one happening, what
takes out comes before what puts in, and what puts in (anew) before the end of the stay. That everybody is looked at
again because the playbook has changed (`Due("playbook")`) is no occasion. A late event puts nobody in, and takes out
only who was in when it happened.

`tag` and `untag` are for who acts after segments were matched, such as a workflow. Static segments that follow from the
move do so at once; the rest of the playbook is asked again at the same instant (the timer `again:`).
"""

from collections.abc import Sequence

from domain.action import Because, Move
from state.context import Context, Due, Happening, occasion_of
from state.person import MAX_TAGS, Facts, Person
from state.rules import SegmentRule
from state.view import known

NAME = "match_segments"
PLAYBOOK = "playbook"
AGAIN_TIMER = "again:"


def tag(person: Person, name: str, context: Context, trigger: str) -> Sequence[Move]:
    """Put a person into a static segment, or let their stay begin anew; the moves that come of it.

    Nothing happens where the playbook has no static segment of this name.

    >>> from domain.playbook import Playbook
    >>> from domain.segment import Segment
    >>> from state.rules import compile_rules
    >>> context = Context(0, compile_rules(Playbook(segments=(Segment("vip", static=True, stays="1d"),))))
    >>> context.begin("workflow", 5, 5)
    >>> person = Person(id="u:ann")
    >>> [(move.segment, move.entered) for move in tag(person, "vip", context, "workflow welcome")]
    [('vip', True)]
    >>> person.tags, person.segments, person.timers
    ({'vip': 5}, {'vip': 5}, {'untag:vip': 86400005, 'again:': 5})
    """
    rule = context.rules.segment.get(name)
    if rule is None or rule.static is None:
        return ()
    moves = put_in(person, rule, context)
    if name not in person.segments:
        moves.append(move(person, name, True, context, Because(trigger=trigger, playbook=context.rules.short)))
    return _follow(person, moves, context)


def untag(person: Person, name: str, context: Context, trigger: str) -> Sequence[Move]:
    """Take a person out of a static segment; the moves that come of it."""
    rule = context.rules.segment.get(name)
    if rule is None or rule.static is None or name not in person.tags:
        return ()
    take_out(person, rule)
    return _follow(
        person, [move(person, name, False, context, Because(trigger=trigger, playbook=context.rules.short))], context)


def turn(person: Person, facts: Facts, rule: SegmentRule, event: Happening | None, news: Sequence[Move],
         context: Context) -> list[Move]:
    """What this happening, and the moves it has led to so far, mean for one static segment."""
    static, name, now = rule.static, rule.name, context.now
    if static is None:
        return []
    inside = name in person.tags
    moves: list[Move] = []
    reason, held = "", tuple[str, ...]()
    what = event
    if isinstance(event, Due) and event.kind == PLAYBOOK:
        what, news = None, ()
    late = context.late and event is not None
    if late and inside and context.event_time < person.tags[name]:
        what = None
    for one in static.leave:
        if one.comes(person, facts, what, news, now):
            if inside:
                take_out(person, rule)
                held = one.why(person, facts, now)
            break
    else:
        for one in () if late else static.enter:
            if one.comes(person, facts, what, news, now):
                held = one.why(person, facts, now)
                moves = put_in(person, rule, context)
                break
        else:
            if inside and static.stays and isinstance(event, Due) and _over(person, static.timer, event, now):
                take_out(person, rule)
                reason = "expired"
    entered = name in person.tags
    if entered is not (name in person.segments):
        trigger = "workflow" if event is None else occasion_of(event)
        moves.append(move(person, name, entered, context, Because(
            trigger=trigger, held=held, reason=reason, playbook=context.rules.short)))
    return moves


def move(person: Person, name: str, entered: bool, context: Context, because: Because) -> Move:
    """Change `person.segments`, and say so to the steps behind (`context.moves`) and to the world."""
    if entered:
        person.segments[name] = person.tags.get(name, context.now)
    else:
        person.segments.pop(name, None)
    moved = Move(id=context.id(NAME), at=context.now, person=person.id, segment=name, entered=entered,
                 anonymous_id=person.session.anonymous_id if person.session is not None else "", because=because)
    context.moves.append(moved)
    return moved


def put_in(person: Person, rule: SegmentRule, context: Context) -> list[Move]:
    """Note that somebody was put in, and until when; the move of who falls out because there are too many."""
    moves = []
    if rule.name not in person.tags:
        if len(person.tags) >= MAX_TAGS:
            oldest = min((at, name) for name, at in person.tags.items())[1]
            del person.tags[oldest]
            person.timers.pop("untag:" + oldest, None)
            person.timers[AGAIN_TIMER] = context.now
            moves.append(move(person, oldest, False, context, Because(
                trigger="tag", reason="too_many", playbook=context.rules.short)))
        person.tags[rule.name] = context.now
    if rule.static is not None and rule.static.stays:
        person.timers[rule.static.timer] = context.now + rule.static.stays
    return moves


def take_out(person: Person, rule: SegmentRule) -> None:
    """Note that somebody was taken out."""
    del person.tags[rule.name]
    person.timers.pop("untag:" + rule.name, None)


def settle(person: Person, context: Context) -> None:
    """After a new playbook, or when tags came along with a login: what is static no longer is no tag any more.

    Where a segment has `stays` now and had none, it counts from when they came in; where it has none any more, they
    stay. A stay that has begun ends when it was to end.
    """
    rules, timers = context.rules.segment, person.timers
    for name, since in list(person.tags.items()):
        rule = rules.get(name)
        if rule is None or rule.static is None:
            del person.tags[name]
            timers.pop("untag:" + name, None)
        elif not rule.static.stays:
            timers.pop(rule.static.timer, None)
        elif rule.static.timer not in timers:
            timers[rule.static.timer] = max(context.now, since + rule.static.stays)


def _over(person: Person, timer: str, due: Due, now: int) -> bool:
    """Whether this happening is the end of the stay, whichever of several timers of this instant fires first."""
    return f"{due.kind}:{due.id}" == timer or person.timers.get(timer, now + 1) <= now


def _follow(person: Person, moves: list[Move], context: Context) -> Sequence[Move]:
    """The static segments that follow from moves, and theirs; everything else is asked again."""
    if not moves:
        return ()
    person.timers[AGAIN_TIMER] = context.now
    rules, facts, todo = context.rules, known(person), 0
    masks = rules.segment_index.masks
    for moved in moves:
        todo |= masks.get("segment:" + moved.segment, 0)
    while todo:  # the lowest bit first: segments stand behind those they refer to
        low = todo & -todo
        todo ^= low
        rule = rules.segments[low.bit_length() - 1]
        for moved in turn(person, facts, rule, None, moves, context):
            moves.append(moved)
            todo |= masks.get("segment:" + moved.segment, 0)
    return moves
