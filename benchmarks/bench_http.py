"""How long from the POST of an event until its message arrives in a client's event stream?

1,000 visitors hold a stream each (cookie and token as a browser gets them) and post their events at a fixed rate,
whatever the servers do. Each is marked once. Edge, on-site flow and Redis are ours; the floor is a bare app (see
`floor_http.py`). The clock starts when the request is handed over, and stops when the bytes of the message are here.
"""

import asyncio
import random
import time
from typing import NamedTuple

import msgspec
import uvloop

from benchmarks import data
from benchmarks.house import House
from benchmarks.http_client import Client, Stream
from benchmarks.report import Budget, Result, percentile, result
from connectors.up import healthy

LINES = 64
"""Connections that posts share."""
SETTLE = 1.0
WANTED = f'"campaign":"{data.CAMPAIGN}"'.encode()


class Run(NamedTuple):
    """One round: latencies in ms, of the stream and of the answer to the POST."""

    latencies: list[float]
    answers: list[float]
    missing: int
    refused: int
    late_p99_ms: float


class Visitor(NamedTuple):
    """Somebody with an open stream."""

    anonymous_id: str
    stream: Stream


def measure(house: House, rate: int, listeners: int, seconds: float, rounds: int) -> list[Result]:
    """Rows: p50 and p99."""
    runs: dict[str, list[Run]] = {"floor": [], "edge": []}
    for n in range(rounds):
        for engine in ("floor", "edge") if n % 2 == 0 else ("edge", "floor"):
            if engine == "floor":
                house.module("floor", "floor_http")
                house.wait(lambda: healthy(house.settings), "the floor answers")
            else:
                house.attimo("onsite")
                house.ready("onsite")
                house.attimo("edge")
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runs[engine].append(runner.run(_run(house, engine, rate, listeners, seconds, n)))
            for name in ("floor",) if engine == "floor" else ("edge", "onsite"):
                house.stop(name)
    ours, floor = runs["edge"], runs["floor"]
    every = [one for run in ours for one in run.latencies]
    answers = [one for run in ours for one in run.answers]
    note = (f"{len(every)} messages timed in {rounds} rounds of {seconds:g} s; "
            f"{sum(run.missing for run in ours)} missing, {sum(run.refused for run in ours)} posts refused; "
            f"the POST itself is answered in "
            f"{percentile(answers, 0.5):.2g} ms (p50), {percentile(answers, 0.99):.2g} ms (p99); the client was "
            f"{max(run.late_p99_ms for run in ours):.2g} ms late at its p99")
    name = f"HTTP POST -> SSE event, {rate:,} events/s, {listeners:,} listeners"
    return [
        result(f"{name}, p50", "ms", [percentile(run.latencies, 0.5) for run in ours],
               [percentile(run.latencies, 0.5) for run in floor], Budget("<= 4 ms", most=4), note),
        result(f"{name}, p99", "ms", [percentile(run.latencies, 0.99) for run in ours],
               [percentile(run.latencies, 0.99) for run in floor], Budget("<= 15 ms", most=15)),
    ]


async def _run(house: House, engine: str, rate: int, listeners: int, seconds: float, n: int) -> Run:
    client = Client(house.settings.port)
    await client.connect(LINES)
    first = (n * 2 + (engine == "floor")) * listeners
    ids = [data.anonymous_id(first + k) for k in range(listeners)]
    visitors: list[Visitor] = []
    for start in range(0, listeners, LINES):
        visitors += await asyncio.gather(*(_enter(house, client, engine, one) for one in ids[start:start + LINES]))
    try:
        return await _load(house, client, visitors, rate, seconds, n)
    finally:
        for visitor in visitors:
            visitor.stream.close()
        client.close()


async def _enter(house: House, client: Client, engine: str, anonymous_id: str) -> Visitor:
    """As a browser does it: the first page, the cookie, the token, the stream."""
    port = house.settings.port
    if engine == "floor":
        return Visitor(anonymous_id, await Stream.open(port, f"/v1/stream?id={anonymous_id}", "", WANTED))
    page = {"type": "page", "anonymousId": anonymous_id, "messageId": f"first-{anonymous_id}",
            "writeKey": house.settings.write_key, "properties": {}}
    answer = await client.post("/v1/page", msgspec.json.encode(page))
    cookie = answer.head.partition(b"set-cookie: ")[2].partition(b";")[0].decode()
    if answer.status != 200 or not cookie:
        raise RuntimeError(f"no cookie for the first page: {answer}")
    asked = msgspec.json.encode({"anonymousId": anonymous_id, "writeKey": house.settings.write_key})
    answer = await client.post("/v1/stream/token", asked, cookie)
    if answer.status != 200:
        raise RuntimeError(f"no token: {answer}")
    token = msgspec.json.decode(answer.body)["token"]
    return Visitor(anonymous_id, await Stream.open(port, f"/v1/stream?token={token}", cookie, WANTED))


async def _load(house: House, client: Client, visitors: list[Visitor], rate: int, seconds: float, n: int) -> Run:
    """Post at a fixed rate; the marks are spread evenly, after a second to settle."""
    count, settle = int(rate * (seconds + SETTLE)), int(rate * SETTLE)
    chance = random.Random(n)
    traffic = data.Traffic(house.persons, 50 + n, marks=0)
    marks = data.Traffic(house.persons, 70 + n, marks=1)
    places = sorted(chance.sample(range(settle, count), min(len(visitors), (count - settle) // 5)))
    whom = dict(zip(places, visitors, strict=False))
    posted: dict[str, int] = {}
    answers: list[float] = []
    refused = 0
    late: list[float] = []
    under_way: set[asyncio.Future[None]] = set()

    async def send(path: str, body: bytes) -> None:
        nonlocal refused
        began = time.monotonic_ns()
        answer = await client.post(path, body)
        answers.append((time.monotonic_ns() - began) / 1e6)
        refused += answer.status != 200

    loop = asyncio.get_running_loop()
    start = time.monotonic_ns()
    for k in range(count):
        due = start + k * 1_000_000_000 // rate
        while (ahead := due - time.monotonic_ns()) > 0:  # noqa: ASYNC110 - the clock is what is waited for
            await asyncio.sleep(ahead / 1e9)
        late.append((time.monotonic_ns() - due) / 1e6)
        visitor = whom.get(k)
        one = next(traffic if visitor is None else marks)
        who = (visitor or chance.choice(visitors)).anonymous_id
        body = one.posted(time.time_ns() // 1_000_000, house.settings.write_key)
        body = body.replace(one.anonymous_id.encode(), who.encode())
        if visitor is not None:
            posted[who] = time.monotonic_ns()
        task = loop.create_task(send(f"/v1/{one.call}", body))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    await asyncio.wait_for(asyncio.gather(*under_way), 20)
    streams = {visitor.anonymous_id: visitor.stream for visitor in visitors}
    patience = time.monotonic() + 5
    while time.monotonic() < patience and not all(streams[who].arrived for who in posted):  # noqa: ASYNC110 - 1,000 events
        await asyncio.sleep(0.05)
    latencies = [(streams[who].arrived - at) / 1e6 for who, at in posted.items() if streams[who].arrived]
    if not latencies:
        raise RuntimeError(f"not one of {len(posted)} marks arrived\n{house.said()}")
    return Run(latencies, answers, len(posted) - len(latencies), refused, percentile(late, 0.99))
