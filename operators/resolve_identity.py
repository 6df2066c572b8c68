"""resolve_identity: merge two ids that occur in one event.

    shard(u:ann) receives anonymous_id x  ── merge_request ──▶  shard(a:x)
    shard(u:ann) merges the profile       ◀─ merge_response ──  shard(a:x), now an alias of u:ann

The data of x before login becomes a separate profile fragment of the known person, so the merge can be undone. Later
records of x without a `userId` are forwarded. An open session, its label and the cart move to the known person.
Unverified user ids are never merged.
"""

from collections.abc import Sequence

import msgspec

from domain.action import Cancel, Effect, Explanation, ShardMessage
from domain.event import Alias, normalize_id
from state.context import Input, InvalidEvent, StepContext, TimerFired
from state.coupons.wallet import reconcile
from state.merge import build_merge_response, merge_into
from state.person.model import EventCounter, FirstMerge, IdentityLink, Person, ordered_positions
from state.shard.backfill import apply_backfill

MAX_LINKS = 50
STEP_NAME = "resolve_identity"
LOGGED_IN = "they logged in"


def step(person: Person, event: Input, context: StepContext) -> Sequence[Effect]:
    """Request a merge for new ids of a known person, and handle merge and backfill messages.

    >>> from domain.event import Identify
    >>> from domain.playbook.playbook import Playbook
    >>> from state.playbook.compiled import compile_rules
    >>> ann, context = Person(id="u:ann"), StepContext(0, compile_rules(Playbook()))
    >>> context.start_input("people-0-1", 5_000, 5_000)
    >>> [(message.kind, message.recipient) for message in step(ann, Identify(user_id="ann", anonymous_id="x"), context)]
    [('merge_request', 'a:x')]
    >>> step(ann, Identify(user_id="ann", anonymous_id="x"), context)
    ()
    """
    if isinstance(event, ShardMessage):
        return _handle_message(person, event, context)
    if isinstance(event, TimerFired) or person.id[0] != "u":
        return ()
    anonymous = normalize_id(event.anonymous_id)
    effects: Sequence[Effect] = ()
    if anonymous is not None and "a:" + anonymous not in person.identity_links:
        effects = _request_merge(person, "a:" + anonymous, context)
    if isinstance(event, Alias):
        previous = normalize_id(event.previous_id)
        if previous is not None and "a:" + previous not in person.identity_links:
            effects = [*effects, *_request_merge(person, "a:" + previous, context)]
    return effects


def _request_merge(person: Person, other_id: str, context: StepContext) -> Sequence[Effect]:
    """Link an anonymous id and request its profile."""
    _add_link(person, other_id, IdentityLink("requested", context.now))
    return (_new_message("merge_request", person.id, other_id, {}, context),)


def _add_link(person: Person, other_id: str, link: IdentityLink) -> None:
    """Add a link; above `MAX_LINKS` the oldest link is evicted, and its id would be requested again."""
    links = person.identity_links
    while other_id not in links and len(links) >= MAX_LINKS:
        del links[min(links, key=lambda name: (links[name].at, name))]
    links[other_id] = link


def _new_message(kind: str, sender: str, to: str, body: dict[str, object], context: StepContext) -> ShardMessage:
    context.message_seq += 1
    return ShardMessage(
        kind=kind, sender=sender, recipient=to, seq=context.message_seq, body=body, id=context.next_effect_id(STEP_NAME)
    )


def _handle_message(person: Person, message: ShardMessage, context: StepContext) -> Sequence[Effect]:
    if message.kind == "merge_request":
        # Preloaded offers were decided for the anonymous person; the known person is evaluated again.
        effects: list[Effect] = [
            Cancel(
                id=context.next_effect_id(STEP_NAME),
                at=context.now,
                person=person.id,
                anonymous_id=preloaded.anonymous_id,
                campaign=preloaded.campaign,
                because=Explanation(trigger="shard_message", reason=LOGGED_IN, playbook=context.rules.short_hash),
            )
            for preloaded in person.preloaded.values()
        ]
        body = build_merge_response(person)
        if not person.merged_into:
            person.first_merge = FirstMerge(message.sender, ordered_positions(context.positions))
        person.merged_into = message.sender
        effects.append(_new_message("merge_response", person.id, message.sender, body, context))
        return effects
    try:
        if message.kind == "merge_response":
            merge_into(person, message.body, context.now)
        if message.kind == "backfill":
            apply_backfill(
                person, message.sender, msgspec.convert(message.body.get("counters", {}), dict[str, EventCounter])
            )
    except msgspec.ValidationError as error:
        raise InvalidEvent("body", str(error)) from None
    if message.kind == "merge_response":
        _add_link(person, message.sender, IdentityLink("merged", context.now))
        if person.coupons:
            return reconcile(person, context)
    return ()
