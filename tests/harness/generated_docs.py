"""Documentation generated from code: the tables between `<!-- begin: NAME -->` and `<!-- end: NAME -->`.

`make docs` writes them; `tests/test_docs.py` fails if one is out of date.
"""

import ast
import re
from collections.abc import Callable
from pathlib import Path

import click
import msgspec
from prometheus_client.metrics import MetricWrapperBase

from connectors import metrics
from domain.settings import SECRET_FIELDS, Settings
from tests.harness.support import ROOT

PACKAGES = {
    "domain": "data types and rules; no I/O",
    "state": "stored state and how it merges",
    "operators": "the steps of a person, in the order of `steps.py`",
    "flows": "the dataflows",
    "connectors": "the outside systems",
}


def settings_table() -> str:
    """The settings with default and description."""
    rows = ["| setting | default | description |", "|---|---|---|"]
    for field in msgspec.structs.fields(Settings):
        default = ",".join(field.default) if isinstance(field.default, tuple) else field.default
        shown = f"`{str(default).lower() if isinstance(default, bool) else default}`" if default != "" else ""
        where = " *Environment only.*" if field.name in SECRET_FIELDS else ""
        rows.append(f"| `{field.name}` | {shown} | {SETTING_DESCRIPTIONS.get(field.name, '')}{where} |")
    return "\n".join(rows)


SETTING_DESCRIPTIONS = {
    "data": "Folder of all data: log, store, Redis, signing secret.",
    "playbook": "Folder of the playbook: segments, campaigns, workflows, coupons, templates.",
    "shop": "Id of the shop; prefixes Kafka topics and Redis channels.",
    "log": "`sqlite`, or `kafka://host:9092[,host2:9092]`.",
    "log_sync": "`full`: an acknowledged event survives a power failure (one disk flush per append); `normal`: it "
    "survives a crash of any process.",
    "partitions": "Partitions of the log, one per shard; fixed when the log is created.",
    "redis": "URL of a running Redis or Valkey; else `REDIS_URL`; else attimo starts its own.",
    "host": "Address the edge listens on, by default loopback. Put a TLS proxy in front.",
    "port": "Port the edge listens on.",
    "public_url": "URL of the edge for browsers, if it is behind a proxy.",
    "write_key": "Public key that pixels and clients send; it only identifies the shop.",
    "allowed_origins": "Origins whose pages may post events, comma-separated. Empty: only the origin of the edge.",
    "trust_proxy": "Whether to trust `X-Forwarded-For`; only behind a proxy that sets it.",
    "metrics_port": "First metrics port, on loopback; 0 turns metrics off.",
    "person_cache_size": "People kept in memory; the others are read from disk.",
    "retention_days": "Retention (days) of the public streams (`clicks`, `carts`, `purchases`, `people`) in the log, "
    "and of batch records in the store; 0: unlimited.",
    "retention_internal_days": "Retention (days) of the internal streams (`shard-messages`, `actions`, `messages`, "
    "`outcomes`, `dead-letters`); 0: unlimited.",
    "pinned_model": "File of a model to use instead of the learned one, for reproducible runs.",
    "rate_limit_per_key": "Events per second that the collector accepts for one write key.",
    "channels": "What sends off-site messages: `file` (all, into `data/outbox/`), `email:external` (your own worker), "
    "`none`; comma-separated. See [messages](messages.md).",
    "demo": "Serve the demo shop and its login.",
    "server_key": "Key of servers that may send a `userId` without a `user_hash`.",
    "secret": "Signs stream tokens and `user_hash`; generated in the data folder if not set.",
}


def metrics_table() -> str:
    """The metrics with kind, labels and description."""
    rows = ["| metric | kind | labels | description |", "|---|---|---|---|"]
    found = []
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            family = next(iter(metric.describe()))
            name = family.name + ("_total" if family.type == "counter" else "")
            labels = ", ".join(metric._labelnames)
            found.append(f"| `{name}` | {family.type} | {labels} | {family.documentation} |")
    return "\n".join(rows + sorted(found))


def command_help() -> str:
    """The help of every command, as `attimo COMMAND --help` prints it."""
    from attimo import cli

    parts: list[str] = []

    def walk(command: click.Command, path: str, parent: click.Context | None) -> None:
        context = click.Context(
            command, info_name=path.split()[-1], parent=parent, terminal_width=100, **command.context_settings
        )
        parts.append(f"## {path}\n\n```\n{command.get_help(context).rstrip()}\n```")
        if isinstance(command, click.Group):
            for name in sorted(command.commands):
                walk(command.commands[name], f"{path} {name}", context)

    walk(cli, "attimo", None)
    return "\n\n".join(parts)


def module_table() -> str:
    """The modules with the first sentence of their docstrings."""
    parts = []
    for folder, description in PACKAGES.items():
        files = [path for path in sorted((ROOT / folder).rglob("*.py")) if path.name != "__init__.py"]
        names = [path.relative_to(ROOT).as_posix() for path in files]
        rows = [f"| [`{name}`](../{name}) | {first_sentence(ROOT / name)} |" for name in names]
        parts.append("\n".join([f"## {folder}/: {description}", "", "| file | description |", "|---|---|", *rows]))
    return "\n\n".join(parts)


def first_sentence(path: Path) -> str:
    """The first sentence of a module's docstring, or an empty text."""
    paragraph = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").split("\n\n")[0].replace("\n", " ")
    found = re.match(r".*?\.(?=\s|$)", paragraph)
    return (found[0] if found else paragraph).rstrip(":").replace("|", "\\|")


GENERATED: dict[str, dict[str, Callable[[], str]]] = {
    "docs/operations.md": {"settings": settings_table, "metrics": metrics_table},
    "docs/commands.md": {"commands": command_help},
    "docs/map.md": {"modules": module_table},
}
"""The generators by page and block."""


def fill_blocks(text: str, blocks: dict[str, Callable[[], str]]) -> str:
    """Return a page with regenerated blocks."""
    for name, make in blocks.items():
        begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
        head, found, rest = text.partition(begin)
        _, closed, tail = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"the page has no block {begin} ... {end}")
        text = f"{head}{begin}\n{make()}\n{end}{tail}"
    return text
