"""How a pool of codes stands, as its home and the desks of all shards have counted."""

from collections import Counter
from collections.abc import Callable, Iterator

from domain.amounts import some
from domain.duration import say
from domain.partition import partition_of
from state import codec
from state.desk import desk_key, home_key
from state.person import Person, routing_key
from state.pools import PoolRule

Read = Callable[[int, str], bytes | None]
"""(partition, key) -> bytes."""

_STATES = (
    ("reserved", "are good: somebody holds them"),
    ("redeemed", "were used in an order"),
    ("expired", "ended unused"),
    ("released", "were taken back: a person who logged in held two, or a first order was placed"),
)


def standing(rule: PoolRule, read: Read, partitions: int, secret: bytes) -> str:
    """A page about one pool. `read` reads the store (65 look-ups for 64 shards, however many people there are)."""
    def kept(partition: int, key: str) -> Person | None:
        found = read(partition, key)
        return codec.decode(found) if found is not None else None

    home = kept(partition_of(routing_key(home_key(rule.name)), partitions), home_key(rule.name))
    desks = [person.desk for p in range(partitions) if (person := kept(p, desk_key(rule.name, p, partitions)))
             is not None and person.desk is not None]
    granted = home.home.granted if home is not None and home.home is not None else 0
    counts: Counter[str] = Counter()
    for desk in desks:
        counts.update(desk.counts)

    def lines() -> Iterator[str]:
        made = "listed" if rule.pool.codes else "made up"
        yield f"{rule.name}: {some(rule.size, 'code')}, {made}; a code is good for {say(rule.valid_for)}"
        yield _line(granted, "leased", f"to {some(len(desks), 'shard')} of {partitions}")
        yield _line(sum([len(desk.codes) for desk in desks]), "on desks", "of those, not given to anybody yet")
        for state, words in _STATES:
            yield _line(counts[state], state, words)
        yield _line(sum([desk.strangers for desk in desks]), "strangers", "orders named one that somebody else holds")
        if granted and home is not None and home.home is not None and (
                rule.mark(granted, secret) != home.home.mark):
            yield ("  No more are given out: the codes that were leased are no longer the first ones of the pool. Put "
                   "codes/ (or the secret, or the prefix) back as it was and add new codes at the end, or begin "
                   "another pool.")
    return "\n".join(lines())


def _line(number: int, word: str, words: str) -> str:
    return f"  {number:>10,}  {word:<10} {words}"
