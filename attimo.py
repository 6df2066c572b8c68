"""attimo on the command line: up, run, ingest, topics, explain, coupons, check, schema, rehearse, top, settings.

To read the code, start with `operators/steps.py` (the steps that an event passes through), then `operators/` in that
order, then `state/shard/shard.py` (how state is stored) and `connectors/` (the outside systems).

Settings: option > ATTIMO_* > attimo.toml > default; `attimo settings` shows the current values.
"""

import functools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from connectors.log.log import LogError
from connectors.settings import load, secret_of, setting_sources
from domain.diagnostics import Diagnostic, PlaybookError
from domain.duration import pluralize
from domain.settings import LIST_FIELDS, SECRET_FIELDS, Settings
from state.store.store import StoreError

COMMON_OPTIONS = {
    "data": "Folder for all data of attimo.",
    "playbook": "Folder of the playbook: segments, campaigns, workflows, coupons, templates.",
    "shop": "Id of the shop; prefix of topics and channels.",
    "log": "sqlite, or kafka://host:9092[,host2:9092].",
    "redis": "URL of a running Redis; attimo up starts one by default.",
    "host": "Address the edge listens on.",
    "port": "Port the edge listens on.",
    "metrics_port": "First metrics port, on loopback; 0 turns metrics off.",
}


class CommandError(click.ClickException):
    """An error of a command: one line, exit code 2."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        click.echo(f"attimo: {self.format_message()}", err=True)


@contextmanager
def report_errors() -> Iterator[None]:
    """Turn expected errors into a CommandError."""
    try:
        yield
    except (ValueError, LogError, StoreError) as error:
        raise CommandError(str(error)) from error


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Add the common options to a command, and pass the resulting settings as its first argument."""

    @functools.wraps(command)
    def run(assign: tuple[str, ...], **given: Any) -> None:
        flags = {name: given.pop(name) for name in COMMON_OPTIONS}
        if given.pop("demo", False):
            flags["demo"] = True
        for pair in assign:
            name, equals, value = pair.partition("=")
            if not equals:
                raise click.UsageError(f"--set {pair}: expected NAME=VALUE")
            flags[name] = value.split(",") if name in LIST_FIELDS else value
        click.get_current_context().obj = flags
        with report_errors():
            settings = load(flags)
        if command.__name__ == "run":  # a service: its log gets the traceback
            command(settings, **given)
            return
        with report_errors():
            command(settings, **given)

    for name, text in reversed(COMMON_OPTIONS.items()):
        run = click.option("--" + name.replace("_", "-"), metavar=name.split("_")[-1].upper(), help=text)(run)
    return click.option("--set", "assign", multiple=True, metavar="NAME=VALUE", help="Any other setting.")(run)


def show_version(context: click.Context, _: click.Parameter, value: bool) -> None:
    """`attimo --version`."""
    if value:
        from connectors.ops.up import version

        click.echo(f"attimo {version()}")
        context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=show_version, help="Show the version."
)
def cli() -> None:
    """Real-time marketing automation."""


@cli.command()
@click.option("--demo", is_flag=True, help="Also start a small demo shop.")
@with_settings
def up(settings: Settings) -> None:
    """Start all processes on this machine and run them until Ctrl-C."""
    from connectors.ops.up import run_up
    from flows.playbook_reload import startup_errors

    if errors := startup_errors(settings):
        raise startup_error(settings, errors)
    sys.exit(run_up(settings, (sys.executable, str(Path(__file__).resolve()))))


def startup_error(settings: Settings, diagnostics: Sequence[Diagnostic], err: bool = False) -> CommandError:
    """Print the errors of the first playbook, and return the error that stops the start."""
    for diagnostic in diagnostics:
        click.echo(str(diagnostic), err=err)
    count = pluralize(len(diagnostics), "error")
    return CommandError(f"No valid playbook in {settings.playbook}: fix {count} to start.")


@cli.command()
@click.argument("process", type=click.Choice(["edge", "onsite", "learning", "outreach"]))
@click.option("--worker", metavar="I/N", default="0/1", help="onsite: process the partitions p with p mod N = I.")
@with_settings
def run(settings: Settings, process: str, worker: str) -> None:
    """Run one process until SIGTERM or SIGINT."""
    share = parse_worker(worker)
    if process == "edge":
        from connectors.http.app import serve
        from flows.retention import Retention

        Retention(settings).start()
        serve(settings)
        return
    from flows.bytewax import handle_stop_signals

    handle_stop_signals()  # before the slow imports, so that a stop during the start is clean too
    if process == "learning":
        from flows.learning import run as run_learning

        run_learning(settings)
    elif process == "outreach":
        from flows.outreach import run as run_outreach

        run_outreach(settings)
    else:
        from flows.onsite import run as run_onsite

        try:
            run_onsite(settings, share)
        except PlaybookError as error:
            raise startup_error(settings, error.diagnostics, err=True) from error


def parse_worker(worker: str) -> tuple[int, int]:
    """Parse I/N with 0 <= I < N. Raise a usage error for anything else.

    >>> parse_worker("1/4")
    (1, 4)
    """
    index, slash, count = worker.partition("/")
    if slash and index.isdecimal() and count.isdecimal() and int(index) < int(count):
        return int(index), int(count)
    raise click.UsageError(f"--worker {worker}: expected I/N with I from 0 to N-1, such as 0/2 and 1/2")


@cli.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("--history", is_flag=True, help="Import recorded events with their own times, in time order.")
@click.option("--receipts", is_flag=True, help="FILE has store receipts as CSV, not JSON lines.")
@with_settings
def ingest(settings: Settings, file: str, history: bool, receipts: bool) -> None:
    """Append FILE ("-" for standard input) to the log: one event of the Segment spec per line."""
    from connectors.ingest.command import ingest_file, summary
    from connectors.log.open import open_log

    with open_log(settings) as log:
        done = ingest_file(log, file, history, receipts, secret=secret_of(settings))
    click.echo(summary(done))
    if done.rejected:
        sys.exit(1)


@cli.group()
def topics() -> None:
    """Manage the topics of a Kafka log."""


@topics.command()
@with_settings
def create(settings: Settings) -> None:
    """Create missing topics with their partitions and retention; existing topics stay as they are."""
    if not settings.log.startswith("kafka://"):
        raise ValueError(f"log: {settings.log} needs no topics; this command is for --log kafka://host:9092")
    from connectors.log.kafka_admin import create_topics

    created = create_topics(settings)
    click.echo("\n".join([f"created {name}" for name in created] or ["all topics exist already"]))


@cli.command()
@click.argument("person")
@click.argument("name", default="")
@with_settings
def explain(settings: Settings, person: str, name: str) -> None:
    """Show the profile of PERSON and the reasons for recent decisions.

    PERSON is a user id or an anonymous id; "u:ID" and "a:ID" say which of the two. NAME is a campaign, a workflow or a
    segment: the page then shows why the person got it or not, or is in it or not. Times are in the shop's time zone.
    """
    from flows.commands.explain import explain_person

    for page in explain_person(settings, person, name):
        click.echo(page)


@cli.group()
def coupons() -> None:
    """Export coupon codes and count them by state."""


@coupons.command()
@click.argument("pool")
@with_settings
def export(settings: Settings, pool: str) -> None:
    """Print every code of POOL, one per line, for the checkout system of the shop.

    Generated codes depend on the secret: run this with the same ATTIMO_SECRET or data folder as the engine.
    """
    from connectors.settings import with_secret

    rule, secret = load_pool(settings, pool), with_secret(settings).secret.encode()
    for first in range(0, rule.size, 1_000):
        click.echo("\n".join(rule.codes(first, first + 1_000, secret)))


@coupons.command()
@click.argument("pool")
@with_settings
def show(settings: Settings, pool: str) -> None:
    """Count the codes of POOL that are leased, reserved, redeemed and expired."""
    from connectors.settings import secret_of
    from flows.worker import store_path
    from state.coupons.leasing import describe_pool
    from state.store.sqlite import SqliteStore

    rule, path = load_pool(settings, pool), store_path(settings)
    if not path.exists():
        raise ValueError(f"data: no codes are leased in {settings.data}/ yet ({path} does not exist)")
    store = SqliteStore(path, settings.partitions, read_only=True)
    try:
        click.echo(describe_pool(rule, store.person, settings.partitions, secret_of(settings).encode()))
    finally:
        store.close()


def load_pool(settings: Settings, name: str) -> Any:
    """The compiled pool of this name. Raise ValueError if the playbook has none."""
    from connectors.playbook.folder import read_playbook
    from domain.event import did_you_mean_or_list
    from state.playbook.coupon_pool import PoolRule

    pools = {pool.name: pool for pool in read_playbook(settings.playbook).coupons}
    if name not in pools:
        hint = did_you_mean_or_list(name, sorted(pools))
        raise ValueError(f'{settings.playbook}: unknown coupon pool "{name}" in coupons/{hint}')
    return PoolRule(pools[name])


@cli.command()
@click.argument("folder", default="")
@with_settings
def check(settings: Settings, folder: str) -> None:
    """Validate the playbook in FOLDER (default: the setting `playbook`) and run its scenarios.

    Errors prevent the playbook from going live; warnings do not.
    """
    from flows.commands.check import report

    click.echo(report(folder or settings.playbook, click.echo, time.time_ns() // 1_000_000))


@cli.command()
@click.argument("kind", default="")
def schema(kind: str) -> None:
    """Print the JSON Schema of KIND for editors: shop, segment, campaign, workflow or coupon; without KIND, of all."""
    import msgspec

    from domain.event import did_you_mean_or_list
    from domain.playbook.schema import json_schemas

    schemas = json_schemas()
    if kind and kind not in schemas:
        raise CommandError(f"{kind}: unknown kind of file{did_you_mean_or_list(kind, schemas)}")
    click.echo(msgspec.json.format(msgspec.json.encode(schemas[kind] if kind else schemas), indent=2))


@cli.command()
@click.argument("folder", default="")
@click.option("--from", "start", metavar="TIME", default="", help="Start: a day or minute in the shop's time zone.")
@click.option("--to", "end", metavar="TIME", default="", help="End: a day (inclusive) or minute.")
@click.option("--cold", is_flag=True, help="Ignore events before --from instead of using them as a backfill.")
@click.option("--as-recorded", is_flag=True, help="Replay the live engine's batches with the recorded reactions.")
@click.option("--model", metavar="WHICH", default="recorded", help="recorded, latest, none or a FILE.")
@click.option("--campaign", metavar="NAME", default="", help="Report this campaign only.")
@click.option("--explain", "person", metavar="PERSON", default="", help="Show the timeline of one person instead.")
@click.option("--json", "to_file", metavar="FILE", default="", help="Also write the report as JSON.")
@click.option("--processes", metavar="N", type=click.IntRange(1, 256), help="Number of processes.")
@with_settings
def rehearse(
    settings: Settings, folder: str, campaign: str, person: str, to_file: str, processes: int | None, **options: Any
) -> None:
    """Backtest the playbook in FOLDER (default: the setting `playbook`) on recorded events; sends nothing.

    The report counts whom each campaign reaches, which messages are suppressed and why, and whose contact pressure is
    exceeded.
    """
    from flows.backtest.report import BacktestProgress, for_campaign, format_report, write_json
    from flows.backtest.run import BacktestOptions, backtest_person, run_backtest

    request = BacktestOptions(folder or settings.playbook, processes=processes or 0, campaign=campaign, **options)
    try:
        with BacktestProgress() as progress:
            if person:
                page = backtest_person(settings, request, person, progress)
            else:
                report = run_backtest(settings, request, progress)
    except PlaybookError as error:
        lines = [*map(str, error.diagnostics), f"{request.folder}: fix the errors to run a backtest"]
        raise CommandError("\n".join(lines)) from error
    if person:
        click.echo(page)
        return
    if to_file:
        write_json(for_campaign(report, campaign) if campaign else report, to_file)
    click.echo(format_report(report, campaign))


@cli.command()
@click.option("--once", is_flag=True, help="Print the current state and exit.")
@with_settings
def top(settings: Settings, once: bool) -> None:
    """Show rates, latency, the model and decisions in the terminal."""
    from connectors.log.open import open_log
    from connectors.ops.top import top as watch

    if settings.log == "sqlite" and not (Path(settings.data) / "log").exists():
        raise ValueError(f"data: no log in {settings.data}/; run `attimo up` first, or set --data")
    with open_log(settings) as log:
        watch(settings, log, once)


@cli.command("settings")
@with_settings
def show_settings(settings: Settings) -> None:
    """Show the current settings and the source of each."""
    origins = setting_sources(click.get_current_context().obj)
    for name in Settings.__struct_fields__:
        value = getattr(settings, name)
        if name in SECRET_FIELDS:
            value = "(set)" if value else "(not set)"
        elif isinstance(value, tuple):
            value = ",".join(value)
        elif name == "redis":
            from connectors.redis.server import redact_password

            value = redact_password(value)
        click.echo(f"{name:<18} {value!s:<24} {origins[name]}")


def main() -> None:
    """The console script."""
    cli(prog_name="attimo")


if __name__ == "__main__":
    main()
