"""The live playbook over real shards and a real log: whatever ends in the middle of a swap, nobody loses what the log
holds of them, and the recorded turns give the same persons again.
"""

from collections.abc import Sequence
from pathlib import Path
from threading import Event
from time import sleep

import pytest
from structlog.testing import capture_logs

from connectors import mistakes_file
from connectors.log_sqlite import SqliteLog
from domain.mistakes import Mistakes
from domain.partition import partition_of
from domain.playbook import Playbook
from domain.problem import PlaybookError
from domain.record import Outgoing
from domain.settings import Settings
from domain.streams import PUBLIC
from flows import first_playbook, live_playbook, warm_up
from flows.live_playbook import LivePlaybook
from flows.onsite import STEPS
from state import codec
from state.rerun import rerun
from state.rules import Rules, compile_rules, rules_from
from state.shard import Shard
from state.store import Batch
from state.store_sqlite import SqliteStore
from state.sweep import SWEPT
from tests.shards import record

PARTITIONS = 2
T0 = 1_700_000_000_000
PEOPLE = SWEPT * 3
GROUPS = ("cups", "mugs", "pots")
"""Everybody looks at one thing of each group: a segment that counts them needs a trace of its own."""


class Place:
    """The folder of a shop, its log and its store; workers come and go."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.shop = folder, folder / "shop"
        (self.shop / "segments").mkdir(parents=True)
        (self.shop / "shop.toml").write_text('currency = "EUR"\n')
        self.log = SqliteLog(folder / "log", PARTITIONS)
        for n in range(PEOPLE * len(GROUPS)):
            seen = {"product_id": "p", "category": GROUPS[n // PEOPLE]}
            one = record(f"v{n % PEOPLE}", "Product Viewed", messageId=f"m{n}", properties=seen)
            self.log.append([Outgoing(one.stream, one.key, one.value, log_time=T0 + n)])
        self.store = SqliteStore(folder / "store.db", PARTITIONS)

    def counts(self, *groups: str) -> None:
        """The marketer writes a playbook with these segments."""
        for path in (self.shop / "segments").glob("*.toml"):
            path.unlink()
        for group in groups:
            (self.shop / "segments" / f"{group}.toml").write_text(
                f'when = {{ did = {{ event = "Product Viewed", where = {{ category = "{group}" }} }} }}\n')

    def mistakes(self) -> Mistakes | None:
        """What is told of the folder."""
        return mistakes_file.read(mistakes_file.path_of(str(self.folder)))

    def members(self) -> dict[str, set[str]]:
        """Who is in which segments."""
        return {key: set(codec.decode(value).segments) for p in range(PARTITIONS)
                for key, value in self.store.persons(p)}

    def same_again(self) -> bool:
        """Whether the recorded turns give the same persons, byte for byte."""
        for p in range(PARTITIONS):
            again = SqliteStore(self.folder / f"again{p}.db", PARTITIONS)
            rerun(p, self.store.turns(p), self.log.fetch, again, STEPS, PARTITIONS,
                  lambda known: rules_from(self.store.kept("playbook", known) or b""), lambda known: None,
                  warmed=lambda shard, before, after: warm_up.again(shard, before, after, self.log.fetch))
            same = again.persons(p) == self.store.persons(p)
            again.close()
            if not same:
                return False
        return True


class Worker:
    """One worker of the place over some of its shards; `died` is what a kill leaves: nothing."""

    def __init__(self, place: Place, partitions: Sequence[int] = range(PARTITIONS)) -> None:
        self.place = place
        self.store = SqliteStore(place.folder / "store.db", PARTITIONS)
        self.store.claim(partitions, f"worker {min(partitions)}")
        settings = Settings(playbook=str(place.shop), data=str(place.folder))
        self.playbook = LivePlaybook(settings, place.log, self.store, b"")
        self.shards = {p: Shard(p, self.store, STEPS, PARTITIONS, 1_000) for p in partitions}
        for shard in self.shards.values():
            self.playbook.resume(shard)

    def reads(self) -> None:
        for p, shard in self.shards.items():
            found = [one for stream in PUBLIC for one in self.place.log.fetch(
                (stream, p), shard.head.positions.get(stream, -1) + 1, 1 << 60)]
            shard.apply(found, 0, self.playbook.rules, None)
            self._commit(shard)

    def sees(self, *segments: str) -> None:
        """Until the playbook with these segments is live here."""
        for _ in range(100):
            self.looks()
            if self.playbook.warming:
                self.playbook.warm(self.shards)
            if set(self.playbook.rules.segment) == set(segments):
                return
        raise AssertionError(f"{segments} never went live")

    def looks(self) -> None:
        """At the folder, however short ago it last did."""
        self.playbook.watcher._next = 0.0
        self.playbook.look(self.shards)

    def sweeps(self, slices: int = 1 << 30) -> None:
        """Look at people again, at most so many slices of each shard."""
        for shard in self.shards.values():
            for _ in range(slices):
                shard.apply([], shard.head.clock + 1, self.playbook.rules, None)
                self._commit(shard)
                if shard.head.sweep is None:
                    self.playbook.looked(shard)
                    break

    def _commit(self, shard: Shard) -> None:
        assert not shard.bugs, shard.bugs
        batch = Batch()
        shard.stage(batch)
        self.store.commit(batch, [row.seq for row in self.store.outbox()])

    def dies(self) -> None:
        self.store.close()


EVERYBODY = {f"a:v{n}" for n in range(PEOPLE)}


def test_a_playbook_that_follows_before_everybody_was_looked_at_with_the_last_one(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.counts("cups")
    worker = Worker(place)
    worker.reads()
    place.counts("cups", "mugs")
    worker.sees("cups", "mugs")
    worker.sweeps(1)
    place.counts("cups", "mugs", "pots")
    worker.sees("cups", "mugs", "pots")
    worker.sweeps(1)
    worker.dies()
    worker = Worker(place)
    assert set(worker.playbook.rules.segment) == {"cups", "mugs", "pots"}
    worker.sweeps()
    assert place.members() == {key: {"cups", "mugs", "pots"} for key in EVERYBODY}
    place.counts("mugs", "pots")  # counts nothing new
    worker.sees("mugs", "pots")
    worker.sweeps()
    assert place.members() == {key: {"mugs", "pots"} for key in EVERYBODY}
    assert place.same_again()


def test_a_playbook_that_counts_nothing_new_does_not_end_what_is_under_way(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.counts("cups")
    worker = Worker(place)
    worker.reads()
    place.counts("cups", "mugs")
    worker.sees("cups", "mugs")
    worker.sweeps(1)
    place.counts("mugs")
    worker.sees("mugs")
    worker.dies()
    worker = Worker(place)
    worker.sweeps()
    assert place.members() == {key: {"mugs"} for key in EVERYBODY}
    assert place.same_again()


def test_playbooks_that_follow_before_a_shard_does_anything_do_not_end_what_is_under_way(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.counts("cups")
    worker = Worker(place)
    worker.reads()
    place.counts("cups", "mugs")
    worker.sees("cups", "mugs")
    worker.sweeps(1)
    place.counts("mugs")
    worker.sees("mugs")
    place.counts("cups", "mugs")
    worker.sees("cups", "mugs")
    assert worker.shards[0].warm
    worker.sweeps()
    assert place.members() == {key: {"cups", "mugs"} for key in EVERYBODY}
    assert place.same_again()


def test_a_worker_that_died_while_others_went_on_and_sees_yet_another_one_makes_it_good(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.counts("cups")
    workers = [Worker(place, [p]) for p in range(PARTITIONS)]
    for worker in workers:
        worker.reads()
    place.counts("cups", "mugs")
    for worker in workers:
        worker.sees("cups", "mugs")
    workers[1].sweeps(1)
    workers[1].dies()
    place.counts("mugs")
    workers[0].sees("mugs")
    for _ in range(2):
        workers[1] = Worker(place, [1])
        workers[1].dies()
    workers[1] = Worker(place, [1])
    place.counts("cups", "mugs")
    for worker in workers:
        worker.sees("cups", "mugs")
        worker.sweeps()
    assert place.members() == {key: {"cups", "mugs"} for key in EVERYBODY}
    assert place.same_again()


def test_a_worker_that_died_while_another_one_swapped_makes_it_good(tmp_path: Path) -> None:
    """Both warm up for themselves; what is live is said once for all of them."""
    place = Place(tmp_path)
    place.counts("cups")
    workers = [Worker(place, [p]) for p in range(PARTITIONS)]
    for worker in workers:
        worker.reads()
    place.counts("cups", "mugs")
    workers[0].sees("cups", "mugs")
    workers[1].looks()
    workers[1].looks()
    assert workers[1].playbook.warming
    workers[1].dies()
    workers[1] = Worker(place, [1])
    assert set(workers[1].playbook.rules.segment) == {"cups", "mugs"}, "it is live, as far as it can see"
    for worker in workers:
        worker.sweeps()
    assert place.members() == {key: {"cups", "mugs"} for key in EVERYBODY}
    assert partition_of(b"v0", PARTITIONS) != partition_of(b"v1", PARTITIONS), "both have something to lose"
    assert place.same_again()
    workers[0].dies()
    worker = Worker(place, [0])
    assert not worker.shards[0].warm, "everybody was looked at"


def test_a_big_playbook_is_read_beside_the_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_playbook, "BIG", 0)
    place = Place(tmp_path)
    place.counts("cups")
    worker = Worker(place)
    reading, goes_on = Event(), Event()

    def slowly(playbook: Playbook) -> Rules:
        reading.set()
        assert goes_on.wait(30)
        return compile_rules(playbook)

    monkeypatch.setattr(first_playbook, "compile_rules", slowly)
    place.counts("mugs")
    for _ in range(1_000):
        worker.looks()
        if reading.wait(0.01):
            break
    worker.looks()
    worker.reads()
    assert set(worker.playbook.rules.segment) == {"cups"}, "batches go on while it is read"
    goes_on.set()
    for _ in range(1_000):
        worker.looks()
        if worker.playbook.warming and worker.playbook.warm(worker.shards):
            break
        sleep(0.01)
    assert set(worker.playbook.rules.segment) == {"mugs"}
    worker.sweeps()
    assert place.members() == {key: {"mugs"} for key in EVERYBODY}


def test_a_big_playbook_that_cannot_be_used_here_leaves_the_last_one_live(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_playbook, "BIG", 0)
    place = Place(tmp_path)
    place.counts("cups")
    worker = Worker(place)
    (place.shop / "coupons").mkdir()
    (place.shop / "coupons" / "ten.toml").write_text("percent = 10\n")
    with capture_logs() as logs:
        for _ in range(1_000):
            worker.looks()
            if any("cannot be used here" in one["event"] for one in logs):
                break
            sleep(0.01)
        else:
            raise AssertionError("nobody was told")
    assert set(worker.playbook.rules.segment) == {"cups"}


def test_what_is_wrong_with_the_folder_is_told_as_long_as_it_is(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_playbook, "_now", lambda: T0)
    place = Place(tmp_path)
    place.counts("cups")
    worker = Worker(place)
    assert place.mistakes() is None
    monkeypatch.setattr(live_playbook, "_now", lambda: T0 + 60_000)
    (place.shop / "segments" / "cups.toml").write_text("[when]\nsesion = { pages_at_least = 3 }\n")
    for _ in range(2):
        worker.looks()
    told = place.mistakes()
    assert told is not None
    assert [str(one) for one in told.problems] == [
        'segments/cups.toml, line 2, when.sesion: there is nothing called "sesion" here; did you mean "session"?']
    assert (told.since, told.live, told.live_since) == (T0 + 60_000, worker.playbook.rules.short, T0)
    worker.dies()
    monkeypatch.setattr(live_playbook, "_now", lambda: T0 + 120_000)
    worker = Worker(place)
    assert place.mistakes() == told, "who starts again says the same"
    (place.shop / "shop.toml").write_text("currency = ")
    for _ in range(2):
        worker.looks()
    told = place.mistakes()
    assert told is not None
    assert (told.count, told.since) == (2, T0 + 60_000)
    (place.shop / "shop.toml").write_text('currency = "EUR"\n')
    place.counts("cups")
    for _ in range(2):
        worker.looks()
    assert place.mistakes() is None


def test_what_nobody_reads_is_logged_once_when_a_playbook_is_read(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.counts("cups")
    (place.shop / "campaign").mkdir()

    def said(*groups: str) -> list[str]:
        """Of what is warned while the marketer writes these segments."""
        if groups:
            place.counts(*groups)
        with capture_logs() as logs:
            for _ in range(4):
                worker.looks()
        return [one["stray"] for one in logs if "stray" in one]

    with capture_logs() as logs:
        worker = Worker(place)
    warned = [one for one in logs if "stray" in one]
    assert [(one["log_level"], one["stray"]) for one in warned] == [
        ("warning", "campaign/: nothing in it is read; did you mean campaigns/?")]
    assert said() == said("cups", "mugs") == [], "it was said"
    (place.shop / "segments" / "pots.TOML").write_text("")
    assert said() == [], "nothing is read for its sake"
    assert said("cups") == ['segments/pots.TOML: is read by nothing: the files in segments/ end in .toml; did you mean '
                            '"pots.toml"?']
    (place.shop / "campaign").rename(place.shop / "campagne")
    (place.shop / "segments" / "bad.toml").write_text("when = 7")
    assert said() == ["campagne/: nothing in it is read; did you mean campaigns/?"], "beside mistakes, too"


def test_what_cannot_be_used_here_is_told_until_it_can(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.counts("cups")
    worker = Worker(place)
    (place.shop / "coupons").mkdir()
    (place.shop / "coupons" / "ten.toml").write_text("percent = 10\n")
    for _ in range(4):
        worker.looks()
    told = place.mistakes()
    assert told is not None
    assert "set ATTIMO_SECRET" in str(told.problems[0])
    (place.shop / "coupons" / "ten.toml").write_text("percent = \n")
    for _ in range(2):
        worker.looks()
    (place.shop / "coupons" / "ten.toml").write_text("percent = 10\n")
    for _ in range(2):
        worker.looks()
    assert place.mistakes() == told, "it is as unusable as before"
    (place.shop / "coupons" / "ten.toml").unlink()
    for _ in range(2):
        worker.looks()
    assert place.mistakes() is None


def test_a_mistake_that_no_check_knows_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compiled(playbook: Playbook) -> Rules:
        if len(playbook.segments) > 1:
            raise ValueError("51 are more than are remembered")
        return compile_rules(playbook)

    monkeypatch.setattr(first_playbook, "compile_rules", compiled)
    place = Place(tmp_path)
    place.counts("cups")
    worker = Worker(place)
    place.counts("cups", "mugs")
    for _ in range(4):
        worker.looks()
    told = place.mistakes()
    assert told is not None
    assert "51 are more than are remembered" in str(told.problems[0])
    assert set(worker.playbook.rules.segment) == {"cups"}
    place.counts("cups")
    for _ in range(2):
        worker.looks()
    assert place.mistakes() is None


def test_a_first_playbook_with_mistakes_is_told_as_one_with_nothing_before_it(tmp_path: Path) -> None:
    place = Place(tmp_path)
    (place.shop / "shop.toml").write_text("currency = ")
    with pytest.raises(PlaybookError):
        Worker(place)
    told = place.mistakes()
    assert told is not None
    assert told.live == ""
    assert "no playbook was live before" in next(told.lines(str))


def test_where_nothing_can_be_told_the_worker_goes_on(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.counts("cups")
    worker = Worker(place)
    (tmp_path / "run").write_text("in the way")
    (place.shop / "shop.toml").write_text("currency = ")
    with capture_logs() as logs:
        for _ in range(2):
            worker.looks()
    assert any("cannot be told" in one["event"] for one in logs)
    place.counts("cups", "mugs")
    (place.shop / "shop.toml").write_text('currency = "EUR"\n')
    worker.sees("cups", "mugs")
