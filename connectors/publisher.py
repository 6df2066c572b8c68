"""The publisher: takes effects out of the outbox to Redis and to the log, in order, and says what has arrived.

    rows ──▶ Redis   at once { HSET armed:… ; PEXPIRE ; PUBLISH onsite:… }   send, arm, disarm that are not stale
         └─▶ log     actions, letters, outcomes, rejects

People are told at once; the log is told of what came within a few milliseconds in one go (`gather`), because each
append costs half as much as an event. Letters are not kept back: another shard waits for them.

A row counts as sent when both have it. While Redis is away rows wait here (they are in the outbox too) and go out when
it is back, unless they have become stale by then. Every effect may go out twice after a crash, with the same id.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec
import redis

from connectors import metrics
from connectors.log import Log, Ticket
from domain import action as actions
from domain.action import Arm, Disarm, Send, armed_key, channel, filled_key, published
from domain.effect import Row
from domain.failpoint import failpoint
from domain.record import UNREADABLE, Outgoing
from domain.streams import ACTIONS, LETTERS, PEOPLE

GATHERED = 50
"""Rows that the log is told of in one go, whatever the time."""
RETRY = 0.2
CATCHING_UP = 60_000
"""Milliseconds: a timer that fires later than this was due while nobody was there."""
LOOK = 1.0
"""Seconds between two looks whether Redis still has what it was filled with."""
PATIENCE = 10.0
"""Seconds that a fill may take."""
REBUILD = 200_000
"""At most so many of the latest actions are read to fill a Redis that has come back empty."""

_ONSITE = (b'{"type":"send"', b'{"type":"arm"', b'{"type":"disarm"')
_encode = msgspec.json.Encoder().encode

_SAY = """
if tonumber(ARGV[3]) > 0 then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
  redis.call('PEXPIRE', KEYS[1], ARGV[3], 'NX')
  redis.call('PEXPIRE', KEYS[1], ARGV[3], 'GT')
else
  redis.call('HDEL', KEYS[1], ARGV[1])
end
redis.call('PUBLISH', ARGV[4], ARGV[2])
return redis.call('EXISTS', KEYS[2])
"""
"""One action, all of it or nothing. KEYS: armed set, marker; ARGV: campaign, what is published, how long it lives (ms;
0: it is over), channel. A script, because a MULTI of five commands takes the client twice as long."""
_SAY_SHA = hashlib.sha1(_SAY.encode(), usedforsecurity=False).hexdigest()


class Publisher:
    """One worker's way out. `wall` gives the wall clock in ms: staleness is measured against it.

    What the log is to be told may wait for `gather` seconds; who has nothing else to do calls `flush`.
    """

    def __init__(self, log: Log, url: str, shop: str, wall: Callable[[], int], gather: float = 0.0) -> None:
        self._log = log
        self._gather = gather
        self._unsaid: list[Outgoing] = []
        self._unsaid_of: dict[int, None] = {}
        self._since = 0.0
        self._shop = shop
        self._wall = wall
        self._redis = redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=1)
        self._marker = filled_key(shop)
        self._waiting: list[Row] = []
        self._retry_at = 0.0
        self._tickets: list[tuple[Ticket, list[int]]] = []
        self._half: Counter[int] = Counter()
        self._sent: list[int] = []
        self._known: Counter[int] = Counter()
        self._filled = False

    def send(self, rows: Sequence[Row]) -> None:
        """Take rows out, in order. Never raises for a Redis that is away; LogError when the log refuses."""
        rows = [row for row in rows if row.seq not in self._known]
        if not rows:
            return
        self._known.update([row.seq for row in rows])
        onsite = [row for row in rows if row.stream == ACTIONS and row.body.startswith(_ONSITE)]
        feedback: list[Outgoing] = []
        if onsite:
            # Half sent: Redis has it or will have it; the other half is the log.
            self._half.update([row.seq for row in onsite])
            if self._waiting:
                self._waiting += onsite
            else:
                feedback = self._to_redis(onsite)
                failpoint("onsite:after_redis")
        if not self._unsaid:
            self._since = time.monotonic()
        self._unsaid += [Outgoing(row.stream, row.key, row.body, None, row.at) for row in rows]
        self._unsaid += feedback
        self._unsaid_of.update(dict.fromkeys([row.seq for row in rows]))
        if self.overdue or len(self._unsaid) >= GATHERED or any(row.stream == LETTERS for row in rows):
            self.flush()

    @property
    def gathers(self) -> bool:
        """Whether there is something that the log is yet to be told."""
        return bool(self._unsaid)

    @property
    def overdue(self) -> bool:
        """Whether that has waited long enough, whatever else there is to do."""
        return bool(self._unsaid) and time.monotonic() - self._since >= self._gather

    def flush(self) -> None:
        """Tell the log what was gathered; LogError when it refuses."""
        if self._unsaid:
            self._tickets.append((self._log.begin(self._unsaid), list(self._unsaid_of)))
            self._unsaid, self._unsaid_of = [], {}

    def _to_redis(self, rows: list[Row]) -> list[Outgoing]:
        """Publish rows; what is stale is held, and said so to `people`. Rows wait when Redis is away."""
        now, held, going = self._wall(), list[tuple[Row, Send | Arm]](), list[Send | Arm | Disarm]()
        for row in rows:
            action = actions.decode(row.body)
            if isinstance(action, Send | Arm) and action.not_after <= now:
                held.append((row, action))
            elif isinstance(action, Send | Arm | Disarm):
                going.append(action)
        try:
            if not self._filled:
                self._fill()
            if going and not self._published(going, now):
                # It came back empty between two messages, and the connection with it: fill it, and say this again.
                self._fill()
                self._published(going, now)
        except (redis.RedisError, OSError):
            self._waiting += rows
            self._retry_at = time.monotonic() + RETRY
            self._filled = False
            return []
        done = self._wall()
        for row in rows:
            self._half[row.seq] -= 1
            if not self._half[row.seq]:
                del self._half[row.seq]
            late = max(0, done - row.at)
            # Recorded days, and timers that fire for a past nobody lived through, tell nothing about latency.
            if not row.history and (late < CATCHING_UP or not row.id.startswith("timer-")):
                metrics.LATENCY.observe(late / 1000)
        if held:
            metrics.STALE.inc(len(held))
        return [_held(row, action) for row, action in held if isinstance(action, Send) and not row.history]

    def _published(self, going: Sequence[Send | Arm | Disarm], now: int) -> bool:
        """Publish; whether Redis still has what it was filled with."""
        calls = [self._call(action, now) for action in going]
        try:
            return self._say(calls)
        except redis.exceptions.NoScriptError:  # a new Redis, which has carried out none of them
            self._redis.script_load(_SAY)
            return self._say(calls)

    def _call(self, action: Send | Arm | Disarm, now: int) -> tuple[str | bytes | int, ...]:
        text = _encode(published(action, self._shop, now))
        lives = 0 if isinstance(action, Disarm) else max(1, action.not_after - now)
        return (armed_key(self._shop, action.anonymous_id), self._marker, action.campaign, text, lives,
                channel(self._shop, action.anonymous_id))

    def _say(self, calls: Sequence[tuple[str | bytes | int, ...]]) -> bool:
        if len(calls) == 1:
            return bool(self._redis.evalsha(_SAY_SHA, 2, *calls[0]))
        pipe = self._redis.pipeline(transaction=False)
        for call in calls:
            pipe.evalsha(_SAY_SHA, 2, *call)
        return bool(pipe.execute()[-1])

    def _fill(self) -> None:
        """Redis is new to us: if it has come back empty, put the armed sets there again, from the log of actions."""
        if not self._redis.exists(self._marker):
            now, latest = self._wall(), dict[tuple[str, str], Send | Arm]()
            places = [(ACTIONS, p) for p in range(self._log.partitions)]
            ends = self._log.ends(places)
            reader = self._log.reader(places, {place: max(-1, end - REBUILD) for place, end in ends.items()})
            try:
                left = {place: end for place, end in ends.items() if end >= 0}
                until = time.monotonic() + PATIENCE
                while left and time.monotonic() < until:
                    for record in reader.poll(1000, 0.1):
                        if record.offset >= left.get((record.stream, record.partition), record.offset + 1):
                            del left[record.stream, record.partition]
                        if not record.value.startswith(_ONSITE):
                            continue
                        try:
                            action = actions.decode(record.value)
                        except UNREADABLE:  # of another version, or nothing of ours
                            continue
                        if isinstance(action, Send | Arm) and action.not_after > now:
                            latest[action.anonymous_id, action.campaign] = action
                        elif isinstance(action, Disarm):
                            latest.pop((action.anonymous_id, action.campaign), None)
            finally:
                reader.close()
            pipe = self._redis.pipeline(transaction=False)
            for action in latest.values():
                key = armed_key(self._shop, action.anonymous_id)
                pipe.hsetnx(key, action.campaign, _encode(published(action, self._shop, now)))
                pipe.pexpire(key, action.not_after - now, nx=True)
                pipe.pexpire(key, action.not_after - now, gt=True)
            pipe.set(self._marker, now)  # last: a fill that is cut short is done again
            pipe.execute()
        self._filled = True

    def retry(self) -> None:
        """Try again what waits for Redis, and see now and then whether it came back empty; cheap most of the time."""
        moment = time.monotonic()
        if moment < self._retry_at:
            return
        self._retry_at = moment + LOOK
        rows, self._waiting = self._waiting, []
        if rows:
            if feedback := self._to_redis(rows):
                self._log.append(feedback)
            return
        try:
            self._fill()
        except (redis.RedisError, OSError):
            self._filled = False

    def acknowledged(self) -> list[int]:
        """The commits whose rows have arrived everywhere since the last call; LogError when the log lost one."""
        if self._tickets:
            still = []
            for ticket, seqs in self._tickets:
                if ticket.done():
                    self._sent += seqs
                else:
                    still.append((ticket, seqs))
            self._tickets = still
        if not self._sent:
            return []
        if not self._half:
            done, self._sent = self._sent, []
        else:
            done = [seq for seq in self._sent if seq not in self._half]
            self._sent = [seq for seq in self._sent if seq in self._half]
        for seq in done:
            del self._known[seq]
        return done

    def pending(self) -> int:
        """Rows that are out and not acknowledged."""
        return self._known.total()

    def close(self) -> None:
        self._redis.close()


def _held(row: Row, action: Send) -> Outgoing:
    """Feedback: a decision was not carried out because it came too late. Recognised when it is written again."""
    about = {"userId": action.person[2:]} if action.person.startswith("u:") else {"anonymousId": action.person[2:]}
    event = {
        "type": "track", "event": "Offer Held", "messageId": f"held-{action.id}", **about,
        "properties": {"action_id": action.id, "campaign": action.campaign, "reason": "stale"},
    }
    return Outgoing(PEOPLE, row.key, _encode(event))

