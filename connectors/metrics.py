"""Prometheus metrics: every metric of attimo, the HTTP server on loopback, and a client that scrapes it.

Flows update counters once per batch; only `PUBLISH_LATENCY` is observed per effect. Label values come from small fixed
sets (streams, kinds, reasons) and never contain the id of a person. `docs/operations.md` lists all metrics.

>>> RECORDS_APPLIED.labels("clicks").inc(2)
>>> "attimo_records_applied_total" in metric_names()
True

Scrape another process on this machine:

    samples = scrape(metrics_port(settings, "onsite")) or {}
    lag = samples.get(("attimo_lag_records", "clicks"))
"""

import http.client
import time
from collections.abc import Callable, Sequence
from threading import Thread
from urllib.parse import urlencode
from wsgiref.simple_server import WSGIServer

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from domain.model import Model
from domain.record import describe_misrouted
from domain.settings import Settings

BUCKETS = (
    0.0005,
    0.001,
    0.0015,
    0.002,
    0.003,
    0.004,
    0.005,
    0.0075,
    0.01,
    0.015,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)
"""Upper bounds in seconds, dense around the latency budgets (1.5 ms, 4 ms, 5 ms, 15 ms)."""

RECORDS_APPLIED = Counter("attimo_records_applied", "Records applied to shards, by stream.", ["stream"])
EFFECTS = Counter("attimo_effects", "Effects sent to the log or Redis, by kind.", ["kind"])
SUPPRESSED = Counter("attimo_suppressed", "Suppressed messages, by reason.", ["reason"])
DEAD_LETTERS = Counter("attimo_dead_letters", "Dead letters written, by reason.", ["reason"])
MISROUTED_RECORDS = Counter("attimo_misrouted_records", "Records found in the wrong partition and forwarded.")
MISROUTED_RATIO = Gauge("attimo_misrouted_ratio", "Share (0 to 1) of recent public records that were misrouted.")
SHARD_OPERATIONS = Counter(
    "attimo_shard_operations",
    "Other shard operations: records forwarded, duplicates skipped, timers fired.",
    ["operation"],
)
STALE_ACTIONS = Counter("attimo_stale_actions", "Actions that the publisher suppressed because not_after had passed.")
PUBLISH_LATENCY = Histogram(
    "attimo_publish_latency_seconds", "Time from a record's log time to the Redis message it caused.", buckets=BUCKETS
)
COMMIT_DURATION = Histogram("attimo_commit_duration_seconds", "Duration of one batch commit.", buckets=BUCKETS)
LAG_RECORDS = Gauge("attimo_lag_records", "Records in the log that are not read yet, by stream.", ["stream"])
OUTBOX_PENDING = Gauge("attimo_outbox_pending", "Committed effects that are not acknowledged yet.")
PLAYBOOK_ERRORS = Gauge("attimo_playbook_errors", "Errors in the playbook folder; above 0, an older playbook is live.")

MESSAGES = Counter(
    "attimo_messages", "Messages processed by outreach, by result (delivered, bounced, suppressed).", ["result"]
)
MESSAGES_PENDING = Gauge("attimo_messages_pending", "Messages waiting for their send time or their channel.")

MODEL_AGE = Gauge("attimo_model_age_seconds", "Seconds since the live model was published.")
MODEL_VERSION = Gauge("attimo_model_version", "Version of the live model.")
MODEL_EXAMPLES = Gauge("attimo_model_examples", "Training examples of the live model.")
MODEL_POSITIVES = Gauge("attimo_model_positives", "Training examples that ended in an order.")
MODEL_AUC = Gauge("attimo_model_roc_auc", "Progressive ROC AUC: each example predicted before it was learned.")
MODEL_LOG_LOSS = Gauge("attimo_model_log_loss", "Progressive log loss.")
MODEL_BASE_LOG_LOSS = Gauge("attimo_model_base_log_loss", "Log loss of predicting the base rate, on the same examples.")
MODEL_DRIFTS = Gauge("attimo_model_drifts", "Drifts detected by ADWIN.")

EDGE_REQUESTS = Counter("attimo_edge_requests", "Collector requests, by result code.", ["code"])
EDGE_EVENTS_ACCEPTED = Counter(
    "attimo_edge_events_accepted", "Events written to the log by the collector, by stream.", ["stream"]
)
EDGE_EVENTS_REJECTED = Counter(
    "attimo_edge_events_rejected", "Events that the collector rejected, by reason.", ["reason"]
)
EDGE_APPEND_DURATION = Histogram(
    "attimo_edge_append_duration_seconds", "Duration of one group commit of the collector.", buckets=BUCKETS
)
EDGE_BINDINGS = Counter(
    "attimo_edge_bindings",
    "Attempts to bind a browser to its anonymous id, by result (bound, already_bound, withdrawn, redis_unavailable).",
    ["result"],
)
EDGE_SSE_CONNECTIONS = Gauge("attimo_edge_sse_connections", "Open SSE connections.")
EDGE_ACTIONS_DELIVERED = Counter("attimo_edge_actions_delivered", "Actions sent to browsers, by type.", ["type"])
EDGE_STALE_ACTIONS = Counter(
    "attimo_edge_stale_actions", "Actions that the gateway suppressed because not_after had passed."
)
EDGE_SLOW_CONNECTIONS = Counter(
    "attimo_edge_slow_connections_closed", "SSE connections closed because the browser read too slowly."
)
EDGE_REDIS_CONNECTED = Gauge("attimo_edge_redis_connected", "1 while the gateway is subscribed to Redis, else 0.")

PROCESSES = ("edge", "learning", "outreach", "onsite")
"""The processes besides Redis. Port offsets: edge 0, learning 1, outreach 2, onsite 10 plus the worker number."""


def set_model_metrics(model: Model) -> None:
    """Update the model metrics after a model was published or went live."""
    quality = model.quality
    MODEL_VERSION.set(model.version)
    MODEL_EXAMPLES.set(quality.examples)
    MODEL_POSITIVES.set(quality.positives)
    MODEL_AUC.set(quality.roc_auc)
    MODEL_LOG_LOSS.set(quality.log_loss)
    MODEL_BASE_LOG_LOSS.set(quality.base_log_loss)
    MODEL_DRIFTS.set(quality.drifts)


def metrics_port(settings: Settings, process: str, worker: int = 0) -> int:
    """Return the metrics port of a process; 0 if metrics are switched off (`metrics_port = 0`).

    >>> metrics_port(Settings(), "edge"), metrics_port(Settings(), "learning"), metrics_port(Settings(), "onsite", 2)
    (9400, 9401, 9412)
    """
    if not settings.metrics_port:
        return 0
    return settings.metrics_port + {"edge": 0, "learning": 1, "outreach": 2, "onsite": 10}[process] + worker


def serve_metrics(port: int) -> tuple[WSGIServer, Thread] | None:
    """Serve GET /metrics on loopback in a thread; do nothing if `port` is 0. Raise OSError if the port is in use."""
    return start_http_server(port, addr="127.0.0.1") if port else None


def metric_names() -> list[str]:
    """Return the names of attimo's metrics as they are scraped, sorted."""
    found = set()
    for family in REGISTRY.collect():
        if family.name.startswith("attimo_"):
            found.add(family.name + ("_total" if family.type == "counter" else ""))
    return sorted(found)


MAX_RESPONSE_BYTES = 4 << 20
"""Maximum size of a response that is read."""

Samples = dict[tuple[str, str], float]
"""(metric, value of its only label or "") -> value."""


def scrape(port: int, names: Sequence[str] = (), timeout: float = 1.0) -> Samples | None:
    """Return the metrics of one process, or only those in `names`.

    Return None if the process does not respond within `timeout` seconds, or not with Prometheus text.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", "/metrics" + ("?" + urlencode([("name[]", name) for name in names]) if names else ""))
        return parse_samples(connection.getresponse().read(MAX_RESPONSE_BYTES).decode())
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


def parse_samples(text: str) -> Samples:
    r"""Parse the attimo and process metrics of a Prometheus text. Raise ValueError if it is invalid.

    >>> parse_samples('# TYPE attimo_lag_records gauge\nattimo_lag_records{stream="clicks"} 5.0\n')
    {('attimo_lag_records', 'clicks'): 5.0}
    """
    samples: Samples = {}
    for family in text_string_to_metric_families(text):
        if family.name.startswith(("attimo_", "process_")):
            for sample in family.samples:
                samples[sample.name, next(iter(sample.labels.values()), "")] = sample.value
    return samples


MISROUTED_POLL_INTERVAL = 10.0
"""Seconds between two scrapes."""
MISROUTED_POLL_TIMEOUT = 0.5
"""Seconds to wait for a response."""
MISROUTED_RATIO_NAME = "attimo_misrouted_ratio"
MISROUTED_RECORDS_NAME = "attimo_misrouted_records_total"


def misrouted_warning(samples: Samples) -> str:
    """Return the warning about misrouted records; empty if they are below the threshold.

    >>> misrouted_warning({(MISROUTED_RECORDS_NAME, ""): 60.0, (MISROUTED_RATIO_NAME, ""): 0.04})[:3]
    '4 %'
    >>> misrouted_warning({})
    ''
    """
    return describe_misrouted(
        samples.get((MISROUTED_RECORDS_NAME, ""), 0.0), samples.get((MISROUTED_RATIO_NAME, ""), 0.0)
    )


class MisroutedWatcher:
    """Scrapes the first on-site worker periodically. `warning` is the current warning, or empty.

    One worker is enough: every worker sees about the same ratio in its partitions.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._port = metrics_port(settings, "onsite")
        self._clock = clock
        self._next_poll = clock()
        self.warning = ""

    def poll(self) -> bool:
        """Scrape if it is time; return True if the warning changed. A failed scrape keeps the previous warning."""
        if not self._port or self._clock() < self._next_poll:
            return False
        samples = scrape(self._port, (MISROUTED_RECORDS_NAME, MISROUTED_RATIO_NAME), MISROUTED_POLL_TIMEOUT)
        self._next_poll = self._clock() + MISROUTED_POLL_INTERVAL
        if samples is None:
            return False
        before, self.warning = self.warning, misrouted_warning(samples)
        return before != self.warning
