"""Prometheus: what a process tells about itself, on loopback. The one place where metrics are declared.

Flows count by batch, never by event; `LATENCY` alone is observed per effect. Labels are few and known (streams, kinds,
reasons): never an id of a person. The table in `docs/operations.md` lists every one of them, and a test holds it.

    metrics.EVENTS.labels("clicks").inc(120)
    metrics.serve(metrics.port_of(settings, "onsite"))

>>> EVENTS.labels("clicks").inc(2)
>>> "attimo_events_total" in names()
True
"""

from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, start_http_server

from domain.model import Model
from domain.settings import Settings

BUCKETS = (.0005, .001, .0015, .002, .003, .004, .005, .0075, .01, .015, .025, .05, .1, .25, .5, 1.0, 2.5, 5.0, 10.0)
"""Seconds. Close together where the budgets are (1.5 ms, 4 ms, 5 ms, 15 ms)."""

EVENTS = Counter("attimo_events", "Records applied, by stream.", ["stream"])
EFFECTS = Counter("attimo_effects", "Effects handed to the outside, by kind (send, letter, outcome ...).", ["kind"])
HOLDS = Counter("attimo_holds", "Decisions to stay silent, by reason.", ["reason"])
REJECTS = Counter("attimo_rejects", "Records that were refused, by reason.", ["reason"])
MISROUTED = Counter("attimo_misrouted", "Records found in the wrong partition, forwarded by letter.")
MISROUTED_SHARE = Gauge("attimo_misrouted_share", "Which share (0 to 1) of the latest public records that was.")
HANDLED = Counter("attimo_handled", "What else a shard did: forwarded records, recognised repeated ones, fired timers.",
                  ["what"])
STALE = Counter("attimo_stale", "Decisions held by the publisher because they were later than `not_after`.")
LATENCY = Histogram("attimo_latency_seconds", "From the log time of a record to the Redis message it caused.",
                    buckets=BUCKETS)
COMMIT = Histogram("attimo_commit_seconds", "One commit of a batch of shards.", buckets=BUCKETS)
LAG = Gauge("attimo_lag", "Records in the log that are not yet read, by stream.", ["stream"])
OUTBOX = Gauge("attimo_outbox", "Effects that are committed and not yet acknowledged outside.")
MISTAKES = Gauge("attimo_playbook_mistakes", "Mistakes in the playbook folder: an older one stays live.")

MESSAGES = Counter("attimo_messages", "Messages that outreach has dealt with, by what became of them (delivered, "
                   "bounced, held).", ["outcome"])
MESSAGES_WAITING = Gauge("attimo_messages_waiting", "Messages that wait for their time, or for their channel.")

MODEL_AGE = Gauge("attimo_model_age_seconds", "Seconds since the live model was published.")
MODEL_VERSION = Gauge("attimo_model_version", "How often the live model has been published.")
MODEL_EXAMPLES = Gauge("attimo_model_examples", "Examples the live model has learned from.")
MODEL_POSITIVES = Gauge("attimo_model_positives", "Examples among them that ended in an order.")
MODEL_AUC = Gauge("attimo_model_roc_auc", "Progressive ROC AUC: each example predicted before it was learned.")
MODEL_LOG_LOSS = Gauge("attimo_model_log_loss", "Progressive log loss.")
MODEL_BASE_LOG_LOSS = Gauge("attimo_model_base_log_loss", "Log loss of predicting the base rate, on the same examples.")
MODEL_DRIFTS = Gauge("attimo_model_drifts", "How often the drift watch has rung.")

EDGE_REQUESTS = Counter("attimo_edge_requests", "Calls to the collector, by outcome (ok, or the code of the answer).",
                        ["outcome"])
EDGE_ACCEPTED = Counter("attimo_edge_accepted", "Events written to the log by the collector, by stream.", ["stream"])
EDGE_REJECTS = Counter("attimo_edge_rejects", "Events the collector refused, by reason.", ["reason"])
EDGE_APPEND = Histogram("attimo_edge_append_seconds", "One group commit of the collector.", buckets=BUCKETS)
EDGE_BINDINGS = Counter("attimo_edge_bindings", "Browsers bound to their anonymous id, by outcome (bound, taken, "
                        "withdrawn, unreachable).", ["outcome"])
EDGE_LISTENERS = Gauge("attimo_edge_listeners", "Open event streams to browsers.")
EDGE_DELIVERED = Counter("attimo_edge_delivered", "Actions handed to browsers, by type.", ["type"])
EDGE_STALE = Counter("attimo_edge_stale", "Actions held by the gateway because they were later than `not_after`.")
EDGE_DROPPED = Counter("attimo_edge_dropped", "Event streams ended by the gateway because the browser read too slowly.")
EDGE_SUBSCRIBED = Gauge("attimo_edge_subscribed", "1 while the gateway hears Redis, else 0.")

PROCESSES = ("edge", "learning", "outreach", "onsite")
"""The processes beside Redis, each with a port: edge +0, learning +1, outreach +2, onsite +10 and on, one a worker."""


def learned(model: Model) -> None:
    """Show the quality of a model that has just become the live one (or has just been published)."""
    quality = model.quality
    MODEL_VERSION.set(model.version)
    MODEL_EXAMPLES.set(quality.examples)
    MODEL_POSITIVES.set(quality.positives)
    MODEL_AUC.set(quality.roc_auc)
    MODEL_LOG_LOSS.set(quality.log_loss)
    MODEL_BASE_LOG_LOSS.set(quality.base_log_loss)
    MODEL_DRIFTS.set(quality.drifts)


def port_of(settings: Settings, process: str, worker: int = 0) -> int:
    """The port of a process's metrics; 0 when they are switched off (`metrics_port = 0`).

    >>> port_of(Settings(), "edge"), port_of(Settings(), "learning"), port_of(Settings(), "onsite", 2)
    (9400, 9401, 9412)
    """
    if not settings.metrics_port:
        return 0
    return settings.metrics_port + {"edge": 0, "learning": 1, "outreach": 2, "onsite": 10}[process] + worker


def serve(port: int) -> tuple[WSGIServer, Thread] | None:
    """Answer GET /metrics on loopback from a thread of its own; nothing when `port` is 0. OSError when it is taken."""
    return start_http_server(port, addr="127.0.0.1") if port else None


def names() -> list[str]:
    """The names of attimo's metrics as they are scraped, sorted."""
    found = set()
    for family in REGISTRY.collect():
        if family.name.startswith("attimo_"):
            found.add(family.name + ("_total" if family.type == "counter" else ""))
    return sorted(found)
