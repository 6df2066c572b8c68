"""attimo on the command line: up, run, ingest, topics, explain, coupons, check, schema, rehearse, top, settings.

To read the code, begin with `flows/onsite.py` (what happens to an event, in six lines), then `operators/` in the order
named there, then `state/shard.py` (how it is remembered) and `connectors/` for whatever outside system you care about.

Settings: option > ATTIMO_* > attimo.toml > default; `attimo settings` shows the ones in force.
"""

import functools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from connectors.log import LogError
from connectors.settings import came_from, load, secret_of
from domain.problem import PlaybookError, Problem
from domain.settings import LISTS, SECRET_FIELDS, Settings
from state.store import StoreError

OPTIONS = {
    "data": "Folder of everything attimo keeps.",
    "playbook": "Folder of segments, campaigns and templates.",
    "shop": "Id of the shop: prefixes topics and channels.",
    "log": "sqlite, or kafka://host:9092[,host2:9092].",
    "redis": "URL of a Redis that runs already.",
    "host": "Address the edge listens on.",
    "port": "Port the edge listens on.",
    "metrics_port": "First port of the metrics, on loopback; 0 for none.",
}


class Refused(click.ClickException):
    """A request that cannot be carried out: one line, exit code 2."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        click.echo(f"attimo: {self.format_message()}", err=True)


@contextmanager
def plainly() -> Iterator[None]:
    """Say what is wrong in one line, where the person at the keyboard can do something about it."""
    try:
        yield
    except (ValueError, LogError, StoreError) as wrong:
        raise Refused(str(wrong)) from wrong


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the common options and, as its first argument, the settings in force."""

    @functools.wraps(command)
    def run(assign: tuple[str, ...], **given: Any) -> None:
        flags = {name: given.pop(name) for name in OPTIONS}
        if given.pop("demo", False):
            flags["demo"] = True
        for pair in assign:
            name, equals, value = pair.partition("=")
            if not equals:
                raise click.UsageError(f"--set {pair}: write it as NAME=VALUE")
            flags[name] = value.split(",") if name in LISTS else value
        click.get_current_context().obj = flags
        with plainly():
            settings = load(flags)
        if command.__name__ == "run":  # nobody sits there: the whole story goes into its log
            command(settings, **given)
            return
        with plainly():
            command(settings, **given)

    for name, text in reversed(OPTIONS.items()):
        run = click.option("--" + name.replace("_", "-"), metavar=name.split("_")[-1].upper(), help=text)(run)
    return click.option("--set", "assign", multiple=True, metavar="NAME=VALUE", help="Any other setting.")(run)


def show_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    """`attimo --version`."""
    if wanted:
        from connectors.terminal import version

        click.echo(f"attimo {version()}")
        context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=show_version,
              help="Show the version.")
def cli() -> None:
    """Marketing automation in the moment."""


@cli.command()
@click.option("--demo", is_flag=True, help="With a small demo shop to walk through.")
@with_settings
def up(settings: Settings) -> None:
    """Start everything on this machine, and keep it running until Ctrl-C."""
    from connectors.up import up as keep_up
    from flows.first_playbook import in_the_way

    if wrong := in_the_way(settings):
        raise cannot_begin(settings, wrong)
    sys.exit(keep_up(settings, (sys.executable, str(Path(__file__).resolve()))))


def cannot_begin(settings: Settings, wrong: Sequence[Problem], err: bool = False) -> Refused:
    """Say what is wrong with the very first playbook; why nothing starts with it."""
    for problem in wrong:
        click.echo(str(problem), err=err)
    return Refused(f"{settings.playbook}: {len(wrong)} to put right before anything can start: no playbook was live "
                   "that could stay live")


@cli.command()
@click.argument("process", type=click.Choice(["edge", "onsite", "learning", "outreach"]))
@click.option("--worker", metavar="I/N", default="0/1", help="onsite: take the partitions p with p mod N = I.")
@with_settings
def run(settings: Settings, process: str, worker: str) -> None:
    """Run one process, until SIGTERM or SIGINT."""
    share = share_of(worker)
    if process == "edge":
        from connectors.edge import serve
        from flows.retention import Retention

        Retention(settings).start()
        serve(settings)
        return
    from flows.stopping import on_signals

    on_signals()  # before the long imports: who is stopped while starting stops cleanly too
    if process == "learning":
        from flows.learning import run as learn

        learn(settings)
    elif process == "outreach":
        from flows.outreach import run as reach_out

        reach_out(settings)
    else:
        from flows.onsite import run as onsite

        try:
            onsite(settings, share)
        except PlaybookError as wrong:
            raise cannot_begin(settings, wrong.problems, err=True) from wrong


def share_of(worker: str) -> tuple[int, int]:
    """Which worker of how many; a usage error unless it is I/N with 0 <= I < N.

    >>> share_of("1/4")
    (1, 4)
    """
    index, slash, count = worker.partition("/")
    if slash and index.isdecimal() and count.isdecimal() and int(index) < int(count):
        return int(index), int(count)
    raise click.UsageError(f"--worker {worker}: write it as I/N with I from 0 to N-1, such as 0/2 and 1/2")


@cli.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("--history", is_flag=True, help="Recorded days: they keep their recorded time, and come in its order.")
@click.option("--receipts", is_flag=True, help="Till receipts as CSV, instead of JSON lines.")
@with_settings
def ingest(settings: Settings, file: str, history: bool, receipts: bool) -> None:
    """Read FILE ("-" for standard input) into the log: one event of the Segment spec a line."""
    from connectors.ingest_file import ingest_file, summary
    from connectors.open_log import open_log

    with open_log(settings) as log:
        done = ingest_file(log, file, history, receipts, secret=secret_of(settings))
    click.echo(summary(done))
    if done.rejected:
        sys.exit(1)


@cli.group()
def topics() -> None:
    """The topics of a Kafka log."""


@topics.command()
@with_settings
def create(settings: Settings) -> None:
    """Create the topics of the log, with their partitions and retention; leaves existing ones alone."""
    if not settings.log.startswith("kafka://"):
        raise ValueError(f"log: {settings.log} makes its streams by itself; topics are for --log kafka://host:9092")
    from connectors.kafka_topics import create_topics

    made = create_topics(settings)
    click.echo("\n".join([f"made {name}" for name in made] or ["all topics were there"]))


@cli.command()
@click.argument("person")
@click.argument("name", default="")
@with_settings
def explain(settings: Settings, person: str, name: str) -> None:
    """Say what is known of PERSON, and why the last things were said to them or held back.

    PERSON is a user id or an anonymous id; "u:ID" and "a:ID" say which of the two. NAME is a campaign, a workflow or a
    segment: why they got it or did not, why they are in it or are not. Times are those of the shop's time zone.
    """
    from flows.explaining import explained

    for page in explained(settings, person, name):
        click.echo(page)


@cli.group()
def coupons() -> None:
    """The codes of coupons, for whoever runs the shop's till."""


@coupons.command()
@click.argument("pool")
@with_settings
def export(settings: Settings, pool: str) -> None:
    """Print every code of POOL, one a line, so that the shop can be told which ones to accept.

    Those that are made up come from the shop's secret: run this where ATTIMO_SECRET or the data folder is the same.
    """
    from connectors.settings import with_secret

    rule, secret = pool_of(settings, pool), with_secret(settings).secret.encode()
    for first in range(0, rule.size, 1_000):
        click.echo("\n".join(rule.codes(first, first + 1_000, secret)))


@coupons.command()
@click.argument("pool")
@with_settings
def show(settings: Settings, pool: str) -> None:
    """Say how many codes of POOL are leased, reserved, redeemed and expired."""
    from connectors.settings import secret_of
    from flows.worker import store_path
    from state.pool_standing import standing
    from state.store_sqlite import SqliteStore

    rule, path = pool_of(settings, pool), store_path(settings)
    if not path.exists():
        raise ValueError(f"data: nothing was given out in {settings.data}/ yet ({path} is not there)")
    store = SqliteStore(path, settings.partitions, read_only=True)
    try:
        click.echo(standing(rule, store.person, settings.partitions, secret_of(settings).encode()))
    finally:
        store.close()


def pool_of(settings: Settings, name: str) -> Any:
    """The pool of this name, made ready; ValueError when the playbook has none."""
    from connectors.playbook_folder import read
    from domain.event_names import offered
    from state.pools import PoolRule

    pools = {pool.name: pool for pool in read(settings.playbook).coupons}
    if name not in pools:
        there = offered(name, sorted(pools))
        raise ValueError(f'{settings.playbook}: there are no coupons "{name}" in coupons/{there}')
    return PoolRule(pools[name])


@cli.command()
@click.argument("folder", default="")
@with_settings
def check(settings: Settings, folder: str) -> None:
    """Read the playbook in FOLDER (else the one in force), tell it its scenarios, and say everything that is wrong.

    A warning is about what may be meant, and more likely is not: it goes live all the same.
    """
    from flows.checking import report

    click.echo(report(folder or settings.playbook, click.echo, time.time_ns() // 1_000_000))


@cli.command()
@click.argument("kind", default="")
def schema(kind: str) -> None:
    """Print the JSON Schema of KIND for editors: shop, segment, campaign, workflow or pool; else all by their kind."""
    import msgspec

    from domain.event_names import offered
    from domain.reference import schema as schemas

    found = schemas()
    if kind and kind not in found:
        raise Refused(f"{kind}: there is no such kind of file{offered(kind, found)}")
    click.echo(msgspec.json.format(msgspec.json.encode(found[kind] if kind else found), indent=2))


@cli.command()
@click.argument("folder", default="")
@click.option("--from", "begin", metavar="TIME", default="", help="From this day or minute on, in the shop's zone.")
@click.option("--to", "end", metavar="TIME", default="", help="Until the end of this day, or until this minute.")
@click.option("--cold", is_flag=True, help="Forget what was before --from, instead of reading it as a warm-up.")
@click.option("--as-recorded", is_flag=True, help="Follow the live engine's turns, with the recorded reactions.")
@click.option("--model", metavar="WHICH", default="recorded", help="recorded, latest, none, or a FILE.")
@click.option("--campaign", metavar="NAME", default="", help="Report this campaign only.")
@click.option("--explain", "person", metavar="PERSON", default="", help="Tell what happens to one person instead.")
@click.option("--json", "to_file", metavar="FILE", default="", help="Write the report as JSON too.")
@click.option("--processes", metavar="N", type=click.IntRange(1, 256), help="How many processes work on it.")
@with_settings
def rehearse(settings: Settings, folder: str, campaign: str, person: str, to_file: str, processes: int | None,
             **how: Any) -> None:
    """Try the playbook in FOLDER (else the one in force) on what is recorded, with no outside effect.

    Says whom each campaign would have reached, what would have been held back and why, and whom it would have annoyed.
    """
    from connectors.rehearsal_report import Bar, narrowed, text, write
    from flows.rehearsal import follow
    from flows.rehearsal import rehearse as perform
    from flows.rehearsal_plan import Wish

    wish = Wish(folder or settings.playbook, processes=processes or 0, campaign=campaign, **how)
    try:
        with Bar() as bar:
            if person:
                page = follow(settings, wish, person, bar)
            else:
                report = perform(settings, wish, bar)
    except PlaybookError as wrong:
        raise Refused("\n".join([*map(str, wrong.problems), f"{wish.folder}: cannot be rehearsed"])) from wrong
    if person:
        click.echo(page)
        return
    if to_file:
        write(narrowed(report, campaign) if campaign else report, to_file)
    click.echo(text(report, campaign))


@cli.command()
@click.option("--once", is_flag=True, help="Print what is seen now, and end.")
@with_settings
def top(settings: Settings, once: bool) -> None:
    """Watch rates, latency, the model and decisions in a terminal."""
    from connectors.open_log import open_log
    from connectors.top import top as watch

    if settings.log == "sqlite" and not (Path(settings.data) / "log").exists():
        raise ValueError(f"data: there is no log in {settings.data}/; start with `attimo up`, or name its --data")
    with open_log(settings) as log:
        watch(settings, log, once)


@cli.command("settings")
@with_settings
def show_settings(settings: Settings) -> None:
    """Show the settings in force, and where each came from."""
    origins = came_from(click.get_current_context().obj)
    for name in Settings.__struct_fields__:
        value = getattr(settings, name)
        if name in SECRET_FIELDS:
            value = "(set)" if value else "(not set)"
        elif isinstance(value, tuple):
            value = ",".join(value)
        elif name == "redis":
            from connectors.valkey import without_password

            value = without_password(value)
        click.echo(f"{name:<14} {value!s:<24} {origins[name]}")


def main() -> None:
    """The console script."""
    cli(prog_name="attimo")


if __name__ == "__main__":
    main()
