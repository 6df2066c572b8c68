"""The live playbook of a worker: read, made ready, and swapped whole between two batches.

    folder ─▶ read and checked ─▶ what it counts anew is gathered from the log (flows/warm_up.py) ─▶ swapped in
       └─ broken: the last good one stays live, and what is wrong is told (connectors/mistakes_file.py)

Reading and making ready takes long where there are very many campaigns: then it is done in a thread beside the batches.
What is live is kept in the store by its content hash, so that every decision can be made again with it.
"""

import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import msgspec
import structlog

from connectors import metrics, mistakes_file
from connectors.log import Log
from connectors.playbook_folder import Watcher
from connectors.strays import strays
from domain import playbook as playbooks
from domain.failpoint import failpoint
from domain.mistakes import Mistakes
from domain.playbook import Playbook, succeed
from domain.problem import PlaybookError, Problem
from domain.settings import Settings
from flows.first_playbook import ready
from flows.warm_up import WarmUp, again
from state.rules import Rules, rules_from
from state.shard import Shard
from state.store import Store
from state.sweep import short_of
from state.warmth import Warm, missing, pack, together, unknown, unpack

BIG = 500
"""Segments and campaigns of a playbook whose successor is read beside the batches: it would hold them up."""

logger = structlog.get_logger()


class LivePlaybook:
    """`rules` are live. PlaybookError when there is no playbook to begin with."""

    def __init__(self, settings: Settings, log: Log, store: Store, secret: bytes) -> None:
        self.watcher = Watcher(Path(settings.playbook))
        self._log, self._store, self._secret = log, store, secret
        self._warming: WarmUp | None = None
        self._next: Rules | None = None
        self._beside = ThreadPoolExecutor(1, "playbook")
        self._reading: Future[Rules | None] | None = None
        self._unusable: tuple[Problem, ...] = ()
        """What is wrong with a playbook that is whole, and cannot be used here."""
        self._strays: list[Problem] = []
        self._mistakes = mistakes_file.path_of(settings.data)
        self._told: tuple[tuple[Problem, ...], str] | None = None
        self.rules = self._first()
        self._tell(self.rules)

    def _first(self) -> Rules:
        """What was live last, if there was anything; the folder's follows, at once unless it must warm up."""
        live = self._kept()
        self._warn()
        try:
            rules = self._succeeding(self.watcher.first(), self._source())
        except PlaybookError as broken:
            if live is None:
                self._tell(None)
                raise
            logger.warning("the playbook has mistakes, the last good one stays live", problems=str(broken))
            return live
        if live is None or not missing(rules.remembered, live.remembered):
            self._keep(rules)
            return rules
        self._next = rules
        return live

    def _kept(self) -> Rules | None:
        """The rules that were live last, here or in another worker over the same store."""
        last = self._store.kept("live", "playbook")
        source = self._store.kept("playbook", last.decode()) if last else None
        try:
            return None if source is None else rules_from(source)
        except msgspec.ValidationError as strange:
            logger.warning("the playbook that was live cannot be read any more; who is in a workflow that is no longer "
                           "there leaves it", because=str(strange))
            return None

    def _source(self, live: Rules | None = None) -> bytes | None:
        """The bytes of the playbook that was live last, here or in another worker."""
        last = self._store.kept("live", "playbook")
        if live is not None and last == live.hash.encode():
            return live.source
        return self._store.kept("playbook", last.decode()) if last else None

    def _succeeding(self, playbook: Playbook, source: bytes | None) -> Rules:
        """The rules of a playbook, together with the workflows that people may still be in: those of the one that was
        live last (`source`). PlaybookError when it cannot be used here.
        """
        if source is not None:
            try:
                playbook = succeed(playbooks.decode(source), playbook)
            except msgspec.ValidationError:  # said already, by `_kept`
                pass
        try:
            rules = ready(playbook, self._secret)
        except PlaybookError as wrong:
            self._unusable = wrong.problems
            raise
        self._unusable = ()
        return rules

    def _keep(self, rules: Rules) -> None:
        self._store.keep("playbook", rules.hash, rules.source)
        if self._store.kept("live", "playbook") != rules.hash.encode():
            self._store.note("live", "since", str(_now()).encode())
        self._store.note("live", rules.short, rules.hash.encode())
        self._store.note("live", "playbook", rules.hash.encode())

    def _warn(self) -> None:
        """Say what lies in the folder and nobody reads: each once, however often the folder is read."""
        before, self._strays = self._strays, strays(self.watcher.folder)
        for stray in self._strays:
            if stray not in before:
                logger.warning("in the playbook there is what nobody reads", stray=str(stray))

    # -- telling -------------------------------------------------------------------------------------------------

    def _tell(self, live: Rules | None) -> None:
        """Make known what is wrong with the folder, and which playbook is live instead."""
        problems, short = self.watcher.problems or self._unusable, live.short if live is not None else ""
        if (problems, short) == self._told:
            return
        metrics.MISTAKES.set(len(problems))
        before = mistakes_file.read(self._mistakes) if problems else None
        since = self._store.kept("live", "since") if live is not None else None
        mistakes = Mistakes.of(
            str(self.watcher.folder), problems, before.since if before else _now(), short, int(since or 0),
        ) if problems else None
        try:
            mistakes_file.tell(self._mistakes, mistakes)
        except OSError as wrong:  # the log has them too; who decides goes on
            logger.warning("what is wrong with the playbook cannot be told", because=str(wrong))
            return
        self._told = problems, short

    # -- swapping --------------------------------------------------------------------------------------------------

    def look(self, shards: Mapping[int, Shard]) -> bool:
        """See whether the folder has changed; whether another playbook is live from now on."""
        try:
            self._next = self._changed() or self._next
        except PlaybookError as wrong:
            logger.warning("the playbook cannot be used here, the last good one stays live", problems=str(wrong))
            return False
        finally:
            self._tell(self.rules)
        if self._next is None:
            return False
        rules, self._next = self._next, None
        if self._warming is not None:
            self._warming.close()
            self._warming = None
        wanted = missing(rules.remembered, self.rules.remembered)
        if wanted and shards and any(shard.head.positions for shard in shards.values()):
            self._warming = WarmUp(self._log, shards, rules, wanted)
            logger.info("playbook: what it counts is gathered from the log before it goes live",
                        version=rules.hash[:12], counts=len(wanted))
            return False
        self._swap(rules, {}, shards)
        return True

    def _changed(self) -> Rules | None:
        """The rules of a folder that has changed, once they are ready. PlaybookError when they cannot be used here."""
        if self._reading is None:
            now, source = time.monotonic(), self._source(self.rules)
            if len(self.rules.campaigns) + len(self.rules.segments) < BIG:
                return self._read(now, source)
            self._reading = self._beside.submit(self._read, now, source)
        if not self._reading.done():
            return None
        reading, self._reading = self._reading, None
        return reading.result()

    def _read(self, now: float, source: bytes | None) -> Rules | None:
        before, changed = self.watcher.problems, self.watcher.poll(now)
        if changed is not None or self.watcher.problems != before:
            self._warn()
        return None if changed is None else self._succeeding(changed, source)

    @property
    def warming(self) -> bool:
        """Whether a new playbook is on its way."""
        return self._warming is not None

    def warm(self, shards: Mapping[int, Shard]) -> bool:
        """Gather a slice more of what the next playbook counts; whether it is live from now on."""
        if self._warming is None:
            return False
        done = self._warming.step()
        failpoint("onsite:warming")
        if not done:
            return False
        warming, self._warming = self._warming, None
        self._swap(warming.rules, warming.finish(), shards)
        return True

    def _swap(self, rules: Rules, found: Mapping[int, Warm], shards: Mapping[int, Shard]) -> None:
        """Everybody is decided about with these rules from the next batch on. What was found is kept first, together
        with what people whom a shard has not looked at again yet were to be given by the playbook before.
        """
        before = self.rules.short
        for partition, shard in shards.items():
            if short_of(shard.head.rules) in ("", before):
                fresh = unknown(found.get(partition, {}), self.rules.remembered)
                shard.warm = together(shard.warm, fresh, rules.remembered)
            else:  # it has done nothing yet with the playbook that was live until now
                shard.warm = self._gathered(shard, rules)
            self._note(partition, rules.short, shard.warm)
        failpoint("onsite:swapping")
        self._keep(rules)
        self.rules = rules
        for partition in shards if before != rules.short else ():
            self._still_needed(partition, before)
        logger.info("playbook", version=rules.hash[:12])

    # -- what was found for people whom a shard has not looked at again yet --------------------------------------------

    def resume(self, shard: Shard) -> None:
        """Go on with what was found. Where another worker swapped the playbook in before this shard was read for it,
        that is made good here.
        """
        live, head = self.rules, shard.head
        last = short_of(head.rules)
        if last == live.short and head.sweep is None:
            return
        packed = self._store.kept("warm", _name(shard.partition, live.short))
        if packed and last == live.short:
            shard.warm = unpack(packed)
        elif last not in ("", live.short):
            shard.warm = self._gathered(shard, live)
            self._note(shard.partition, live.short, shard.warm)
            self._still_needed(shard.partition, last)

    def _still_needed(self, partition: int, short: str) -> None:
        """What was found for a playbook is kept until everybody was looked at with a later one: should yet another
        follow before this shard does anything, it starts from there.
        """
        name = str(partition)
        waiting = self._store.kept("warm", name) or b""
        if short.encode() not in waiting.split():
            self._store.note("warm", name, waiting + b" " + short.encode())

    def looked(self, shard: Shard) -> bool:
        """A shard that goes through its people no more: whether that was with the playbook that is live."""
        partition = shard.partition
        if short_of(shard.head.rules) != self.rules.short:
            return False
        earlier = self._store.kept("warm", str(partition)) or b""
        for short in (*earlier.decode().split(), self.rules.short):
            self._note(partition, short, {})
        if earlier:
            self._store.note("warm", str(partition), b"")
        return True

    def _gathered(self, shard: Shard, rules: Rules) -> Warm:
        """What these rules count and those that the shard did its last batch with did not, up to where it stands."""
        last = short_of(shard.head.rules)
        named = self._store.kept("live", last)
        source = self._store.kept("playbook", named.decode()) if named else None
        if source is None:
            return {}
        packed = self._store.kept("warm", _name(shard.partition, last))
        waiting = unpack(packed) if packed and shard.head.sweep is not None else {}
        found = again(shard, rules_from(source), rules, self._log.fetch)
        return together(waiting, found, rules.remembered)

    def _note(self, partition: int, short: str, found: Warm) -> None:
        name = _name(partition, short)
        if found or self._store.kept("warm", name):
            self._store.note("warm", name, pack(found) if found else b"")


def _now() -> int:
    return time.time_ns() // 1_000_000


def _name(partition: int, short: str) -> str:
    """What is found for one playbook does not replace what was found for another, until the swap is done."""
    return f"{partition}-{short}"
