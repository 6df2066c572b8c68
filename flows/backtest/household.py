"""The backtest of one identity cluster: its records from the log, and the live decisions about it."""

from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec

from domain.action import Effect
from domain.record import SHARD_INPUT_STREAMS, Record, partition_of
from flows.backtest.counts import BacktestCounter, BacktestResult, Period
from flows.backtest.reach import ReachAnalysis
from flows.simulation.reactions import ReactionSimulator, TimelineEntry
from flows.simulation.virtual_time import ClusterSimulation, LiveModels, ScheduledRecord
from state.context import StepFunction
from state.person.model import routing_key
from state.playbook.compiled import Rules
from state.shard.counts import ShardCounts

_STREAM_RANK = {stream: n for n, stream in enumerate(SHARD_INPUT_STREAMS)}


class ClusterHistory:
    """The input of one cluster.

    items: records in read order; active_ids: ids with events in the period; live_effects: live decisions; live_shown:
    the person who saw a live decision, by its id.
    """

    __slots__ = ("active_ids", "items", "live_effects", "live_shown")

    def __init__(self) -> None:
        self.items: list[ScheduledRecord] = []
        self.active_ids: set[str] = set()
        self.live_effects: list[Effect] = []
        self.live_shown: dict[str, str] = {}


class BacktestRun:
    """Runs clusters under one playbook.

    With `end_clocks` (the last clocks of the live shards), records are replayed in the order of the live shards;
    without, in time order.
    """

    def __init__(
        self,
        steps: Sequence[StepFunction],
        rules: Rules,
        partitions: int,
        period: Period,
        models_at: Callable[[int, int], LiveModels],
        assumed: bool = True,
        end_clocks: Mapping[int, int] | None = None,
        include_events: bool = False,
    ) -> None:
        self.rules, self.partitions, self.period = rules, partitions, period
        self.models_at, self.end_clocks = models_at, end_clocks
        self.reactions = ReactionSimulator(steps, assumed, include_events)
        self.models_for: Callable[[Record], LiveModels] = lambda record: models_at(record.partition, record.log_time)
        self.counts = ShardCounts()
        self.reach: ReachAnalysis | None = None
        """Analyzes the reach of each campaign, if its step is one of `steps`."""

    def run(
        self, cluster_id: str, cluster: ClusterHistory, isolated: bool
    ) -> tuple[list[TimelineEntry], ClusterSimulation]:
        """Run a cluster; return the timeline entries and the simulation with the final people."""
        self.reactions.reset()
        if self.reach is not None:
            self.reach.reset()
        simulation = ClusterSimulation(
            self.reactions, self.rules, self.partitions, self.models_at, self.counts, stocked=True
        )
        items, last = cluster.items, self.period.end - 1
        if self.end_clocks is not None:
            by_partition: dict[int, list[ScheduledRecord]] = {}
            for item in items:
                by_partition.setdefault(item.record.partition, []).append(item)
            simulation.replay(by_partition, {partition: min(last, end) for partition, end in self.end_clocks.items()})
        else:
            items.sort(key=lambda item: (item.record.log_time, _STREAM_RANK[item.record.stream], item.record.offset))
            home = partition_of(routing_key(cluster_id), self.partitions)
            simulation.run(items, last, isolated and all(item.record.partition == home for item in items))
        return self.reactions.entries, simulation

    def run_and_count(
        self, cluster_id: str, cluster: ClusterHistory, isolated: bool, campaigns: Collection[str]
    ) -> BacktestResult:
        """Run a cluster and count its entries."""
        entries, simulation = self.run(cluster_id, cluster, isolated)
        people = simulation.people()
        counter = BacktestCounter(people, self.period, campaigns)
        counter.add(entries)
        counter.add_live(cluster.live_effects, cluster.live_shown)
        result = counter.result(cluster.active_ids)
        if self.reach is None:
            return result
        reach = self.reach.result(people)
        return msgspec.structs.replace(result, eligibility=reach.eligibility, failed_conditions=reach.failed_conditions)


def scheduled_record(record: Record, models: LiveModels, clock: int = 0, message: str = "") -> ScheduledRecord:
    """Schedule a record; without a recorded clock it runs at its log time."""
    return ScheduledRecord(record, clock or record.log_time, models, message)
