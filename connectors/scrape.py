"""Scraping: what the metrics of another process of this machine say right now.

    now = scrape(metrics.port_of(settings, "onsite")) or {}
    now.get(("attimo_lag", "clicks"))
"""

import http.client
from collections.abc import Sequence
from urllib.parse import urlencode

from prometheus_client.parser import text_string_to_metric_families

LARGEST = 4 << 20
"""Bytes of an answer that are read."""

Samples = dict[tuple[str, str], float]
"""(metric, value of its one label or "") -> number."""


def scrape(port: int, names: Sequence[str] = (), timeout: float = 1.0) -> Samples | None:
    """The metrics of one process, or only those of these names (which costs it next to nothing).

    None when it does not answer within `timeout` seconds, or with something else.
    """
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        line.request("GET", "/metrics" + ("?" + urlencode([("name[]", name) for name in names]) if names else ""))
        return read(line.getresponse().read(LARGEST).decode())
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        line.close()


def read(text: str) -> Samples:
    r"""Prometheus text as numbers, of attimo's own metrics and the process's. ValueError when it is none.

    >>> read('# TYPE attimo_events counter\nattimo_events_total{stream="clicks"} 5.0\n')
    {('attimo_events_total', 'clicks'): 5.0}
    """
    samples: Samples = {}
    for family in text_string_to_metric_families(text):
        if family.name.startswith(("attimo_", "process_")):
            for sample in family.samples:
                samples[sample.name, next(iter(sample.labels.values()), "")] = sample.value
    return samples
