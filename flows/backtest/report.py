"""The report of a backtest, as text for a terminal and as a JSON file. It contains counts, but no ids of people.

For a campaign that reached no one, the report says what prevented it most often: its trigger never occurred, its
conditions were false, or it was suppressed.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from domain.duration import format_times, pluralize
from domain.money import to_major
from domain.playbook.campaign import AMOUNT_PROPERTIES
from domain.playbook.schema import SUPPRESSION_REASONS
from flows.backtest.counts import (
    MANY_CONTACTS,
    PRESSURE_REASONS,
    BacktestReport,
    BacktestResult,
    CampaignReach,
    Counts,
    Eligibility,
    GoalCounts,
    TriggerPaths,
    encode_report,
)

MAX_SEGMENT_DEPTH = 4
"""Longest chain of segments to explain, where each requires the next."""
_MEMBER_OF = "is in "


def most_frequent(failed: Counts) -> tuple[str, int]:
    """Return the condition that failed most often, and how often; of several the first by name.

    >>> most_frequent({"is in CA": 3, "first session": 7, "a": 7})
    ('a', 7)
    """
    return min(failed.items(), key=lambda item: (-item[1], item[0])) if failed else ("", 0)


def reach_summary(eligibility: Eligibility, reach: CampaignReach, preloads: bool) -> str:
    """Summarize a campaign from trigger to contact in one line.

    >>> reach_summary(Eligibility(30, 12), CampaignReach(suppressed={}), False)
    '30 triggered, 12 eligible, 0 suppressed, 0 reached'
    """
    suppressed = sum(suppression.times for suppression in reach.suppressed.values())
    preloaded = f", {reach.preloaded:,} preloaded" if preloads else ""
    return (
        f"{eligibility.triggered:,} triggered, {eligibility.eligible:,} eligible{preloaded}, "
        f"{suppressed:,} suppressed, "
        f"{_message_count(reach):,} reached"
    )


def why_unreached(campaign: str, report: BacktestReport) -> str:
    """Explain why a campaign reached no one; empty if it was not analyzed."""
    result, paths = report.result, report.header.trigger_paths.get(campaign)
    if paths is None:
        return ""
    eligibility = result.eligibility.get(campaign, Eligibility())
    reach = result.campaigns.get(campaign) or CampaignReach()
    triggered = f"triggered {format_times(eligibility.triggered)}"
    if not eligibility.triggered:
        return "; ".join(_why_not_triggered(paths, result))
    if not eligibility.eligible:
        condition, n = most_frequent(eligibility.failed_conditions)
        return f"{triggered}, never eligible; the condition that failed most often: {condition} ({format_times(n)})"
    if reach.suppressed:
        reason, most = min(reach.suppressed.items(), key=lambda item: (-item[1].times, item[0]))
        return f"eligible {format_times(eligibility.eligible)}, suppressed {format_times(most.times)}: {reason}"
    if reach.preloaded:
        return f"preloaded {format_times(reach.preloaded)}, but no exit intent followed"
    return f"{triggered}, eligible {format_times(eligibility.eligible)}, but another campaign was chosen"


def _why_not_triggered(trigger_paths: TriggerPaths, result: BacktestResult) -> Iterator[str]:
    """Explain why a campaign was never triggered."""
    for name in trigger_paths.workflows:
        entered = result.workflows.get(name, {}).get("entered", 0)
        yield (
            f"{pluralize(entered, 'run')} of the workflow {name} started, but none reached this campaign"
            if entered
            else f"no one entered the workflow {name}"
        )
        if entered:
            return
    if not trigger_paths.workflows:
        yield f"never triggered: {trigger_paths.trigger}"
    elif trigger_paths.events:
        yield "no eligible person had the entry events: " + ", ".join(trigger_paths.events)
    for segment in trigger_paths.segments:
        yield from _entry_blockers(segment, result)


def _entry_blockers(segment: str, result: BacktestResult) -> Iterator[str]:
    """Explain what kept people out of a segment, and of the segments that it requires."""
    for _ in range(MAX_SEGMENT_DEPTH):
        condition, people = most_frequent(result.failed_conditions.get(segment, {}))
        if not condition:
            return
        count = pluralize(people, "person", "people")
        yield f"the condition of {segment} that failed most often: {condition} ({count})"
        segment = condition.removeprefix(_MEMBER_OF)
        if segment == condition:
            return


_RFM_CELL = re.compile(r"rfm_\d{3}")
MAX_DAILY_ROWS = 45
"""Most rows by day; a longer period is shown by month."""
MAX_FAILED_CONDITIONS = 3
"""Failed conditions that are shown for one campaign."""
MAX_NAMES = 5
"""Names that are shown in a list; the JSON file has all."""


def format_report(report: BacktestReport, campaign: str = "") -> str:
    """Format the report as text; with `campaign`, only its part."""
    result = report.result
    lines = [*_heading(report), ""]
    if not campaign:
        lines += _summary(report)
        lines += _section("By day", _by_day(result))
        lines += _section("Campaigns", _campaigns(report))
    for name in (
        [campaign] if campaign else sorted(result.campaigns, key=lambda name: (-result.campaigns[name].people, name))
    ):
        lines += _section(name, _campaign(name, report))
    if not campaign:
        lines += _section("Campaigns that reached no one", _unreached(report))
        lines += _section("Segments", _segments(report))
        lines += _section("Workflows", _workflows(report))
        lines += _section("Unused", _unused(report))
        lines += _section("Coupons", ([name, *_top_counts(counts)] for name, counts in sorted(result.coupons.items())))
        lines += _section("Dead letters", ([f"{n:,}", kind] for kind, n in sorted(result.dead_letters.items())))
    return "\n".join(lines).rstrip()


def write_json(report: BacktestReport, path: str) -> None:
    """Write the report as canonical JSON, atomically. Raise ValueError if that fails."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        temporary.write_bytes(encode_report(report) + b"\n")
        os.replace(temporary, target)
    except OSError as error:
        raise ValueError(f"--json {path}: {error.strerror}") from error


def for_campaign(report: BacktestReport, campaign: str) -> BacktestReport:
    """The report with the counts of one campaign only."""
    campaigns = {name: reach for name, reach in report.result.campaigns.items() if name == campaign}
    eligibility = {name: counts for name, counts in report.result.eligibility.items() if name == campaign}
    return msgspec.structs.replace(
        report, result=msgspec.structs.replace(report.result, campaigns=campaigns, eligibility=eligibility)
    )


def format_minute(at: int, timezone: str) -> str:
    """Format a time in the shop's time zone.

    >>> format_minute(1_569_888_000_000, "Europe/Rome")
    '2019-10-01 02:00'
    """
    return datetime.fromtimestamp(at / 1000, ZoneInfo(timezone)).strftime("%Y-%m-%d %H:%M")


class BacktestProgress:
    """Progress bars on standard error, one per phase; none without a terminal."""

    def __init__(self) -> None:
        from rich.console import Console

        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._tasks: dict[str, Callable[[int, int], None]] = {}

    def __enter__(self) -> "BacktestProgress":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, phase: str, done: int, total: int) -> None:
        if phase not in self._tasks:
            task = self._progress.add_task(phase, total=total or None)
            self._tasks[phase] = lambda done, total: self._progress.update(task, completed=done, total=total or None)
        self._tasks[phase](done, total)


# -- parts ---------------------------------------------------------------------------------------------------------


def _heading(report: BacktestReport) -> Iterator[str]:
    header, result = report.header, report.result
    yield (
        f"Backtest of {header.playbook} (playbook {header.version}), {format_minute(header.start, header.timezone)} to "
        f"{format_minute(header.end, header.timezone)} {header.timezone}"
    )
    before = f"{result.backfill_events:,} earlier events as backfill" if header.backfilled else "no backfill (--cold)"
    model = {"none": "no model", "recorded": f"the models that were live ({len(header.models)})"}.get(
        header.model, f"model {header.model[:12]}"
    )
    yield f"{result.events:,} events of {_people_text(result.people)}, {before}; {model}"
    if header.reactions == "assumed":
        yield "Assumption: everything sent is seen at once, and people behave as recorded. No messages were sent."
    else:
        yield "Reactions are those recorded for the playbook that was live. No messages were sent."


def _summary(report: BacktestReport) -> Iterator[str]:
    result = report.result
    unreached = sum(not (result.campaigns.get(name) or CampaignReach()).people for name in report.header.campaigns)
    yield "Summary"
    yield (
        f"  {result.reached:,} of {_people_text(result.population)} "
        f"({_percent(result.reached, result.population)}) reached, {pluralize(result.contacts, 'contact')} in total"
    )
    if inactive := result.population - result.people:
        yield f"  {_people_text(inactive)} of these had no events in this period; only those with a contact count here"
    if result.people_by_contacts:
        distribution = ", ".join(
            f"{_times_label(int(n))} {people:,}"
            for n, people in sorted(result.people_by_contacts.items(), key=lambda item: int(item[0]))
        )
        yield f"  People by number of contacts: {distribution}"
    contacts, in_one_day, campaigns = result.most_contacted
    if contacts > 1:
        names = ", ".join(f"{name} {n}x" if n > 1 else name for name, n in campaigns[:MAX_NAMES])
        yield f"  Most contacts of one person: {contacts}, {in_one_day} of them in one day: {names}"
    if result.pressured_people:
        share = _percent(result.pressured_people, result.population)
        yield f"  Contact pressure exceeded for {_people_text(result.pressured_people)} ({share}):"
        for reason, people in sorted(result.pressured.items(), key=lambda item: (-item[1], item[0])):
            yield f"    {people:,}  {PRESSURE_REASONS[reason].format(many=MANY_CONTACTS)}"
    else:
        yield (
            f"  Contact pressure exceeded for no one (shop-wide caps, {MANY_CONTACTS} contacts in one day, "
            "contacts after a dismissed offer)"
        )
    if unreached:
        yield f"  {unreached} of {len(report.header.campaigns)} campaigns reached no one (reasons below)"
    if result.live_decisions:
        yield (
            f"  Live in the same period: {_people_text(result.live_reached)} reached, "
            f"{pluralize(result.live_contacts, 'contact')} (decided; the table below shows how many were seen)"
        )
    else:
        yield "  No live decisions are recorded for this period, so there is no comparison"
    yield ""


def _by_day(result: BacktestResult) -> Iterator[list[str]]:
    days: dict[str, Counter[str]] = {}
    for reach in result.campaigns.values():
        for channel, per_day in reach.per_day.items():
            days.setdefault(channel, Counter()).update(per_day)
    rows = sorted({day for counts in days.values() for day in counts})
    if not rows:
        return
    if len(rows) > MAX_DAILY_ROWS:
        for counts in days.values():
            for day in list(counts):
                counts[day[:7]] += counts.pop(day)
        rows = sorted({day for counts in days.values() for day in counts})
    yield ["", *(f">{channel}" for channel in sorted(days)), ">all"]
    for day in rows:
        numbers = [days[channel][day] for channel in sorted(days)]
        yield [day, *(f"{n:,}" if n else "." for n in numbers), f"{sum(numbers):,}"]


def _campaigns(report: BacktestReport) -> Iterator[list[str]]:
    result = report.result
    if not result.campaigns:
        return
    with_live = result.live_decisions > 0
    compared: tuple[str, ...] = (">live", ">seen live", ">new", ">live only") if with_live else ()
    yield ["", ">people", ">share", ">contacts", ">suppressed", *compared]
    for name, reach in sorted(result.campaigns.items(), key=lambda item: (-item[1].people, item[0])):
        live = reach.live
        if with_live:
            compared = (f"{live.people:,}", f"{live.shown_people:,}", f"{live.backtest_only:,}", f"{live.live_only:,}")
        yield [
            name,
            f"{reach.people:,}",
            _percent(reach.people, result.population),
            f"{_message_count(reach):,}",
            f"{sum(suppression.times for suppression in reach.suppressed.values()):,}",
            *compared,
        ]


def _campaign(campaign: str, report: BacktestReport) -> Iterator[list[str]]:
    result, reach = report.result, report.result.campaigns.get(campaign) or CampaignReach()
    channels = [f"{channel} {sum(days.values()):,}" for channel, days in sorted(reach.per_day.items())]
    yield [
        "reached",
        f"{_people_text(reach.people)} ({_percent(reach.people, result.population)})"
        + (f", {pluralize(_message_count(reach), 'contact')}: {', '.join(channels)}" if channels else ""),
    ]
    eligibility = result.eligibility.get(campaign)
    if eligibility is not None:
        yield ["trigger", reach_summary(eligibility, reach, reach.preloaded > 0)]
        failed = sorted(eligibility.failed_conditions.items(), key=lambda item: (-item[1], item[0]))
        for condition, n in failed[:MAX_FAILED_CONDITIONS]:
            yield ["failed", f"{_times_text(n)}: {condition}"]
    if not reach.people and (why := why_unreached(campaign, report)):
        yield ["no one", why]
    if len(reach.variants) > 1:
        yield ["variants", ", ".join(_top_counts(reach.variants))]
    if reach.preloaded:
        yield [
            "preloaded",
            f"{_times_text(reach.preloaded)} for {_people_text(reach.preloaded_people)}, to show on exit intent",
        ]
    for reason, suppression in sorted(reach.suppressed.items(), key=lambda item: (-item[1].times, item[0])):
        meaning = SUPPRESSION_REASONS.get(reason) or SUPPRESSION_REASONS.get(f"{reason.split(' ')[0]} …", "")
        label = f"{reason} ({meaning})" if meaning else reason
        yield ["suppressed", f"{_times_text(suppression.times)}, {_people_text(suppression.people)}: {label}"]
    if reach.lost_to:
        yield ["lost to", ", ".join(_top_counts(reach.lost_to)) + " (same placement at the same time)"]
    if reach.cancelled:
        yield ["cancelled", f"{_times_text(reach.cancelled)} before it was shown"]
    if reach.overlap:
        yield ["also received", ", ".join(_top_counts(reach.overlap)) + " (people reached by both)"]
    if reach.clicked or reach.dismissed:
        yield ["recorded", f"{reach.clicked:,} clicks, {reach.dismissed:,} dismissals of the same live decisions"]
    for variant, goals in sorted(reach.goals.items()):
        yield [
            f"goal {variant}".rstrip(),
            _goals(goals, report.header.value_properties.get(campaign, ""), report.header.currency),
        ]
    if result.live_decisions:
        live = reach.live
        yield [
            "live",
            f"{_people_text(live.people)}, {_times_text(live.times)}, {live.shown_people:,} saw it; "
            f"{live.in_both:,} reached in both, {live.backtest_only:,} only in the backtest, "
            f"{live.live_only:,} only live",
        ]


def _goals(goals: GoalCounts, value: str, currency: str) -> str:
    total, amount = goals.reached + goals.missed + goals.pending, ""
    if goals.value:
        amount = ", value " + (
            f"{to_major(goals.value // 100, currency)} {currency}"
            if value in AMOUNT_PROPERTIES
            else f"{goals.value / 100:.10g} ({value})"
        )
    pending = f", {goals.pending:,} pending at the end" if goals.pending else ""
    return f"reached {goals.reached:,} of {total:,} ({_percent(goals.reached, total)}){amount}{pending}"


def _segments(report: BacktestReport) -> Iterator[list[str]]:
    found = report.result.segments
    if not found:
        return
    yield ["", ">entered", ">people", ">exited", ">size"]
    cells = [name for name in found if _RFM_CELL.fullmatch(name)]
    for name, counts in sorted(found.items()):
        if name not in cells:
            yield [name, f"{counts.entered:,}", f"{counts.unique_entered:,}", f"{counts.exited:,}", f"{counts.size:,}"]
    if cells:
        yield [
            f"{len(cells)} RFM cells",
            *(
                f"{sum(getattr(found[name], field) for name in cells):,}"
                for field in ("entered", "unique_entered", "exited", "size")
            ),
        ]


def _workflows(report: BacktestReport) -> Iterator[list[str]]:
    for name, counts in sorted(report.result.workflows.items()):
        steps = {name: n for name, n in counts.items() if " " in name}
        totals = [
            f"{counts[key]:,} {label}"
            for key, label in (
                ("entered", "entered"),
                ("finished", "finished"),
                ("exited", "exited early"),
                ("active", "still active"),
            )
            if counts.get(key)
        ]
        yield [name, ", ".join(totals)]
        if steps:
            yield ["", ", ".join(_top_counts(steps, len(steps)))]


def _unreached(report: BacktestReport) -> Iterator[list[str]]:
    for name in sorted(report.header.campaigns):
        if not (report.result.campaigns.get(name) or CampaignReach()).people:
            yield [
                name,
                why_unreached(name, report) or "not analyzed: the playbook has too many campaigns and segments",
            ]


def _unused(report: BacktestReport) -> Iterator[list[str]]:
    header, result = report.header, report.result
    for label, names in (
        ("segments", [name for name in header.segments if name not in result.segments]),
        ("workflows", [name for name in header.workflows if name not in result.workflows]),
    ):
        if names:
            yield [label, ", ".join(sorted(names))]


def _message_count(reach: CampaignReach) -> int:
    return sum(sum(days.values()) for days in reach.per_day.values())


def _people_text(count: int) -> str:
    return "1 person" if count == 1 else f"{count:,} people"


def _percent(count: int, total: int) -> str:
    """Format a share in percent with two or more significant digits.

    >>> _percent(1, 3), _percent(1, 4504), _percent(0, 0)
    ('33 %', '0.022 %', '-')
    """
    if not total:
        return "-"
    percent = 100 * count / total
    if percent >= 10 or not count:
        return f"{percent:.0f} %"
    return f"{percent:.1f} %" if percent >= 0.1 else f"{percent:.2g} %"


def _times_text(count: int) -> str:
    return "once" if count == 1 else "twice" if count == 2 else f"{count:,} times"


def _times_label(count: int) -> str:
    return (
        "once:" if count == 1 else "twice:" if count == 2 else "10 times or more:" if count == 10 else f"{count} times:"
    )


def _top_counts(counts: Counts, limit: int = MAX_NAMES) -> list[str]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    items = [f"{name or 'default'} {n:,}" for name, n in ordered[:limit]]
    return [*items, f"and {len(ordered) - limit} more"] if len(ordered) > limit else items


def _section(title: str, rows: Iterator[Sequence[str]] | Iterator[list[str]]) -> list[str]:
    """Format a title and aligned rows; a header cell that starts with ">" makes its column right-aligned."""
    table = [list(row) for row in rows]
    if not table:
        return []
    right = [cell.startswith(">") for cell in table[0]]
    table[0] = [cell.removeprefix(">") for cell in table[0]]
    if any(right):
        table[0][0] = title
    columns = max(map(len, table))
    widths = [max((len(row[n]) for row in table if n < len(row) - (not any(right))), default=0) for n in range(columns)]
    lines = [] if any(right) else [title]
    for number, row in enumerate(table):
        indent = "" if any(right) and not number else "  "
        cells = [
            cell.rjust(widths[n])
            if n < len(right) and right[n]
            else cell.ljust(widths[n] + 2 * (not indent) * (n == 0))
            for n, cell in enumerate(row)
        ]
        lines.append((indent + "  ".join(cells)).rstrip())
    return [*lines, ""]
