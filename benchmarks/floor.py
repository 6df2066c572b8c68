"""The floor of the on-site flow: read the log, decode, publish every fiftieth event. No state, no decision, no commit.

    python -m benchmarks.floor PLACES      (settings from ATTIMO_*; PLACES: JSON {"stream/partition": offset})

It stops on SIGTERM. The difference between attimo and the floor is what attimo's own logic costs.
"""

import gc
import sys
import time

import msgspec
import redis

from benchmarks.data import CAMPAIGN, MARK
from connectors.open_log import open_log
from connectors.settings import load
from domain import event as events
from domain.action import channel
from domain.streams import PUBLIC
from flows.stopping import Stopping, on_signals

LIMIT, WAIT = 1_000, 0.005
"""As flows/worker.py reads."""


def run(start: dict[str, int]) -> None:
    """Read on from `start` (where it is empty: from the end of now) until SIGTERM."""
    settings = load({})
    on_signals()
    out = redis.Redis.from_url(settings.redis)
    out.ping()
    encode = msgspec.json.Encoder().encode
    with open_log(settings) as log:
        places = [(stream, p) for stream in PUBLIC for p in range(settings.partitions)]
        begin = {(stream, p): start.get(f"{stream}/{p}", -1) for stream, p in places} if start else log.ends(places)
        reader = log.reader(places, begin)
        gc.freeze()
        while not Stopping.now:
            pipe = None
            for record in reader.poll(LIMIT, WAIT):
                event = events.decode(record.value)
                if event.name == MARK:
                    pipe = pipe or out.pipeline(transaction=False)
                    who = events.text_id(event.anonymous_id) or ""
                    body = encode({"campaign": CAMPAIGN, "anonymous_id": who, "at": time.time_ns() // 1_000_000})
                    pipe.publish(channel(settings.shop, who), body)
            if pipe is not None:
                pipe.execute()
        reader.close()


if __name__ == "__main__":
    run(msgspec.json.decode(sys.argv[1], type=dict[str, int]))
