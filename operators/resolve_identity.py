"""resolve_identity: two ids in one event are one person.

    shard(u:ann) meets anonymous_id x  ── claim ──▶  shard(a:x)
    shard(u:ann) absorbs the facts     ◀─ handover ─  shard(a:x), from now on an alias of u:ann

What x did before login becomes a facet of Ann, whole and undoable; what x does later without a `userId` is forwarded
to her. An open visit, its label and the cart move along. Only a trusted `userId` gets here: an unverified one is none.
"""

from collections.abc import Sequence

import msgspec

from domain.action import Because, Disarm
from domain.effect import Effect
from domain.event import Alias, text_id
from domain.letter import Letter
from state.context import Context, Due, Happening, Unreadable
from state.coupons import settle
from state.dealings import Moved, stands
from state.merge import absorb, hand_over
from state.person import Link, Person, Trace
from state.warmth import warm

MAX_LINKS = 50
NAME = "resolve_identity"
JOINED = "they logged in"


def step(person: Person, event: Happening, context: Context) -> Sequence[Effect]:
    """Claim what is ours, hand over what is claimed, absorb what is handed over.

    >>> from domain.event import Identify
    >>> from domain.playbook import Playbook
    >>> from state.rules import compile_rules
    >>> ann, context = Person(id="u:ann"), Context(0, compile_rules(Playbook()))
    >>> context.begin("people-0-1", 5_000, 5_000)
    >>> [(letter.kind, letter.to) for letter in step(ann, Identify(user_id="ann", anonymous_id="x"), context)]
    [('claim', 'a:x')]
    >>> step(ann, Identify(user_id="ann", anonymous_id="x"), context)
    ()
    """
    if isinstance(event, Letter):
        return _read(person, event, context)
    if isinstance(event, Due) or person.id[0] != "u":
        return ()
    anonymous = text_id(event.anonymous_id)
    effects: Sequence[Effect] = ()
    if anonymous is not None and "a:" + anonymous not in person.links:
        effects = _claim(person, "a:" + anonymous, context)
    if isinstance(event, Alias):
        previous = text_id(event.previous_id)
        if previous is not None and "a:" + previous not in person.links:
            effects = [*effects, *_claim(person, "a:" + previous, context)]
    return effects


def _claim(person: Person, other: str, context: Context) -> Sequence[Effect]:
    """Ask for the facts of an anonymous id, once."""
    _link(person, other, Link("claimed", context.now))
    return (_letter("claim", person.id, other, {}, context),)


def _link(person: Person, other: str, link: Link) -> None:
    """Note another id; of too many the one that was heard of longest ago is forgotten, and would be asked again."""
    links = person.links
    while other not in links and len(links) >= MAX_LINKS:
        del links[min(links, key=lambda name: (links[name].at, name))]
    links[other] = link


def _letter(kind: str, sender: str, to: str, body: dict[str, object], context: Context) -> Letter:
    context.letters += 1
    return Letter(kind=kind, sender=sender, to=to, seq=context.letters, body=body, id=context.id(NAME))


def _read(person: Person, letter: Letter, context: Context) -> Sequence[Effect]:
    if letter.kind == "claim":
        # What the browser holds ready was decided for somebody we did not know; the known person decides anew.
        effects: list[Effect] = [
            Disarm(id=context.id(NAME), at=context.now, person=person.id, anonymous_id=armed.anonymous_id,
                   campaign=armed.campaign, because=Because(
                       trigger="letter", reason=JOINED, playbook=context.rules.short))
            for armed in person.armed.values()
        ]
        body = hand_over(person)
        if not person.alias_of:
            person.moved = Moved(letter.sender, stands(context.positions))
        person.alias_of = letter.sender
        effects.append(_letter("handover", person.id, letter.sender, body, context))
        return effects
    try:
        if letter.kind == "handover":
            absorb(person, letter.body, context.now)
        if letter.kind == "warmed":
            warm(person, letter.sender, msgspec.convert(letter.body.get("traces", {}), dict[str, Trace]))
    except msgspec.ValidationError as wrong:
        raise Unreadable("body", str(wrong)) from None
    if letter.kind == "handover":
        _link(person, letter.sender, Link("joined", context.now))
        if person.coupons:
            return settle(person, context)
    return ()
