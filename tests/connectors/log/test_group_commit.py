"""Group commit: who asks together is answered together, and nobody is told more than the log has."""

import asyncio
from collections.abc import Sequence

import pytest

from connectors.log.group_commit import MAX_GROUP_RECORDS, GroupCommit
from connectors.log.log import LogError
from domain.record import NewRecord


class PendingAppend:
    def __init__(self, rounds: int, fails: bool) -> None:
        self.rounds, self.fails = rounds, fails

    def done(self) -> bool:
        self.rounds -= 1
        if self.rounds < 0 and self.fails:
            raise LogError("lost")
        return self.rounds < 0


class MemoryLog:
    """`fails` names the appends (by number) that are lost; `rounds` how often a ticket is asked before it is done."""

    def __init__(self, rounds: int = 0, fails: Sequence[int] = ()) -> None:
        self.appends: list[list[NewRecord]] = []
        self.rounds, self.fails = rounds, fails

    def start_append(self, records: Sequence[NewRecord]) -> PendingAppend:
        self.appends.append(list(records))
        return PendingAppend(self.rounds, len(self.appends) - 1 in self.fails)


def records(key: str, count: int) -> list[NewRecord]:
    return [NewRecord("clicks", key.encode(), b"%d" % n) for n in range(count)]


def append_all(log: MemoryLog, *requests: list[NewRecord]) -> list[object]:
    async def all_at_once() -> list[object]:
        commits = GroupCommit(log)  # type: ignore[arg-type]  # the part of a log that is used
        return list(await asyncio.gather(*map(commits.append, requests), return_exceptions=True))

    return asyncio.run(all_at_once())


@pytest.mark.parametrize("rounds", [0, 3])
def test_concurrent_requests_share_one_append(rounds: int) -> None:
    log = MemoryLog(rounds)
    assert append_all(log, records("a", 1), records("b", 2), []) == [None, None, None]
    assert [len(one) for one in log.appends] == [3]


@pytest.mark.parametrize("rounds", [0, 3])
def test_large_requests_are_split_in_order(rounds: int) -> None:
    log = MemoryLog(rounds)
    large = records("a", 2 * MAX_GROUP_RECORDS + 7)
    assert append_all(log, large, records("b", 1)) == [None, None]
    assert [len(one) for one in log.appends] == [MAX_GROUP_RECORDS, MAX_GROUP_RECORDS, 8]
    assert [record for one in log.appends for record in one][: len(large)] == large


@pytest.mark.parametrize("rounds", [0, 3])
@pytest.mark.parametrize("lost", [0, 1, 2])
def test_request_succeeds_only_when_every_part_does(rounds: int, lost: int) -> None:
    found = append_all(MemoryLog(rounds, [lost]), records("a", 2 * MAX_GROUP_RECORDS + 7), records("b", 1))
    assert isinstance(found[0], LogError)
    assert isinstance(found[1], LogError) is (lost == 2)


def test_commits_continue_after_a_failure() -> None:
    log = MemoryLog(fails=[0])

    async def twice() -> None:
        commits = GroupCommit(log)  # type: ignore[arg-type]  # the part of a log that is used
        with pytest.raises(LogError, match="lost"):
            await commits.append(records("a", 1))
        await commits.append(records("a", 1))

    asyncio.run(twice())
    assert len(log.appends) == 2
