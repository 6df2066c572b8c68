"""The report of a rehearsal: as text for a terminal, the top facts first, and as a file of JSON.

Counts only: nobody is named in it.
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

from connectors.rehearsal_reasons import because, way
from domain.amounts import some
from domain.campaign import AMOUNTS
from domain.money import to_major
from domain.reference import REASONS
from domain.rehearsal import ANNOYED, MANY, Counts, Found, Goals, Report, Told, encode

_CELL = re.compile(r"rfm_\d{3}")
DAYS = 45
"""Days that are shown one by one; of more, the months."""
FAILED = 3
"""Statements that failed most often which are shown of one campaign."""
MOST = 5
"""Names of a list that are shown; the others are counted, and in the JSON."""


def text(report: Report, only: str = "") -> str:
    """The report as lines; with `only`, of one campaign."""
    found = report.found
    lines = [*_head(report), ""]
    if not only:
        lines += _short(report)
        lines += _block("By day", _by_day(found))
        lines += _block("Campaigns", _campaigns(report))
    for name in [only] if only else sorted(found.campaigns, key=lambda name: (-found.campaigns[name].people, name)):
        lines += _block(name, _campaign(name, report))
    if not only:
        lines += _block("Told to nobody, and why", _silent(report))
        lines += _block("Segments", _segments(report))
        lines += _block("Workflows", _workflows(report))
        lines += _block("Nobody", _nobody(report))
        lines += _block("Coupons", ([name, *_list(counts)] for name, counts in sorted(found.coupons.items())))
        lines += _block("Set aside", ([f"{n:,}", kind] for kind, n in sorted(found.rejects.items())))
    return "\n".join(lines).rstrip()


def write(report: Report, path: str) -> None:
    """Write the report as canonical JSON, whole or not at all; ValueError when it cannot be written."""
    target = Path(path)
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        beside.write_bytes(encode(report) + b"\n")
        os.replace(beside, target)
    except OSError as wrong:
        raise ValueError(f"--json {path}: {wrong.strerror}") from wrong


def narrowed(report: Report, only: str) -> Report:
    """The same with the numbers of one campaign."""
    kept = {name: told for name, told in report.found.campaigns.items() if name == only}
    chances = {name: chance for name, chance in report.found.chances.items() if name == only}
    return msgspec.structs.replace(report, found=msgspec.structs.replace(
        report.found, campaigns=kept, chances=chances))


def moment(at: int, timezone: str) -> str:
    """A time as the shop reads it.

    >>> moment(1_569_888_000_000, "Europe/Rome")
    '2019-10-01 02:00'
    """
    return datetime.fromtimestamp(at / 1000, ZoneInfo(timezone)).strftime("%Y-%m-%d %H:%M")


class Bar:
    """Progress on standard error: one bar for reading, one for rehearsing; nothing where there is no terminal."""

    def __init__(self) -> None:
        from rich.console import Console

        console = Console(stderr=True)
        self._bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
                             TimeElapsedColumn(), console=console, disable=not console.is_terminal, transient=True)
        self._tasks: dict[str, Callable[[int, int], None]] = {}

    def __enter__(self) -> "Bar":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        if what not in self._tasks:
            task = self._bar.add_task(what, total=total or None)
            self._tasks[what] = lambda done, total: self._bar.update(task, completed=done, total=total or None)
        self._tasks[what](done, total)


# -- parts ---------------------------------------------------------------------------------------------------------


def _head(report: Report) -> Iterator[str]:
    about, found = report.about, report.found
    yield (f"Rehearsal of {about.playbook} (playbook {about.version}), {moment(about.begin, about.timezone)} to "
           f"{moment(about.end, about.timezone)} {about.timezone}")
    before = f"{found.warm_up:,} before as a warm-up" if about.warm else "nothing before (--cold)"
    model = {"none": "no model", "recorded": f"the models that were live ({len(about.models)})"}.get(
        about.model, f"model {about.model[:12]}")
    yield f"{found.events:,} events of {_people(found.people)}, {before}; {model}"
    if about.reactions == "assumed":
        yield "Assumed: what is sent is seen at once, and people do what they did. Nothing was sent to anybody."
    else:
        yield "As recorded: people reacted to what was live then. Nothing was sent to anybody."


def _short(report: Report) -> Iterator[str]:
    found = report.found
    silent = sum(not (found.campaigns.get(name) or Told()).people for name in report.about.campaigns)
    yield "In short"
    yield (f"  {found.reached:,} of {_people(found.everybody)} ({_share(found.reached, found.everybody)}) would be "
           f"told something, {_so_often(found.things)} in all")
    if away := found.everybody - found.people:
        yield (f"  {_people(away)} of these did nothing in this time (of those who did nothing, only who would be told "
               "something counts here)")
    if found.by_things:
        told = ", ".join(f"{_often(int(n))} {people:,}" for n, people in sorted(
            found.by_things.items(), key=lambda item: int(item[0])))
        yield f"  How many people how often: {told}"
    things, in_a_day, which = found.busiest
    if things > 1:
        names = ", ".join(f"{name} {n}x" if n > 1 else name for name, n in which[:MOST])
        yield f"  The busiest person is told {things} things, {in_a_day} of them in one day: {names}"
    if found.annoyed_people:
        yield f"  {_people(found.annoyed_people)} ({_share(found.annoyed_people, found.everybody)}) would be annoyed:"
        for why, people in sorted(found.annoyed.items(), key=lambda item: (-item[1], item[0])):
            yield f"    {people:,}  {ANNOYED[why].format(many=MANY)}"
    else:
        yield (f"  Nobody would be annoyed (nobody came to a limit of everything together, was told {MANY} things in "
               "one day (slots, webhooks and files apart), or was told something after closing an offer)")
    if silent:
        yield f"  {silent} of {len(report.about.campaigns)} campaigns are told to nobody (below, and why)"
    if found.decided_live:
        were = "was" if found.live_reached == 1 else "were"
        yield (f"  Live, in the same time, {_people(found.live_reached)} {were} told something, "
               f"{_so_often(found.live_things)} (decided; the table below says how much of it was seen)")
    else:
        yield "  Of what was decided live in this time nothing is recorded (any more): there is nothing to compare with"
    yield ""


def _by_day(found: Found) -> Iterator[list[str]]:
    days: dict[str, Counter[str]] = {}
    for told in found.campaigns.values():
        for channel, per_day in told.per_day.items():
            days.setdefault(channel, Counter()).update(per_day)
    every = sorted({day for counts in days.values() for day in counts})
    if not every:
        return
    if len(every) > DAYS:
        for counts in days.values():
            for day in list(counts):
                counts[day[:7]] += counts.pop(day)
        every = sorted({day for counts in days.values() for day in counts})
    yield ["", *(f">{channel}" for channel in sorted(days)), ">all"]
    for day in every:
        numbers = [days[channel][day] for channel in sorted(days)]
        yield [day, *(f"{n:,}" if n else "." for n in numbers), f"{sum(numbers):,}"]


def _campaigns(report: Report) -> Iterator[list[str]]:
    found = report.found
    if not found.campaigns:
        return
    live = found.decided_live > 0
    compared: tuple[str, ...] = (">live", ">seen live", ">new", ">no longer") if live else ()
    yield ["", ">people", ">of all", ">times", ">held", *compared]
    for name, told in sorted(found.campaigns.items(), key=lambda item: (-item[1].people, item[0])):
        was = told.live
        compared = (f"{was.people:,}", f"{was.shown_people:,}", f"{was.new:,}", f"{was.gone:,}") if live else ()
        yield [name, f"{told.people:,}", _share(told.people, found.everybody), f"{_times(told):,}",
               f"{sum(one.times for one in told.holds.values()):,}", *compared]


def _campaign(name: str, report: Report) -> Iterator[list[str]]:
    found, told = report.found, report.found.campaigns.get(name) or Told()
    ways = [f"{channel} {sum(days.values()):,}" for channel, days in sorted(told.per_day.items())]
    yield ["told", f"{_people(told.people)} ({_share(told.people, found.everybody)})" + (
        f", {_so_often(_times(told))}: {', '.join(ways)}" if ways else "")]
    chance = found.chances.get(name)
    if chance is not None:
        yield ["occasion", way(chance, told, told.armed > 0)]
        for words, n in sorted(chance.failed.items(), key=lambda item: (-item[1], item[0]))[:FAILED]:
            yield ["failed", f"{_so_often(n)}: {words}"]
    if not told.people and (why := because(name, report)):
        yield ["nobody", why]
    if len(told.variants) > 1:
        yield ["variants", ", ".join(_list(told.variants))]
    if told.armed:
        yield ["armed", f"{_so_often(told.armed)} for {_people(told.armed_people)}, to be shown if they leave"]
    for reason, held in sorted(told.holds.items(), key=lambda item: (-item[1].times, item[0])):
        meaning = REASONS.get(reason) or REASONS.get(f"{reason.split(' ')[0]} …", "")
        why = f"{reason} ({meaning})" if meaning else reason
        yield ["held", f"{_so_often(held.times)}, {_people(held.people)}: {why}"]
    if told.lost_to:
        yield ["lost to", ", ".join(_list(told.lost_to)) + " (the same place at the same moment)"]
    if told.taken_back:
        yield ["taken back", f"{_so_often(told.taken_back)} before anybody saw it"]
    if told.also:
        yield ["also got", ", ".join(_list(told.also)) + " (people who got both)"]
    if told.clicked or told.closed:
        yield ["recorded", f"{told.clicked:,} clicks, {told.closed:,} closed by hand, of the same decisions live"]
    for variant, goals in sorted(told.goals.items()):
        yield [f"goal {variant}".rstrip(), _goals(goals, report.about.values.get(name, ""),
                                                             report.about.currency)]
    if found.decided_live:
        was = told.live
        yield ["live", f"{_people(was.people)}, {_so_often(was.times)}, {was.shown_people:,} saw it; "
               f"{was.both:,} get it as before, {was.new:,} newly, {was.gone:,} no longer"]


def _goals(goals: Goals, value: str, currency: str) -> str:
    of, worth = goals.reached + goals.missed + goals.open, ""
    if goals.worth:
        worth = ", worth " + (f"{to_major(goals.worth // 100, currency)} {currency}" if value in AMOUNTS
                              else f"{goals.worth / 100:.10g} ({value})")
    still = f", still open {_so_often(goals.open)} at the end" if goals.open else ""
    return f"reached {goals.reached:,} of {some(of, 'time')} ({_share(goals.reached, of)}){worth}{still}"


def _segments(report: Report) -> Iterator[list[str]]:
    found = report.found.segments
    if not found:
        return
    yield ["", ">entered", ">people", ">left", ">in it at last"]
    cells = [name for name in found if _CELL.fullmatch(name)]
    for name, one in sorted(found.items()):
        if name not in cells:
            yield [name, f"{one.entered:,}", f"{one.people:,}", f"{one.left:,}", f"{one.size:,}"]
    if cells:
        yield [f"{len(cells)} RFM cells", *(f"{sum(getattr(found[name], what) for name in cells):,}"
                                            for what in ("entered", "people", "left", "size"))]


def _workflows(report: Report) -> Iterator[list[str]]:
    for name, counts in sorted(report.found.workflows.items()):
        steps = {what: n for what, n in counts.items() if " " in what}
        ways = [f"{counts[what]:,} {words}" for what, words in (
            ("entered", "entered"), ("finished", "finished"), ("left", "left early"), ("inside", "still in it"))
            if counts.get(what)]
        yield [name, ", ".join(ways)]
        if steps:
            yield ["", ", ".join(_list(steps, len(steps)))]


def _silent(report: Report) -> Iterator[list[str]]:
    for name in sorted(report.about.campaigns):
        if not (report.found.campaigns.get(name) or Told()).people:
            yield [name, because(name, report) or "there are too many campaigns to follow the chances of each"]


def _nobody(report: Report) -> Iterator[list[str]]:
    about, found = report.about, report.found
    for words, names in (("was in", [name for name in about.segments if name not in found.segments]),
                         ("went through", [name for name in about.workflows if name not in found.workflows])):
        if names:
            yield [words, ", ".join(sorted(names))]


def _times(told: Told) -> int:
    return sum(sum(days.values()) for days in told.per_day.values())


def _people(n: int) -> str:
    return "1 person" if n == 1 else f"{n:,} people"


def _share(n: int, of: int) -> str:
    """A share in percent, with as much as can be told apart.

    >>> _share(1, 3), _share(1, 4504), _share(0, 0)
    ('33 %', '0.022 %', '-')
    """
    if not of:
        return "-"
    percent = 100 * n / of
    if percent >= 10 or not n:
        return f"{percent:.0f} %"
    return f"{percent:.1f} %" if percent >= 0.1 else f"{percent:.2g} %"


def _so_often(n: int) -> str:
    return "once" if n == 1 else "twice" if n == 2 else f"{n:,} times"


def _often(n: int) -> str:
    return "once:" if n == 1 else "twice:" if n == 2 else "10 times or more:" if n == 10 else f"{n} times:"


def _list(counts: Counts, most: int = MOST) -> list[str]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    words = [f"{name or 'default'} {n:,}" for name, n in ordered[:most]]
    return [*words, f"and {len(ordered) - most} more"] if len(ordered) > most else words


def _block(title: str, rows: Iterator[Sequence[str]] | Iterator[list[str]]) -> list[str]:
    """A title and aligned rows; a cell that begins with ">" heads a column of numbers, which stand at the right."""
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
        cells = [cell.rjust(widths[n]) if n < len(right) and right[n] else
                 cell.ljust(widths[n] + 2 * (not indent) * (n == 0)) for n, cell in enumerate(row)]
        lines.append((indent + "  ".join(cells)).rstrip())
    return [*lines, ""]
