"""Desks: how a pool of codes is shared out, so that no code is ever given to two people.

    desk "d:<pool>#…" of a shard ── lease: how many are wanted ──▶ home "c:<pool>", somewhere
    codes of its own             ◀── grant: the next codes ───────  counts how many it has granted

A pool has one home, which grants its codes in order, each once. A shard has one desk for each pool, in its own
partition: a code is taken from there and given to a person in one commit. Both are kept like persons, and nothing but
letters reaches them. A letter that comes twice is passed over by its sequence, like any other; one that comes late
only makes people wait. Codes that a desk was granted and nobody wanted stay with it.

A desk asks when few codes are left; of a small pool, when somebody wants one and it has none. Who wants one meanwhile
is held ("coupon_pending") and looked at again, by a timer, as soon as the grant is here. Who turned out to be somebody
else meanwhile is followed there: the letter `codes` has the known person wait at the desk of their own shard.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import count

import msgspec

from domain.effect import Effect
from domain.letter import Letter
from domain.partition import murmur2
from state.context import Context, Unreadable
from state.person import Desk, Home, Person, routing_key
from state.pools import PoolRule

NAME = "desk"
LEASE, GRANT, CODES = "lease", "grant", "codes"
KINDS = frozenset((LEASE, GRANT, CODES))
"""The letters of desks and homes. No step writes or reads them."""

PENDING, SOLD_OUT, CHANGED, NO_COUPON = "coupon_pending", "sold_out", "codes_changed", "no_coupon"
"""Why there is no code: none yet, none left, the codes are no longer those that were granted, no such pool."""

MAX_WAITING = 500
"""People a desk remembers to be waiting; who comes later is not told when codes arrive."""

MOST = 500
"""Codes that are granted at a time, however many people wait."""

PATIENCE = 10 * 60_000
"""An answer that has not come for so long (ms) is asked for again."""


class _Lease(msgspec.Struct):
    wanted: int = 1
    v: int = 1


class _Grant(msgspec.Struct):
    codes: list[str] = []
    why: str = ""
    playbook: str = ""
    v: int = 1


def home_key(pool: str) -> str:
    """The id of a pool's home.

    >>> home_key("winback")
    'c:winback'
    """
    return "c:" + pool


@lru_cache(8_192)
def desk_key(pool: str, partition: int, partitions: int) -> str:
    """The id of a pool's desk in a shard: the first of a row of ids that live in its partition.

    >>> from domain.partition import partition_of
    >>> key = desk_key("winback", 7, 64)
    >>> key.startswith("d:winback#7#"), partition_of(routing_key(key), 64)
    (True, 7)
    """
    for n in count():
        key = f"d:{pool}#{partition}#{n}"
        if (murmur2(routing_key(key)) & 0x7FFFFFFF) % partitions == partition:
            return key
    raise AssertionError("there is always another number")


def desk_of(pool: str, context: Context) -> tuple[Person, Desk]:
    """The desk of this shard: its keeper, and what is kept."""
    keeper = context.neighbour(desk_key(pool, context.partition, context.partitions))
    if keeper.desk is None:
        keeper.desk = Desk()
    return keeper, keeper.desk


def take(rule: PoolRule, person: Person, context: Context) -> tuple[str, str]:
    """A code that nobody else has or will have, and ""; else "" and why there is none.

    Who is told "coupon_pending" is looked at again when codes are here (timer `again:…`).
    """
    keeper, desk = desk_of(rule.name, context)
    shut = desk.shut if desk.shut_by == context.rules.short else ""
    if desk.codes:
        code = desk.codes.pop(0)
        if len(desk.codes) < rule.low(context.partitions) and not shut:
            _ask(keeper, desk, rule, context)
        return code, ""
    if shut:
        return "", shut
    _wait(keeper, desk, rule, person, context)
    return "", PENDING


def _wait(keeper: Person, desk: Desk, rule: PoolRule, person: Person, context: Context) -> None:
    if person.id not in desk.waiting and len(desk.waiting) < MAX_WAITING:
        desk.waiting.append(person.id)
    _ask(keeper, desk, rule, context)


def open_desks(context: Context, clock: int) -> bool:
    """Ask for the first codes of each large pool ahead of anybody who may want one; once in the life of a desk.

    Whether there was a desk to open: that is a happening of its own, at `clock`; else nothing is touched.
    """
    large = [rule for rule in context.rules.pools.values() if rule.low(context.partitions)]
    keepers = [context.neighbour(desk_key(rule.name, context.partition, context.partitions)) for rule in large]
    if all(keeper.desk is not None for keeper in keepers):
        return False
    context.begin(f"desks-{context.partition}-{context.rules.short}", clock, clock)
    for rule, keeper in zip(large, keepers, strict=True):
        if keeper.desk is None:
            keeper.desk = Desk()
            _ask(keeper, keeper.desk, rule, context)
    return True


def _ask(keeper: Person, desk: Desk, rule: PoolRule, context: Context) -> None:
    """Ask the home for codes, unless the answer to an earlier letter is still to come."""
    if desk.asked_at and context.now < desk.asked_at + PATIENCE:
        return
    desk.asked_at = max(1, context.now)
    wanted = max(rule.block(context.partitions), len(desk.waiting))
    context.news.append(_letter(LEASE, keeper.id, home_key(rule.name), _Lease(wanted), context))


def _letter(kind: str, sender: str, to: str, body: _Lease | _Grant | None, context: Context) -> Letter:
    context.letters += 1
    return Letter(kind=kind, sender=sender, to=to, seq=context.letters, body=msgspec.to_builtins(body) if body else {},
                  id=context.id(NAME))


def read(person: Person, letter: Letter, context: Context, wake: Callable[[Person], None]) -> Sequence[Effect]:
    """What a home, a desk, or the shard of somebody who waits does with a letter. `wake` is called for whoever has a
    new timer; letters that this brings about stand in `context.news`.

    Unreadable, before anything has changed, when it is no letter of a desk to its home, of a home to its desk, or of a
    desk to a person.
    """
    desk = letter.to if letter.kind == GRANT else letter.sender
    pool, _, rest = desk[2:].partition("#")
    partition = rest.partition("#")[0]
    other = letter.sender if letter.kind == GRANT else letter.to
    if not partition.isdecimal() or len(partition) > 4 or desk != desk_key(
            pool, int(partition), context.partitions) or (
            other[:2] not in ("a:", "u:") if letter.kind == CODES else other != home_key(pool)):
        raise Unreadable("sender", f"no {letter.kind} goes from {letter.sender[:80]} to {letter.to[:80]}")
    try:
        if letter.kind == LEASE:
            return (_grant(person, letter, msgspec.convert(letter.body, _Lease), context),)
        if letter.kind == GRANT:
            _receive(person, letter, msgspec.convert(letter.body, _Grant), context, wake)
            return ()
    except msgspec.ValidationError as wrong:
        raise Unreadable("body", str(wrong)) from None
    rule: PoolRule | None = context.rules.pools.get(pool)
    if rule is not None:
        keeper, at_desk = desk_of(pool, context)
        if at_desk.codes or at_desk.shut_by == context.rules.short:
            _look_again(person, pool, letter, context, wake)
        else:
            _wait(keeper, at_desk, rule, person, context)
    return ()


def _look_again(person: Person, pool: str, letter: Letter, context: Context, wake: Callable[[Person], None]) -> None:
    # A name of its own: what follows from two letters of one moment must not share its effect ids.
    person.timers[f"again:{pool}#{letter.seq}"] = context.now
    wake(person)


def _grant(keeper: Person, letter: Letter, asked: _Lease, context: Context) -> Letter:
    """Grant the next codes of the pool, as many as are wanted or left."""
    rule: PoolRule | None = context.rules.pools.get(keeper.id[2:])
    home = keeper.home or Home()
    codes: list[str] = []
    why = NO_COUPON
    if rule is not None:
        why = CHANGED
        if not home.granted or rule.mark(home.granted, context.secret) == home.mark:
            codes = rule.codes(home.granted, home.granted + max(1, min(asked.wanted, MOST)), context.secret)
            why = "" if codes else SOLD_OUT
            home.granted += len(codes)
            home.mark = rule.mark(home.granted, context.secret)
    keeper.home = home
    return _letter(GRANT, keeper.id, letter.sender, _Grant(codes, why, context.rules.short), context)


def _receive(keeper: Person, letter: Letter, given: _Grant, context: Context, wake: Callable[[Person], None]) -> None:
    """Keep the codes, and have everybody looked at again who waited for one."""
    if keeper.desk is None:
        keeper.desk = Desk()
    desk = keeper.desk
    desk.asked_at = 0
    desk.codes += given.codes
    desk.shut, desk.shut_by = given.why, given.playbook if given.why else ""
    waiting, desk.waiting = desk.waiting, []
    for who in waiting:
        person = context.neighbour(who)
        if person.alias_of:
            context.news.append(_letter(CODES, keeper.id, person.alias_of, None, context))
        else:
            _look_again(person, letter.sender[2:], letter, context, wake)
