"""The backtest: runs a playbook on recorded events with the live steps and without outside effects.

    clicks, carts, purchases, people ─▶ survey ─▶ identity clusters ─▶ the steps of a person ────────┐
    batch records, models (store) ─────────────────────┘      in N processes, in virtual time        │
    actions, messages (live decisions) ───────────────────────────────────▶ count ◀──────────────────┘
                                                                              └─▶ report

    python -m attimo rehearse shop/ --from 2026-07-01 --to 2026-07-31

The log and the store are opened read-only; Redis is not used. People depend on each other only through shard messages,
which go between ids that occurred in one event. Therefore each identity cluster runs by itself, and the counts add up.
Repeated runs give the same bytes, with any number of processes.
"""

import gc
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import msgspec

from connectors.log.history import read_history
from connectors.playbook.folder import read_playbook
from domain import action as actions
from domain import action as messages
from domain import event as events
from domain import model as models
from domain.action import Effect
from domain.event import did_you_mean_or_list
from domain.playbook.playbook import encode_playbook
from domain.record import ACTIONS, DECODE_ERRORS, MESSAGES, MODELS, PUBLIC_STREAMS, SHARD_MESSAGES, Record
from domain.settings import Settings
from flows.backtest.counts import BacktestReport, BacktestResult, Period, ReportHeader, Totals
from flows.backtest.household import BacktestRun, ClusterHistory, scheduled_record
from flows.backtest.reach import ReachAnalysis, trigger_paths
from flows.backtest.timeline import format_timeline
from flows.simulation.identity_clusters import IdentityClusters, ids_in_record
from flows.simulation.reactions import REACTION_EVENTS, SHOWN_EVENTS
from flows.simulation.virtual_time import LiveModels, MessageNamer, ModelHistory, StreamPartition, recorded_order
from flows.worker import store_path
from operators import select_campaigns
from operators.steps import STEPS
from state.explain.explain import explain
from state.local_time import local_timestamp, zone_info
from state.person.model import person_key
from state.playbook import rfm
from state.playbook.compiled import Rules, compile_rules, rules_from_source
from state.store.sqlite import SqliteStore
from state.store.store import BatchRecord

MAX_TIME = 1 << 62
PROPENSITY = "propensity"
"""The kind of the model that predicts whether a session ends in an order."""

ProgressCallback = Callable[[str, int, int], None]
"""(phase, records done, total records or 0 if unknown)."""


class BacktestOptions(NamedTuple):
    """The options of `attimo rehearse`. Empty `start` and `end` mean the whole log; empty `campaign` means all."""

    folder: str
    start: str = ""
    end: str = ""
    cold: bool = False
    as_recorded: bool = False
    model: str = "recorded"
    processes: int = 0
    campaign: str = ""


class BacktestPlan(NamedTuple):
    """The input of every process; plain data that crosses processes."""

    settings: Settings
    playbook_source: bytes
    start: int
    end: int
    cold: bool
    as_recorded: bool
    cluster_parents: dict[str, str]
    recorded_models: ModelHistory | None
    models_by_hash: dict[str, bytes]
    model_hashes: str
    share_count: int


class LogSurvey(NamedTuple):
    """The result of the first pass over the log."""

    clusters: IdentityClusters
    first_time: int
    last_time: int
    record_count: int
    byte_count: int
    found_ids: frozenset[str]


def parse_time(text: str, timezone: str, end_of_day: bool = False) -> int:
    """Parse "2026-07-01" or "2026-07-01 09:00" to ms. A day means its start, or its end with `end_of_day`.

    >>> parse_time("2019-10-01", "UTC", True) - parse_time("2019-10-01 00:00", "UTC") == 86_400_000
    True
    """
    normalized = text.strip().replace("T", " ")
    for form in ("%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S"):
        try:
            found = datetime.strptime(normalized, form).replace(tzinfo=UTC)  # wall-clock time; the zone follows
        except ValueError:
            continue
        if end_of_day and form == "%Y-%m-%d":
            found += timedelta(days=1)
        zone = zone_info(timezone)
        return local_timestamp(found.year, found.month, found.day, found.hour, found.minute, zone) + found.second * 1000
    raise ValueError(f"{text}: expected a day (2026-07-01) or a minute (2026-07-01 09:00) in the shop's time zone")


def make_plan(
    settings: Settings, options: BacktestOptions, progress: ProgressCallback, person_keys: Sequence[str] = ()
) -> tuple[Rules, BacktestPlan, LogSurvey]:
    """Read the playbook and survey the log, noting which of `person_keys` occur in it."""
    playbook = read_playbook(options.folder)
    rules, timezone = compile_rules(playbook), playbook.shop.timezone
    if options.campaign and options.campaign not in rules.campaigns:
        raise ValueError(
            f"--campaign {options.campaign}: no such campaign in {options.folder}"
            + did_you_mean_or_list(options.campaign, sorted(rules.campaigns))
        )
    start = parse_time(options.start, timezone) if options.start else 0
    end = parse_time(options.end, timezone, end_of_day=True) if options.end else 0
    if start and end and start >= end:
        raise ValueError(f"--from {options.start}: must be before --to {options.end}")
    survey = _survey_log(settings, start if options.cold else 0, end or MAX_TIME, progress, person_keys)
    end = end or survey.last_time + 1
    start = start or survey.first_time
    batches = read_batch_records(settings) if options.as_recorded or options.model == "recorded" else []
    if options.as_recorded and not batches:
        raise ValueError("--as-recorded: no recorded batches; use the data folder of the live engine")
    model_history = ModelHistory(batches) if batches and options.model == "recorded" else None
    models_by_hash, model_hashes = _load_models(settings, options.model, model_history)
    if start >= end:
        raise ValueError(f"--from {options.start}: no events since then")
    plan = BacktestPlan(
        settings,
        encode_playbook(playbook),
        start,
        end,
        options.cold,
        options.as_recorded,
        survey.clusters.parents,
        model_history,
        models_by_hash,
        model_hashes,
        1,
    )
    return rules, plan, survey


def _survey_log(
    settings: Settings, start: int, end: int, progress: ProgressCallback, person_keys: Sequence[str]
) -> LogSurvey:
    """Read the log once: find identity clusters, the first and last time, and the size."""
    clusters, first, last, n, size = IdentityClusters(), MAX_TIME, -1, 0, 0
    found: set[str] = set()
    for record in read_history(settings, PUBLIC_STREAMS, end):
        if record.log_time < start:
            continue
        key = clusters.add_record(record)
        if key in person_keys:
            found.add(key)
        n += 1
        size += len(record.value)
        if not may_be_reaction(record.value):
            first, last = min(first, record.log_time), max(last, record.log_time)
        if not n % 5_000:
            progress("reading", n, 0)
    for name in person_keys:
        if not clusters.is_singleton(name):
            found.add(name)
    progress("reading", n, n)
    if last < 0:
        raise ValueError("the log has no events in this period")
    return LogSurvey(clusters, first, last, n, size, frozenset(found))


def read_batch_records(settings: Settings) -> list[BatchRecord]:
    """The batch records of the live shards; empty without a store."""
    path = store_path(settings)
    if not path.exists():
        return []
    store = SqliteStore(path, settings.partitions, read_only=True)
    try:
        return store.all_batch_records()
    finally:
        store.close()


def _load_models(settings: Settings, choice: str, live_models: ModelHistory | None) -> tuple[dict[str, bytes], str]:
    """Load the models by hash, and the hashes of the default models. Raise ValueError if one is missing."""
    if choice == "none":
        return {}, ""
    if live_models is not None:
        names = {name for pair in live_models.hashes for name in models.split_hashes(pair) if name}
        return {name: _load_model(settings, name) for name in sorted(names)}, ""
    newest: dict[str, bytes] = {}
    for record in read_history(settings, (MODELS,), MAX_TIME):
        with suppress(*DECODE_ERRORS):  # the worker skips it too
            newest[models.decode_model(record.value).kind] = record.value
    if choice not in ("recorded", "latest"):
        if not Path(choice).is_file():
            raise ValueError(f"--model {choice}: no such file; expected recorded, latest, none or a file")
        newest[PROPENSITY] = Path(choice).read_bytes()
    try:
        found = {
            kind: models.decode_model(newest[kind]) if kind in newest else None for kind in (PROPENSITY, rfm.MODEL_KIND)
        }
    except msgspec.DecodeError as error:
        raise ValueError(f"--model {choice}: not a model: {error}") from error
    by_hash = {model.hash: newest[kind] for kind, model in found.items() if model is not None}
    return by_hash, models.join_hashes(found[PROPENSITY], found[rfm.MODEL_KIND])


def _load_model(settings: Settings, model_hash: str) -> bytes:
    """Load a model that was live from the store, or from the pinned file."""
    store = SqliteStore(store_path(settings), settings.partitions, read_only=True)
    try:
        found = store.get_blob("model", model_hash)
    finally:
        store.close()
    if found is None and settings.pinned_model:
        pinned = Path(settings.pinned_model)
        found = pinned.read_bytes() if pinned.is_file() else None
        if found is not None and models.decode_model(found).hash != model_hash:
            found = None
    if found is None:
        raise ValueError(
            f"the model {model_hash[:12]} was live in this period, but is not stored; choose --model FILE, "
            "--model latest or --model none"
        )
    return found


_REACTION_NAMES = tuple(f'"{name}"'.encode() for name in sorted(REACTION_EVENTS))


def may_be_reaction(value: bytes) -> bool:
    """Whether a record may be feedback to a message or offer: a fast byte search that can give false positives."""
    return (b'"Offer ' in value or b'"Message ' in value) and any(name in value for name in _REACTION_NAMES)


MAX_BYTES_PER_PROCESS = 256 << 20
"""Bytes of the log that one process holds in memory; a larger share is read in several passes."""
EXPLAINED_EFFECTS = (actions.Send, actions.Preload, actions.Suppress, messages.Message)
"""Decisions whose variant and playbook version the page of one person shows."""
RECORDS_PER_PROCESS = 50_000
"""Records per process: starting a process costs as much as about 10,000 records."""


def run_backtest(
    settings: Settings, options: BacktestOptions, progress: ProgressCallback = lambda *_: None
) -> BacktestReport:
    """Backtest a playbook on the log. Raise ValueError, LogError or PlaybookError if that is impossible."""
    rules, plan, survey = make_plan(settings, options, progress)
    jobs = options.processes or min(os.cpu_count() or 1, 1 + survey.record_count // RECORDS_PER_PROCESS)
    plan = plan._replace(share_count=jobs * max(1, -(-survey.byte_count // (jobs * MAX_BYTES_PER_PROCESS))))
    result = (
        _run_processes(plan, jobs, survey.record_count, progress)
        if jobs > 1
        else _run_single_process(plan, survey.record_count, progress)
    )
    return BacktestReport(header=_header(options, rules, plan), result=result)


def backtest_person(
    settings: Settings, options: BacktestOptions, person: str, progress: ProgressCallback = lambda *_: None
) -> str:
    """Backtest one person and return the timeline as text. Raise ValueError if the id is unknown."""
    names = (
        [person]
        if person[:2] in ("u:", "a:")
        else [key for key in (person_key(person, None), person_key(None, person)) if key]
    )
    rules, plan, survey = make_plan(settings, options, progress, names)
    cluster_ids = sorted({survey.clusters.find(name) for name in names if name in survey.found_ids})
    if not cluster_ids:
        raise ValueError(f"{person}: no person with this id has events in this period")
    run = _new_run(plan, rules, include_events=True)
    lines: list[str] = []
    zone = rules.shop.timezone
    for name, cluster in _clusters(plan, run, lambda cluster_id: cluster_id in cluster_ids):
        entries, simulation = run.run(name, cluster, survey.clusters.is_singleton(name))
        lines += format_timeline([entry for entry in entries if entry.at in run.period], rules, options.campaign)
        lines += ["", "At the end"]
        explanations = {
            entry.effect.id: entry.effect.because for entry in entries if isinstance(entry.effect, EXPLAINED_EFFECTS)
        }
        lines += [
            explain(known, rules.shop.currency, options.campaign, rules, plan.end - 1, zone, explanations)
            for key, known in sorted(simulation.people().items())
            if not known.merged_into and key[:2] in ("u:", "a:")
        ]
    return "\n".join(lines)


def backtest_effects(settings: Settings, options: BacktestOptions) -> Iterator[Effect]:
    """Yield every effect of a backtest, cluster by cluster."""
    rules, plan, survey = make_plan(settings, options, lambda *_: None)
    run = _new_run(plan, rules)
    for name, cluster in _clusters(plan, run, lambda _: True):
        entries, _ = run.run(name, cluster, survey.clusters.is_singleton(name))
        yield from (entry.effect for entry in entries if entry.effect is not None)


def _header(options: BacktestOptions, rules: Rules, plan: BacktestPlan) -> ReportHeader:
    return ReportHeader(
        playbook=options.folder,
        version=rules.short_hash,
        start=plan.start,
        end=plan.end,
        timezone=rules.shop.timezone,
        currency=rules.shop.currency,
        model="recorded" if plan.recorded_models is not None else plan.model_hashes or "none",
        models=tuple(sorted(plan.models_by_hash)),
        reactions="recorded" if plan.as_recorded else "assumed",
        backfilled=not plan.cold,
        campaigns=tuple(sorted(rules.campaigns)),
        segments=tuple(segment.name for segment in rules.playbook.segments),
        workflows=tuple(workflow.name for workflow in rules.playbook.workflows),
        trigger_paths=trigger_paths(rules),
        value_properties={
            one.name: one.goal.value for one in rules.playbook.campaigns if one.goal is not None and one.goal.value
        },
    )


# -- running -------------------------------------------------------------------------------------------------------


def _new_run(plan: BacktestPlan, rules: Rules, include_events: bool = False) -> BacktestRun:
    decoded = {name: models.decode_model(source) for name, source in plan.models_by_hash.items()}
    history = plan.recorded_models

    @lru_cache(None)
    def live_models(hashes: str) -> LiveModels:
        model, quintiles = models.split_hashes(hashes)
        return LiveModels(decoded.get(model), decoded.get(quintiles))

    def models_at(partition: int, time: int) -> LiveModels:
        return live_models(plan.model_hashes if history is None else history.at_time(partition, time))

    period = Period(plan.start, plan.end, rules.shop.timezone)
    reach = ReachAnalysis(rules, period)
    before = STEPS.index(select_campaigns.step)
    run = BacktestRun(
        (*STEPS[:before], reach.step, *STEPS[before:]),
        rules,
        plan.settings.partitions,
        period,
        models_at,
        not plan.as_recorded,
        include_events=include_events,
    )
    run.reach = reach
    run.models_for = lambda record: live_models(
        plan.model_hashes if history is None else history.for_record(record.stream, record.partition, record.offset)
    )
    return run


def _clusters(
    plan: BacktestPlan, run: BacktestRun, is_included: Callable[[str], bool]
) -> Iterator[tuple[str, ClusterHistory]]:
    """Yield the included clusters with their histories, by name."""
    identities = IdentityClusters(plan.cluster_parents)
    clusters: dict[str, ClusterHistory] = {}
    namer = MessageNamer()
    for record, clock in _ordered_records(plan, run):
        key, _ = ids_in_record(record)
        name = identities.find(key)
        if not is_included(name):
            continue
        if record.stream == SHARD_MESSAGES and not key:  # leases of coupon codes are requested again
            continue
        cluster = clusters.get(name)
        if cluster is None:
            cluster = clusters[name] = ClusterHistory()
        message = ""
        if record.stream == SHARD_MESSAGES:
            message = namer.name_of(record.value)
            if not message:
                continue  # a duplicate
        else:
            _add_activity(cluster, key, record, run)
        cluster.items.append(scheduled_record(record, run.models_for(record), clock, message))
    for effect in _live_effects(plan):
        name = identities.find(effect.person)
        if name in clusters:
            clusters[name].live_effects.append(effect)
    for name in sorted(clusters):
        yield name, clusters.pop(name)


def _ordered_records(plan: BacktestPlan, run: BacktestRun) -> Iterator[tuple[Record, int]]:
    """Yield (record, clock): in log order with clock 0, or in the order and with the clocks of the live shards."""
    streams = (*PUBLIC_STREAMS, SHARD_MESSAGES) if plan.as_recorded else PUBLIC_STREAMS
    records = (
        record
        for record in read_history(plan.settings, streams, plan.end)
        if not plan.cold or record.log_time >= plan.start
    )
    if not plan.as_recorded:
        for record in records:
            yield record, 0
        return
    by_partition: dict[int, dict[StreamPartition, list[Record]]] = {}
    for record in records:
        by_partition.setdefault(record.partition, {}).setdefault((record.stream, record.partition), []).append(record)
    batches: dict[int, list[BatchRecord]] = {}
    for batch in read_batch_records(plan.settings):
        batches.setdefault(batch.partition, []).append(batch)
    run.end_clocks = {}
    for partition in sorted(batches):
        ordered, run.end_clocks[partition] = recorded_order(batches[partition], by_partition.get(partition, {}))
        yield from ordered


def _add_activity(cluster: ClusterHistory, key: str, record: Record, run: BacktestRun) -> None:
    """Note ids that are active in the period, and live decisions that were shown."""
    if not may_be_reaction(record.value):
        if record.log_time in run.period:
            cluster.active_ids.add(key)
    else:
        try:
            event = events.decode(record.value)
        except DECODE_ERRORS:
            return
        if isinstance(event, events.Track) and event.event in SHOWN_EVENTS:
            cluster.live_shown.update(
                (value, key)
                for name in ("action_id", "message_id")
                if isinstance(value := event.properties.get(name), str)
            )


def _live_effects(plan: BacktestPlan) -> Iterator[actions.Action | messages.Message]:
    """Yield the live actions and messages of the log."""
    for record in read_history(plan.settings, (ACTIONS, MESSAGES), MAX_TIME):
        try:
            yield (
                actions.decode_action(record.value)
                if record.stream == ACTIONS
                else messages.decode_message(record.value)
            )
        except DECODE_ERRORS:
            continue  # written by another version


def _run_share(plan: BacktestPlan, share: int, on_progress: Callable[[int], None]) -> BacktestResult:
    """Run one share of the clusters."""
    rules = rules_from_source(plan.playbook_source)
    run = _new_run(plan, rules)
    identities, names = IdentityClusters(plan.cluster_parents), rules.campaigns.keys()
    total = Totals()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)  # people hold no reference cycles: collect rarely
    for name, cluster in _clusters(plan, run, lambda name: crc32(name.encode()) % plan.share_count == share):
        count = len(cluster.items)
        backfill = sum([item.record.log_time < plan.start for item in cluster.items])
        total.add(run.run_and_count(name, cluster, identities.is_singleton(name), names))
        total.add(BacktestResult(events=count - backfill, backfill_events=backfill))
        on_progress(count)
    dead_letters = {reason: n for (kind, reason), n in sorted(run.counts.effects.items()) if kind == "dead_letter"}
    total.add(
        BacktestResult(
            dead_letters=dead_letters, timers=run.counts.events["timer_fired"], skipped_reactions=run.reactions.skipped
        )
    )
    return total.result()


def _run_single_process(plan: BacktestPlan, records: int, progress: ProgressCallback) -> BacktestResult:
    """Run all shares in this process."""
    total, done_count = Totals(), 0

    def done(count: int) -> None:
        nonlocal done_count
        done_count += count
        progress("running", done_count, records)

    for share in range(plan.share_count):
        total.add(_run_share(plan, share, done))
    return total.result()


_progress_counter: Any = None


def _init_process(counter: "Synchronized[int]") -> None:
    global _progress_counter
    _progress_counter = counter


def _run_share_in_process(plan: BacktestPlan, share: int) -> BacktestResult:
    def done(count: int) -> None:
        with _progress_counter.get_lock():
            _progress_counter.value += count

    return _run_share(plan, share, done)


def _run_processes(plan: BacktestPlan, process_count: int, records: int, progress: ProgressCallback) -> BacktestResult:
    """Run all shares in several processes."""
    spawn = multiprocessing.get_context("spawn")
    counter = spawn.Value("q", 0)
    with ProcessPoolExecutor(process_count, mp_context=spawn, initializer=_init_process, initargs=(counter,)) as pool:
        shares = [pool.submit(_run_share_in_process, plan, share) for share in range(plan.share_count)]
        waiting = set(shares)
        while waiting:
            _, waiting = wait(waiting, timeout=0.1)
            progress("running", counter.value, records)
        total = Totals()
        for share in shares:
            total.add(share.result())
    return total.result()
