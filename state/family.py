"""A family in a rehearsal: people who share ids, their records of the log and what was decided for them live."""

from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec

from domain.effect import Effect
from domain.partition import partition_of
from domain.record import Record
from domain.rehearsal import Found
from domain.streams import SHARD_INPUT
from state.chances import Chances
from state.context import Step
from state.person import routing_key
from state.reactions import Note, Reactions
from state.rehearsal import Books, Period
from state.rules import Rules
from state.tally import Tally
from state.virtual import Household, Item, Learned

_RANK = {stream: n for n, stream in enumerate(SHARD_INPUT)}


class Family:
    """What there is to go through: `items` as they come, `present` the ids that did something in the period.

    `decided` is what was decided live, `shown` whom of it what was shown (by the id of the decision).
    """

    __slots__ = ("decided", "items", "present", "shown")

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.present: set[str] = set()
        self.decided: list[Effect] = []
        self.shown: dict[str, str] = {}


class Stage:
    """The circumstances of a rehearsal: the playbook, the steps, the time; `ends` are the clocks of shards at last.

    With `ends`, people are followed as the live shards read them; else their records go in the order of time.
    """

    def __init__(self, steps: Sequence[Step], rules: Rules, partitions: int, period: Period,
                 learned_at: Callable[[int, int], Learned], assumed: bool = True,
                 ends: Mapping[int, int] | None = None, diary: bool = False) -> None:
        self.rules, self.partitions, self.period = rules, partitions, period
        self.learned_at, self.ends = learned_at, ends
        self.reactions = Reactions(steps, assumed, diary)
        self.learned_of: Callable[[Record], Learned] = lambda record: learned_at(record.partition, record.log_time)
        self.tally = Tally()
        self.chances: Chances | None = None
        """Follows the chances of each campaign, where one of the steps is its own."""

    def perform(self, name: str, family: Family, alone: bool) -> tuple[list[Note], Household]:
        """Go through all that is recorded of a family; what was noted, and the people as they are at last."""
        self.reactions.turn_to_others()
        if self.chances is not None:
            self.chances.turn_to_others()
        household = Household(self.reactions, self.rules, self.partitions, self.learned_at, self.tally,
                              stocked=True)
        items, last = family.items, self.period.end - 1
        if self.ends is not None:
            ways: dict[int, list[Item]] = {}
            for item in items:
                ways.setdefault(item.record.partition, []).append(item)
            household.follow(ways, {partition: min(last, end) for partition, end in self.ends.items()})
        else:
            items.sort(key=lambda item: (item.record.log_time, _RANK[item.record.stream], item.record.offset))
            home = partition_of(routing_key(name), self.partitions)
            household.live(items, last, alone and all(item.record.partition == home for item in items))
        return self.reactions.notes, household

    def count(self, name: str, family: Family, alone: bool, names: Collection[str]) -> Found:
        """Go through it, and count what came of it."""
        notes, household = self.perform(name, family, alone)
        people = household.people()
        books = Books(people, self.period, names)
        books.note(notes)
        books.live(family.decided, family.shown)
        found = books.found(family.present)
        if self.chances is None:
            return found
        came = self.chances.found(people)
        return msgspec.structs.replace(found, chances=came.chances, kept_out=came.kept_out)


def item_of(record: Record, learned: Learned, clock: int = 0, letter: str = "") -> Item:
    """A record to go through; its clock is its log time where the live shard's is not known."""
    return Item(record, clock or record.log_time, learned, letter)
