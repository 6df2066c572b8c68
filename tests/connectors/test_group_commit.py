"""Group commit: who asks together is answered together, and nobody is told more than the log has."""

import asyncio
from collections.abc import Sequence

import pytest

from connectors.group_commit import GROUP, GroupCommit
from connectors.log import LogError
from domain.record import Outgoing


class Ticket:
    def __init__(self, rounds: int, fails: bool) -> None:
        self.rounds, self.fails = rounds, fails

    def done(self) -> bool:
        self.rounds -= 1
        if self.rounds < 0 and self.fails:
            raise LogError("lost")
        return self.rounds < 0


class Log:
    """`fails` names the appends (by number) that are lost; `rounds` how often a ticket is asked before it is done."""

    def __init__(self, rounds: int = 0, fails: Sequence[int] = ()) -> None:
        self.appends: list[list[Outgoing]] = []
        self.rounds, self.fails = rounds, fails

    def begin(self, records: Sequence[Outgoing]) -> Ticket:
        self.appends.append(list(records))
        return Ticket(self.rounds, len(self.appends) - 1 in self.fails)


def records(who: str, count: int) -> list[Outgoing]:
    return [Outgoing("clicks", who.encode(), b"%d" % n) for n in range(count)]


def run(log: Log, *requests: list[Outgoing]) -> list[object]:
    async def all_at_once() -> list[object]:
        commits = GroupCommit(log)  # type: ignore[arg-type]  # the part of a log that is used
        return list(await asyncio.gather(*map(commits.append, requests), return_exceptions=True))

    return asyncio.run(all_at_once())


@pytest.mark.parametrize("rounds", [0, 3])
def test_requests_that_arrive_together_share_one_append(rounds: int) -> None:
    log = Log(rounds)
    assert run(log, records("a", 1), records("b", 2), []) == [None, None, None]
    assert [len(one) for one in log.appends] == [3]


@pytest.mark.parametrize("rounds", [0, 3])
def test_large_requests_are_cut_and_stay_in_order(rounds: int) -> None:
    log = Log(rounds)
    large = records("a", 2 * GROUP + 7)
    assert run(log, large, records("b", 1)) == [None, None]
    assert [len(one) for one in log.appends] == [GROUP, GROUP, 8]
    assert [record for one in log.appends for record in one][:len(large)] == large


@pytest.mark.parametrize("rounds", [0, 3])
@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_request_is_only_kept_when_all_of_it_is(rounds: int, lost: int) -> None:
    found = run(Log(rounds, [lost]), records("a", 2 * GROUP + 7), records("b", 1))
    assert isinstance(found[0], LogError)
    assert isinstance(found[1], LogError) is (lost == 2)


def test_after_a_loss_it_goes_on() -> None:
    log = Log(fails=[0])

    async def twice() -> None:
        commits = GroupCommit(log)  # type: ignore[arg-type]  # the part of a log that is used
        with pytest.raises(LogError, match="lost"):
            await commits.append(records("a", 1))
        await commits.append(records("a", 1))

    asyncio.run(twice())
    assert len(log.appends) == 2
