"""Rehearsal: a playbook that is not live yet, over what is recorded. The same steps, no outside effect.

    clicks carts purchases people ─▶ survey ─▶ who belongs together ─▶ deal ─▶ perform (the steps of flows/onsite) ─┐
    turns, models (store)  ─────────────────────────────────────────────┘       in N processes, in virtual time     │
    actions, messages (what really happened) ───────────────────────────────────────▶ count ◀───────────────────────┘
                                                                                         └─▶ report

    python -m attimo rehearse shop/ --from 2026-07-01 --to 2026-07-31

The log and the store are opened for reading only, Redis is not asked, nothing is written but the report. People depend
on each other only through letters, and letters go between ids that once stood in one event: so each family is rehearsed
by itself, and what is counted is added up. Two runs give the same bytes, in however many processes.
"""

import gc
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, wait
from functools import lru_cache
from multiprocessing.sharedctypes import Synchronized
from typing import Any
from zlib import crc32

from connectors.history import recorded
from domain import action as actions
from domain import event as events
from domain import message as messages
from domain import model as models
from domain.effect import Effect
from domain.record import UNREADABLE, Record
from domain.rehearsal import Found, Heading, Report, Sum
from domain.settings import Settings
from domain.streams import ACTIONS, LETTERS, MESSAGES, PUBLIC
from flows.onsite import STEPS
from flows.rehearsal_plan import FOREVER, Plan, Progress, Wish, answers, plan_of, turns_of
from operators import choose_actions
from state.chances import Chances, leads_of
from state.diary import diary
from state.explain import explain
from state.family import Family, Stage, item_of
from state.kin import Kin, named
from state.person import person_key
from state.reactions import SHOWN
from state.recorded import Place, followed
from state.rehearsal import Period
from state.rules import Rules, rules_from
from state.store import Turn
from state.virtual import Learned, Numbers

AT_ONCE = 256 << 20
"""Bytes of the log that one process holds in memory; of more, it goes through the log in several rounds."""
SPOKEN = (actions.Send, actions.Arm, actions.Hold, messages.Message)
"""Decisions whose variant and playbook version are told of one person."""
WORTH = 50_000
"""Records that are worth another process: to start one costs as much as some ten thousand records."""
def rehearse(settings: Settings, wish: Wish, progress: Progress = lambda *_: None) -> Report:
    """Rehearse a playbook over the log. ValueError, LogError or PlaybookError say what stands against it."""
    rules, plan, survey = plan_of(settings, wish, progress)
    jobs = wish.processes or min(os.cpu_count() or 1, 1 + survey.records // WORTH)
    plan = plan._replace(shares=jobs * max(1, -(-survey.bytes // (jobs * AT_ONCE))))
    found = _spread(plan, jobs, survey.records, progress) if jobs > 1 else _alone(plan, survey.records, progress)
    return Report(about=_heading(wish, rules, plan), found=found)


def follow(settings: Settings, wish: Wish, person: str, progress: Progress = lambda *_: None) -> str:
    """The rehearsal of one person, as a page of text. ValueError when nobody is known under this id."""
    names = [person] if person[:2] in ("u:", "a:") else [
        key for key in (person_key(person, None), person_key(None, person)) if key]
    rules, plan, survey = plan_of(settings, wish, progress, names)
    families = sorted({survey.kin.family(name) for name in names if name in survey.known})
    if not families:
        raise ValueError(f"nobody is recorded as {person} in this time")
    stage, kin = _stage(plan, rules, diary=True), survey.kin
    pages: list[str] = []
    zone = rules.shop.timezone
    for name, family in _families(plan, stage, lambda one: one in families):
        notes, household = stage.perform(name, family, kin.alone(name))
        people = household.people()
        pages += diary([note for note in notes if note.at in stage.period], rules, wish.campaign)
        pages += ["", "At the end"]
        last = [one for key, one in sorted(people.items()) if not one.alias_of and key[:2] in ("u:", "a:")]
        told = {note.effect.id: note.effect.because for note in notes if isinstance(note.effect, SPOKEN)}
        pages += [explain(one, rules.shop.currency, wish.campaign, rules, plan.end - 1, zone, told) for one in last]
    return "\n".join(pages)


def decisions(settings: Settings, wish: Wish) -> Iterator[Effect]:
    """Every decision of a rehearsal, person by person: what the report counts."""
    rules, plan, survey = plan_of(settings, wish, lambda *_: None)
    stage = _stage(plan, rules)
    for name, family in _families(plan, stage, lambda _: True):
        notes, _ = stage.perform(name, family, survey.kin.alone(name))
        yield from (note.effect for note in notes if note.effect is not None)


def _heading(wish: Wish, rules: Rules, plan: Plan) -> Heading:
    return Heading(
        playbook=wish.folder, version=rules.short, begin=plan.begin, end=plan.end, timezone=rules.shop.timezone,
        currency=rules.shop.currency, model="recorded" if plan.recorded_models is not None else plan.model or "none",
        models=tuple(sorted(plan.models)), reactions="recorded" if plan.as_recorded else "assumed", warm=not plan.cold,
        campaigns=tuple(sorted(rules.campaigns)), segments=tuple(one.name for one in rules.playbook.segments),
        workflows=tuple(one.name for one in rules.playbook.workflows), leads=leads_of(rules),
        values={one.name: one.goal.value for one in rules.playbook.campaigns
                if one.goal is not None and one.goal.value})


# -- performing ----------------------------------------------------------------------------------------------------


def _stage(plan: Plan, rules: Rules, diary: bool = False) -> Stage:
    kept = {name: models.decode(source) for name, source in plan.models.items()}
    was_live = plan.recorded_models

    @lru_cache(None)
    def learned(names: str) -> Learned:
        model, quintiles = models.each_hash(names)
        return Learned(kept.get(model), kept.get(quintiles))

    def learned_at(partition: int, time: int) -> Learned:
        return learned(plan.model if was_live is None else was_live.at(partition, time))

    period = Period(plan.begin, plan.end, rules.shop.timezone)
    chances = Chances(rules, period)
    before = STEPS.index(choose_actions.step)
    stage = Stage((*STEPS[:before], chances.step, *STEPS[before:]), rules, plan.settings.partitions, period, learned_at,
                  not plan.as_recorded, diary=diary)
    stage.chances = chances
    stage.learned_of = lambda record: learned(plan.model if was_live is None else was_live.of(
        record.stream, record.partition, record.offset))
    return stage


def _families(plan: Plan, stage: Stage, mine: Callable[[str], bool]) -> Iterator[tuple[str, Family]]:
    """Everybody of this share, with what is recorded of them, by name."""
    kin = Kin(plan.parents)
    families: dict[str, Family] = {}
    numbers = Numbers()
    for record, clock in _in_order(plan, stage):
        key, _ = named(record)
        name = kin.family(key)
        if not mine(name) or (record.stream == LETTERS and not key):  # desks of coupons write to each other anew
            continue
        family = families.get(name)
        if family is None:
            family = families[name] = Family()
        letter = ""
        if record.stream == LETTERS:
            letter = numbers.place(record.value)
            if not letter:
                continue  # it was sent again
        else:
            _look(family, key, record, stage)
        family.items.append(item_of(record, stage.learned_of(record), clock, letter))
    for decided in _decided(plan):
        name = kin.family(decided.person)
        if name in families:
            families[name].decided.append(decided)
    for name in sorted(families):
        yield name, families.pop(name)


def _in_order(plan: Plan, stage: Stage) -> Iterator[tuple[Record, int]]:
    """The records, as they are read; or as the live shards read them, with the clock they had."""
    streams = (*PUBLIC, LETTERS) if plan.as_recorded else PUBLIC
    found = (record for record in recorded(plan.settings, streams, plan.end)
             if not plan.cold or record.log_time >= plan.begin)
    if not plan.as_recorded:
        for record in found:
            yield record, 0
        return
    places: dict[int, dict[Place, list[Record]]] = {}
    for record in found:
        places.setdefault(record.partition, {}).setdefault((record.stream, record.partition), []).append(record)
    turns: dict[int, list[Turn]] = {}
    for turn in turns_of(plan.settings):
        turns.setdefault(turn.partition, []).append(turn)
    stage.ends = {}
    for partition in sorted(turns):
        steps, stage.ends[partition] = followed(turns[partition], places.get(partition, {}))
        yield from steps


def _look(family: Family, key: str, record: Record, stage: Stage) -> None:
    """Note who is there in the time that is reported, and which live decisions they were shown."""
    if not answers(record.value):
        if record.log_time in stage.period:
            family.present.add(key)
    else:
        try:
            event = events.decode(record.value)
        except UNREADABLE:
            return
        if isinstance(event, events.Track) and event.event in SHOWN:
            family.shown.update((value, key) for name in ("action_id", "message_id")
                                if isinstance(value := event.properties.get(name), str))


def _decided(plan: Plan) -> Iterator[actions.Action | messages.Message]:
    """What was decided live in this time."""
    for record in recorded(plan.settings, (ACTIONS, MESSAGES), FOREVER):
        try:
            yield (actions if record.stream == ACTIONS else messages).decode(record.value)
        except UNREADABLE:
            continue  # of another version, or nothing of ours


def _perform(plan: Plan, share: int, done: Callable[[int], None]) -> Found:
    """One share of the people."""
    rules = rules_from(plan.source)
    stage = _stage(plan, rules)
    kin, names = Kin(plan.parents), rules.campaigns.keys()
    total = Sum()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)  # people are many and hold no cycles: look for garbage seldom
    for name, family in _families(plan, stage, lambda one: crc32(one.encode()) % plan.shares == share):
        count = len(family.items)
        warm = sum([item.record.log_time < plan.begin for item in family.items])
        total.add(stage.count(name, family, kin.alone(name), names))
        total.add(Found(events=count - warm, warm_up=warm))
        done(count)
    rejects = {kind: n for (what, kind), n in sorted(stage.tally.kinds.items()) if what == "reject"}
    total.add(Found(rejects=rejects, timers=stage.tally.events["timers"], passed_over=stage.reactions.passed_over))
    return total.found()


def _alone(plan: Plan, records: int, progress: Progress) -> Found:
    """Everything in this process."""
    total, so_far = Sum(), 0

    def done(count: int) -> None:
        nonlocal so_far
        so_far += count
        progress("rehearsing", so_far, records)

    for share in range(plan.shares):
        total.add(_perform(plan, share, done))
    return total.found()


_done: Any = None


def _started(counter: "Synchronized[int]") -> None:
    global _done
    _done = counter


def _in_process(plan: Plan, share: int) -> Found:
    def done(count: int) -> None:
        with _done.get_lock():
            _done.value += count

    return _perform(plan, share, done)


def _spread(plan: Plan, jobs: int, records: int, progress: Progress) -> Found:
    """Everything, in several processes."""
    spawn = multiprocessing.get_context("spawn")
    counter = spawn.Value("q", 0)
    with ProcessPoolExecutor(jobs, mp_context=spawn, initializer=_started, initargs=(counter,)) as pool:
        shares = [pool.submit(_in_process, plan, share) for share in range(plan.shares)]
        waiting = set(shares)
        while waiting:
            _, waiting = wait(waiting, timeout=0.1)
            progress("rehearsing", counter.value, records)
        total = Sum()
        for share in shares:
            total.add(share.result())
    return total.found()
