"""Leasing of coupon codes, so that no code is given to two people.

    code cache "d:<pool>#…" of a shard ── lease_request: how many ──▶ allocator "c:<pool>", in one partition
    codes of its own                   ◀── lease_grant: the codes ──  counts how many it has granted

A pool has one allocator, which grants its codes in order, each once. A shard has one code cache per pool, in its own
partition: a code is taken from the cache and given to a person in one commit. Both are stored like persons and change
only by shard messages. Duplicate messages are skipped by sequence; late ones only make people wait. Codes that were
leased and not used stay in the cache.

A cache requests codes when few are left, or, for a small pool, when a person needs one and it is empty. Until the grant
arrives, offers are suppressed ("coupon_pending"); then a timer re-evaluates the waiting people. A person who merged
into another meanwhile is followed: with `codes_available`, the known person waits at the cache of their own shard.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import count

import msgspec

from domain.action import Effect, ShardMessage
from domain.duration import format_duration, pluralize
from domain.record import murmur2, partition_of
from state.context import InvalidEvent, StepContext
from state.person import codec
from state.person.model import CodeCache, Person, PoolAllocator, routing_key
from state.playbook.coupon_pool import PoolRule

STEP_NAME = "lease"
LEASE_REQUEST, LEASE_GRANT, CODES_AVAILABLE = "lease_request", "lease_grant", "codes_available"
MESSAGE_KINDS = frozenset((LEASE_REQUEST, LEASE_GRANT, CODES_AVAILABLE))
"""Shard messages handled here; steps neither send nor receive them."""

PENDING, SOLD_OUT, CODES_CHANGED, NO_COUPON = "coupon_pending", "sold_out", "codes_changed", "no_coupon"
"""Why there is no code: not yet leased, none left, the pool's codes were changed, no such pool."""

MAX_WAITING = 500
"""Waiting people stored per cache; others are not notified."""

MAX_GRANT = 500
"""Maximum number of codes per grant."""

LEASE_TIMEOUT = 10 * 60_000
"""Time after which an unanswered lease request is repeated (ms)."""


class _LeaseRequest(msgspec.Struct):
    wanted: int = 1
    v: int = 1


class _LeaseGrant(msgspec.Struct):
    codes: list[str] = []
    reason: str = ""
    playbook: str = ""
    v: int = 1


def allocator_key(pool: str) -> str:
    """Return the id of a pool's allocator.

    >>> allocator_key("winback")
    'c:winback'
    """
    return "c:" + pool


@lru_cache(8_192)
def code_cache_key(pool: str, partition: int, partitions: int) -> str:
    """Return the id of a pool's code cache in a shard: the first candidate that lies in its partition.

    >>> from domain.record import partition_of
    >>> key = code_cache_key("winback", 7, 64)
    >>> key.startswith("d:winback#7#"), partition_of(routing_key(key), 64)
    (True, 7)
    """
    for n in count():
        key = f"d:{pool}#{partition}#{n}"
        if (murmur2(routing_key(key)) & 0x7FFFFFFF) % partitions == partition:
            return key
    raise AssertionError("unreachable: count() is infinite")


def get_code_cache(pool: str, context: StepContext) -> tuple[Person, CodeCache]:
    """Return the code cache of this shard and the person record that holds it."""
    holder = context.sibling(code_cache_key(pool, context.partition, context.partitions))
    if holder.code_cache is None:
        holder.code_cache = CodeCache()
    return holder, holder.code_cache


def take_code(rule: PoolRule, person: Person, context: StepContext) -> tuple[str, str]:
    """Return (code, "") with an unused code, else ("", reason).

    With the reason "coupon_pending", the person is re-evaluated when codes arrive (timer `again:…`).
    """
    holder, cache = get_code_cache(rule.name, context)
    denied = cache.denied_reason if cache.denied_by_playbook == context.rules.short_hash else ""
    if cache.codes:
        code = cache.codes.pop(0)
        if len(cache.codes) < rule.low_watermark(context.partitions) and not denied:
            _request_lease(holder, cache, rule, context)
        return code, ""
    if denied:
        return "", denied
    _add_waiting(holder, cache, rule, person, context)
    return "", PENDING


def _add_waiting(holder: Person, cache: CodeCache, rule: PoolRule, person: Person, context: StepContext) -> None:
    if person.id not in cache.waiting and len(cache.waiting) < MAX_WAITING:
        cache.waiting.append(person.id)
    _request_lease(holder, cache, rule, context)


def prefetch(context: StepContext, clock: int) -> bool:
    """Request the first codes of each large pool in advance, once per cache.

    Return whether a cache was created; it is an input of its own, at `clock`.
    """
    large = [rule for rule in context.rules.pools.values() if rule.low_watermark(context.partitions)]
    holders = [context.sibling(code_cache_key(rule.name, context.partition, context.partitions)) for rule in large]
    if all(holder.code_cache is not None for holder in holders):
        return False
    context.start_input(f"prefetch-{context.partition}-{context.rules.short_hash}", clock, clock)
    for rule, holder in zip(large, holders, strict=True):
        if holder.code_cache is None:
            holder.code_cache = CodeCache()
            _request_lease(holder, holder.code_cache, rule, context)
    return True


def _request_lease(holder: Person, cache: CodeCache, rule: PoolRule, context: StepContext) -> None:
    """Request codes from the allocator, unless a request is open."""
    if cache.requested_at and context.now < cache.requested_at + LEASE_TIMEOUT:
        return
    cache.requested_at = max(1, context.now)
    wanted = max(rule.lease_size(context.partitions), len(cache.waiting))
    context.emitted.append(
        _new_message(LEASE_REQUEST, holder.id, allocator_key(rule.name), _LeaseRequest(wanted), context)
    )


def _new_message(
    kind: str, sender: str, to: str, body: _LeaseRequest | _LeaseGrant | None, context: StepContext
) -> ShardMessage:
    context.message_seq += 1
    return ShardMessage(
        kind=kind,
        sender=sender,
        recipient=to,
        seq=context.message_seq,
        body=msgspec.to_builtins(body) if body else {},
        id=context.next_effect_id(STEP_NAME),
    )


def handle_message(
    person: Person, message: ShardMessage, context: StepContext, schedule: Callable[[Person], None]
) -> Sequence[Effect]:
    """Handle a lease message at an allocator, a code cache, or the shard of a waiting person.

    `schedule` is called for each person with a new timer; resulting messages are in `context.emitted`. Raise
    InvalidEvent, before any change, if sender and recipient do not fit the kind.
    """
    cache_id = message.recipient if message.kind == LEASE_GRANT else message.sender
    pool, _, rest = cache_id[2:].partition("#")
    partition = rest.partition("#")[0]
    other = message.sender if message.kind == LEASE_GRANT else message.recipient
    if (
        not partition.isdecimal()
        or len(partition) > 4
        or cache_id != code_cache_key(pool, int(partition), context.partitions)
        or (other[:2] not in ("a:", "u:") if message.kind == CODES_AVAILABLE else other != allocator_key(pool))
    ):
        raise InvalidEvent(
            "sender", f"{message.kind} is not allowed from {message.sender[:80]} to {message.recipient[:80]}"
        )
    try:
        if message.kind == LEASE_REQUEST:
            return (_grant_lease(person, message, msgspec.convert(message.body, _LeaseRequest), context),)
        if message.kind == LEASE_GRANT:
            _receive_grant(person, message, msgspec.convert(message.body, _LeaseGrant), context, schedule)
            return ()
    except msgspec.ValidationError as error:
        raise InvalidEvent("body", str(error)) from None
    rule: PoolRule | None = context.rules.pools.get(pool)
    if rule is not None:
        holder, cache = get_code_cache(pool, context)
        if cache.codes or cache.denied_by_playbook == context.rules.short_hash:
            _schedule_retry(person, pool, message, context, schedule)
        else:
            _add_waiting(holder, cache, rule, person, context)
    return ()


def _schedule_retry(
    person: Person, pool: str, message: ShardMessage, context: StepContext, schedule: Callable[[Person], None]
) -> None:
    # A unique name: inputs that follow two messages of one moment must not share effect ids.
    person.timers[f"again:{pool}#{message.seq}"] = context.now
    schedule(person)


def _grant_lease(holder: Person, message: ShardMessage, request: _LeaseRequest, context: StepContext) -> ShardMessage:
    """Grant the next codes of the pool, as many as are wanted or left."""
    rule: PoolRule | None = context.rules.pools.get(holder.id[2:])
    allocator = holder.pool_allocator or PoolAllocator()
    codes: list[str] = []
    reason = NO_COUPON
    if rule is not None:
        reason = CODES_CHANGED
        if not allocator.granted or rule.checksum(allocator.granted, context.secret) == allocator.checksum:
            codes = rule.codes(
                allocator.granted, allocator.granted + max(1, min(request.wanted, MAX_GRANT)), context.secret
            )
            reason = "" if codes else SOLD_OUT
            allocator.granted += len(codes)
            allocator.checksum = rule.checksum(allocator.granted, context.secret)
    holder.pool_allocator = allocator
    return _new_message(
        LEASE_GRANT, holder.id, message.sender, _LeaseGrant(codes, reason, context.rules.short_hash), context
    )


def _receive_grant(
    holder: Person, message: ShardMessage, grant: _LeaseGrant, context: StepContext, schedule: Callable[[Person], None]
) -> None:
    """Store the codes and re-evaluate everyone who waits for one."""
    if holder.code_cache is None:
        holder.code_cache = CodeCache()
    cache = holder.code_cache
    cache.requested_at = 0
    cache.codes += grant.codes
    cache.denied_reason, cache.denied_by_playbook = grant.reason, grant.playbook if grant.reason else ""
    waiting, cache.waiting = cache.waiting, []
    for key in waiting:
        person = context.sibling(key)
        if person.merged_into:
            context.emitted.append(_new_message(CODES_AVAILABLE, holder.id, person.merged_into, None, context))
        else:
            _schedule_retry(person, message.sender[2:], message, context, schedule)


ReadPerson = Callable[[int, str], bytes | None]
"""(partition, key) -> bytes."""

_STATE_DESCRIPTIONS = (
    ("reserved", "valid, held by a person"),
    ("redeemed", "used in an order"),
    ("expired", "expired unused"),
    ("released", "withdrawn: the person held two after login, or placed a first order"),
)


def describe_pool(rule: PoolRule, read_person: ReadPerson, partitions: int, secret: bytes) -> str:
    """Describe the state of a pool. `read_person` reads the store: one lookup per shard and one for the allocator."""

    def load(partition: int, key: str) -> Person | None:
        found = read_person(partition, key)
        return codec.decode(found) if found is not None else None

    allocator = load(partition_of(routing_key(allocator_key(rule.name)), partitions), allocator_key(rule.name))
    caches = [
        person.code_cache
        for p in range(partitions)
        if (person := load(p, code_cache_key(rule.name, p, partitions))) is not None and person.code_cache is not None
    ]
    granted = allocator.pool_allocator.granted if allocator is not None and allocator.pool_allocator is not None else 0
    counts: Counter[str] = Counter()
    for cache in caches:
        counts.update(cache.state_counts)

    def lines() -> Iterator[str]:
        origin = "listed" if rule.pool.codes else "generated"
        yield (
            f"{rule.name}: {pluralize(rule.size, 'code')}, {origin}; "
            f"a code is valid for {format_duration(rule.valid_for)}"
        )
        yield _format_count(granted, "leased", f"to {pluralize(len(caches), 'shard')} of {partitions}")
        yield _format_count(
            sum([len(cache.codes) for cache in caches]), "cached", "leased to shards, not assigned to a person yet"
        )
        for state, words in _STATE_DESCRIPTIONS:
            yield _format_count(counts[state], state, words)
        yield _format_count(
            sum([cache.unknown_redemptions for cache in caches]),
            "unknown",
            "in orders of people who do not hold the code",
        )
        if (
            granted
            and allocator is not None
            and allocator.pool_allocator is not None
            and (rule.checksum(granted, secret) != allocator.pool_allocator.checksum)
        ):
            yield (
                "  No more codes are granted: the leased codes are no longer the first codes of the pool. Restore "
                "codes/ (or the secret, or the prefix) and append new codes at the end, or create another pool."
            )

    return "\n".join(lines())


def _format_count(number: int, label: str, description: str) -> str:
    return f"  {number:>10,}  {label:<10} {description}"
