"""The floor of the on-site flow: read the log, decode, and publish every fiftieth event, without state or commits.

    python -m benchmarks.floor OFFSETS      (settings from ATTIMO_*; OFFSETS: JSON {"stream/partition": offset})

It stops on SIGTERM. The difference to attimo is the cost of attimo's own logic.
"""

import gc
import sys
import time

import msgspec
import redis

from benchmarks.data import MARKER_CAMPAIGN, MARKER_EVENT
from connectors.log.open import open_log
from connectors.settings import load
from domain import event as events
from domain.action import pubsub_channel
from domain.record import PUBLIC_STREAMS
from flows.bytewax import StopFlag, handle_stop_signals

LIMIT, WAIT = 1_000, 0.005
"""Same as in flows/worker.py."""


def run(start_offsets: dict[str, int]) -> None:
    """Read from these offsets, by default from the current end, until SIGTERM."""
    settings = load({})
    handle_stop_signals()
    out = redis.Redis.from_url(settings.redis)
    out.ping()
    encode = msgspec.json.Encoder().encode
    with open_log(settings) as log:
        places = [(stream, p) for stream in PUBLIC_STREAMS for p in range(settings.partitions)]
        begin = (
            {(stream, p): start_offsets.get(f"{stream}/{p}", -1) for stream, p in places}
            if start_offsets
            else log.end_offsets(places)
        )
        reader = log.reader(places, begin)
        gc.freeze()
        while not StopFlag.requested:
            pipe = None
            for record in reader.poll(LIMIT, WAIT):
                event = events.decode(record.value)
                if event.name == MARKER_EVENT:
                    pipe = pipe or out.pipeline(transaction=False)
                    who = events.normalize_id(event.anonymous_id) or ""
                    body = encode({"campaign": MARKER_CAMPAIGN, "anonymous_id": who, "at": time.time_ns() // 1_000_000})
                    pipe.publish(pubsub_channel(settings.shop, who), body)
            if pipe is not None:
                pipe.execute()
        reader.close()


if __name__ == "__main__":
    run(msgspec.json.decode(sys.argv[1], type=dict[str, int]))
