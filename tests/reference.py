"""Documentation that is made from the code: the tables between `<!-- begin: NAME -->` and `<!-- end: NAME -->`.

`make docs` writes them; `tests/test_docs.py` says when one is out of date.
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
from tests.support import ROOT

FOLDERS = {
    "domain": "the nouns; no I/O",
    "state": "what is remembered, and how it merges",
    "operators": "the verbs, in the order of `flows/onsite.py`",
    "flows": "the dataflows",
    "connectors": "one outside system each",
}


def settings() -> str:
    """The settings: name, default, meaning."""
    rows = ["| setting | default | what it is |", "|---|---|---|"]
    for field in msgspec.structs.fields(Settings):
        default = ",".join(field.default) if isinstance(field.default, tuple) else field.default
        shown = f"`{str(default).lower() if isinstance(default, bool) else default}`" if default != "" else ""
        where = " *Environment only.*" if field.name in SECRET_FIELDS else ""
        rows.append(f"| `{field.name}` | {shown} | {MEANING.get(field.name, '')}{where} |")
    return "\n".join(rows)


MEANING = {
    "data": "Folder of everything attimo keeps: log, store, Redis, signing secret.",
    "playbook": "Folder of segments, campaigns and templates.",
    "shop": "Id of the shop; prefixes Kafka topics and Redis channels.",
    "log": "`sqlite`, or `kafka://host:9092[,host2:9092]`.",
    "log_sync": "`full`: an answered event survives a power cut (one disk flush each); `normal`: it survives any crash "
                "of a process.",
    "partitions": "Partitions of the log, which are the shards; fixed when the log is created.",
    "redis": "URL of a Redis or Valkey that runs already; else `REDIS_URL`; else attimo starts its own.",
    "host": "Address the edge listens on. Loopback unless you say otherwise: put a TLS proxy in front.",
    "port": "Port the edge listens on.",
    "public_url": "How browsers reach the edge, when a proxy stands in front.",
    "write_key": "The public key that pixels and clients send; it only says which shop they belong to.",
    "origins": "Origins of the shop's pages that may post from a browser, comma-separated. Empty: the edge's own.",
    "trust_proxy": "Whether `X-Forwarded-For` is believed (only behind a proxy that sets it).",
    "metrics_port": "First port of the metrics, on loopback; 0 for none.",
    "hot_persons": "Persons kept in memory; the others are on disk.",
    "retention_days": "Days for which the log keeps what the shop's side wrote (`clicks`, `carts`, `purchases`, "
                      "`people`), and the store the turns of shards; 0: for ever.",
    "retention_internal_days": "Days for which the log keeps letters, decisions, messages, outcomes and rejects; "
                               "0: for ever.",
    "pinned_model": "File of a model that scores instead of the one being learned, for runs that must repeat.",
    "rate_per_key": "Events a second that the collector takes for one write key.",
    "channels": "Who sends what off the site: `file` (all of it, into `data/outbox/`), `email:elsewhere` (a worker of "
                "yours), `none`; comma-separated. See [messages](messages.md).",
    "demo": "Serve the demo shop, and let it log people in.",
    "server_key": "Key of servers that may name a `userId` without proof.",
    "secret": "Signs stream tokens and `user_hash`; made in the data folder when not given.",
}


def metric_table() -> str:
    """The metrics: name, kind, labels, meaning."""
    rows = ["| metric | kind | by | what it is |", "|---|---|---|---|"]
    found = []
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            said = next(iter(metric.describe()))
            name = said.name + ("_total" if said.type == "counter" else "")
            found.append(f"| `{name}` | {said.type} | {', '.join(metric._labelnames)} | {said.documentation} |")
    return "\n".join(rows + sorted(found))


def commands() -> str:
    """The help of every command, as `attimo COMMAND --help` prints it."""
    from attimo import cli

    parts: list[str] = []

    def walk(command: click.Command, path: str, parent: click.Context | None) -> None:
        context = click.Context(command, info_name=path.split()[-1], parent=parent, terminal_width=100,
                                **command.context_settings)
        parts.append(f"## {path}\n\n```\n{command.get_help(context).rstrip()}\n```")
        if isinstance(command, click.Group):
            for name in sorted(command.commands):
                walk(command.commands[name], f"{path} {name}", context)

    walk(cli, "attimo", None)
    return "\n\n".join(parts)


def modules() -> str:
    """Every module with the first sentence of its docstring."""
    parts = []
    for folder, what in FOLDERS.items():
        files = [path for path in sorted((ROOT / folder).glob("*.py")) if path.name != "__init__.py"]
        rows = [f"| [`{folder}/{path.name}`](../{folder}/{path.name}) | {first_sentence(path)} |" for path in files]
        parts.append("\n".join([f"## {folder}/: {what}", "", "| file | what it is |", "|---|---|", *rows]))
    return "\n\n".join(parts)


def first_sentence(path: Path) -> str:
    """The first sentence of a module's docstring; empty without one."""
    said = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").split("\n\n")[0].replace("\n", " ")
    found = re.match(r".*?\.(?=\s|$)", said)
    return (found[0] if found else said).rstrip(":").replace("|", "\\|")


GENERATED: dict[str, dict[str, Callable[[], str]]] = {
    "docs/operations.md": {"settings": settings, "metrics": metric_table},
    "docs/commands.md": {"commands": commands},
    "docs/map.md": {"modules": modules},
}
"""Page -> name of a block -> what makes it."""


def fill(text: str, blocks: dict[str, Callable[[], str]]) -> str:
    """A page with its blocks made anew."""
    for name, make in blocks.items():
        begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
        head, found, rest = text.partition(begin)
        _, closed, tail = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"the page has no block {begin} ... {end}")
        text = f"{head}{begin}\n{make()}\n{end}{tail}"
    return text
