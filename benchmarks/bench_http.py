"""Time from the POST of an event to its action in the client's event stream.

1,000 clients hold one stream each (with cookie and token, as in a browser) and post events at a fixed rate,
independent of the servers. Each client gets one marker. The floor is a minimal app (`floor_http.py`) instead of edge,
on-site flow and Redis. The clock starts when the request is sent and stops when the action arrives.
"""

import asyncio
import random
import time
from typing import NamedTuple

import msgspec
import uvloop

from benchmarks import data
from benchmarks.http_client import Client, Stream
from benchmarks.instance import BenchmarkInstance
from benchmarks.report import Budget, Result, make_result, percentile
from connectors.ops.up import is_healthy

CONNECTION_COUNT = 64
"""Connections shared by all posts."""
SETTLE_SECONDS = 1.0
EXPECTED_BYTES = f'"campaign":"{data.MARKER_CAMPAIGN}"'.encode()


class Run(NamedTuple):
    """One round: latencies (ms) of the stream and of the POST response."""

    latencies: list[float]
    answers: list[float]
    missing: int
    refused: int
    late_p99_ms: float


class StreamClient(NamedTuple):
    """A client with an open stream."""

    anonymous_id: str
    stream: Stream


def measure(instance: BenchmarkInstance, rate: int, listeners: int, seconds: float, rounds: int) -> list[Result]:
    """Measure p50 and p99."""
    runs: dict[str, list[Run]] = {"floor": [], "edge": []}
    for n in range(rounds):
        for engine in ("floor", "edge") if n % 2 == 0 else ("edge", "floor"):
            if engine == "floor":
                instance.start_module("floor", "floor_http")
                instance.wait_until(lambda: is_healthy(instance.settings), "the floor responds")
            else:
                instance.start_attimo("onsite")
                instance.wait_until_ready("onsite")
                instance.start_attimo("edge")
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runs[engine].append(runner.run(_run(instance, engine, rate, listeners, seconds, n)))
            for name in ("floor",) if engine == "floor" else ("edge", "onsite"):
                instance.stop(name)
    ours, floor = runs["edge"], runs["floor"]
    every = [one for run in ours for one in run.latencies]
    answers = [one for run in ours for one in run.answers]
    note = (
        f"{len(every)} messages timed in {rounds} rounds of {seconds:g} s; "
        f"{sum(run.missing for run in ours)} missing, {sum(run.refused for run in ours)} posts refused; "
        f"the response to the POST took "
        f"{percentile(answers, 0.5):.2g} ms (p50), {percentile(answers, 0.99):.2g} ms (p99); the client was "
        f"{max(run.late_p99_ms for run in ours):.2g} ms late at its p99"
    )
    name = f"HTTP POST -> SSE event, {rate:,} events/s, {listeners:,} listeners"
    return [
        make_result(
            f"{name}, p50",
            "ms",
            [percentile(run.latencies, 0.5) for run in ours],
            [percentile(run.latencies, 0.5) for run in floor],
            Budget("<= 4 ms", at_most=4),
            note,
        ),
        make_result(
            f"{name}, p99",
            "ms",
            [percentile(run.latencies, 0.99) for run in ours],
            [percentile(run.latencies, 0.99) for run in floor],
            Budget("<= 15 ms", at_most=15),
        ),
    ]


async def _run(instance: BenchmarkInstance, engine: str, rate: int, listeners: int, seconds: float, n: int) -> Run:
    client = Client(instance.settings.port)
    await client.connect(CONNECTION_COUNT)
    first = (n * 2 + (engine == "floor")) * listeners
    ids = [data.anonymous_id(first + k) for k in range(listeners)]
    visitors: list[StreamClient] = []
    for start in range(0, listeners, CONNECTION_COUNT):
        visitors += await asyncio.gather(
            *(_open_client(instance, client, engine, one) for one in ids[start : start + CONNECTION_COUNT])
        )
    try:
        return await _generate_load(instance, client, visitors, rate, seconds, n)
    finally:
        for visitor in visitors:
            visitor.stream.close()
        client.close()


async def _open_client(instance: BenchmarkInstance, client: Client, engine: str, anonymous_id: str) -> StreamClient:
    """Connect like a browser: first page, cookie, token, stream."""
    port = instance.settings.port
    if engine == "floor":
        return StreamClient(anonymous_id, await Stream.open(port, f"/v1/stream?id={anonymous_id}", "", EXPECTED_BYTES))
    page = {
        "type": "page",
        "anonymousId": anonymous_id,
        "messageId": f"first-{anonymous_id}",
        "writeKey": instance.settings.write_key,
        "properties": {},
    }
    answer = await client.post("/v1/page", msgspec.json.encode(page))
    cookie = answer.headers.partition(b"set-cookie: ")[2].partition(b";")[0].decode()
    if answer.status != 200 or not cookie:
        raise RuntimeError(f"no cookie for the first page: {answer}")
    asked = msgspec.json.encode({"anonymousId": anonymous_id, "writeKey": instance.settings.write_key})
    answer = await client.post("/v1/stream/token", asked, cookie)
    if answer.status != 200:
        raise RuntimeError(f"no token: {answer}")
    token = msgspec.json.decode(answer.body)["token"]
    return StreamClient(anonymous_id, await Stream.open(port, f"/v1/stream?token={token}", cookie, EXPECTED_BYTES))


async def _generate_load(
    instance: BenchmarkInstance, client: Client, visitors: list[StreamClient], rate: int, seconds: float, n: int
) -> Run:
    """Post at a fixed rate, with evenly spread markers after the first second."""
    count, settle = int(rate * (seconds + SETTLE_SECONDS)), int(rate * SETTLE_SECONDS)
    chance = random.Random(n)
    traffic = data.EventGenerator(instance.persons, 50 + n, marker_share=0)
    marks = data.EventGenerator(instance.persons, 70 + n, marker_share=1)
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
        while (ahead := due - time.monotonic_ns()) > 0:  # noqa: ASYNC110 - busy-wait for the clock
            await asyncio.sleep(ahead / 1e9)
        late.append((time.monotonic_ns() - due) / 1e6)
        visitor = whom.get(k)
        one = next(traffic if visitor is None else marks)
        who = (visitor or chance.choice(visitors)).anonymous_id
        body = one.to_post_body(time.time_ns() // 1_000_000, instance.settings.write_key)
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
        raise RuntimeError(f"none of {len(posted)} marker messages arrived\n{instance.log_tails()}")
    return Run(latencies, answers, len(posted) - len(latencies), refused, percentile(late, 0.99))
