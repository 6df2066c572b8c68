"""Who hears what people are told: a plain subscriber of Redis; and visitors' browsers without a browser, with cookie,
token, an event stream that breaks, and the memory of the widget.
"""

import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import redis
import requests

from connectors.http.browser_binding import COOKIE_NAME
from domain.action import Send, pubsub_channel
from tests.harness.instance import HEADERS, RunningInstance


class RedisSubscriber:
    """A plain subscriber of every channel: what it hears, it notes."""

    def __init__(self, url: str, shop: str) -> None:
        self.received: list[str] = []
        self.publish_counts: Counter[str] = Counter()
        """How often each action was said."""
        self.sent: dict[str, tuple[str, str]] = {}
        self.codes: dict[str, str] = {}
        """What was sent and not yet answered: action id -> (who, campaign); and the code that somebody was offered."""
        self._redis = redis.Redis.from_url(url)
        self._pubsub = self._redis.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]  # redis-py
        self._pubsub.psubscribe(**{pubsub_channel(shop, "*"): self._on_message})
        self._thread = self._pubsub.run_in_thread(sleep_time=0.01)

    def _on_message(self, message: dict[str, bytes]) -> None:
        plain = msgspec.json.decode(message["data"])
        self.publish_counts[plain["id"]] += 1
        if plain["type"] == "send" and plain["id"] not in self.received:  # after a crash it may be said once more
            self.received.append(plain["id"])
            self.sent[plain["id"]] = (plain["anonymous_id"], plain["campaign"])
            if code := plain["content"].get("coupon"):
                self.codes[plain["anonymous_id"]] = code

    def mismatched(self, sends: Sequence[Send]) -> set[str]:
        """What was heard and not decided, or decided and not heard."""
        return set(self.received) ^ {one.id for one in sends}

    def close(self) -> None:
        self._thread.stop()
        self._thread.join(5)
        self._redis.close()


class SimulatedBrowsers:
    """One browser for each of these people; each listens until `close`, and comes back whenever its stream ends.

    What is sent to it, it carries out, unless it remembers the action's id: as the widget does. A crowd may ask what
    its people were told (`told`: action id -> who and campaign) and which codes they have.
    """

    def __init__(self, instance: RunningInstance, people: Sequence[str]) -> None:
        self.instance = instance
        self.sent: dict[str, tuple[str, str]] = {}
        self.codes: dict[str, str] = {}
        self.executed: dict[str, dict[str, Any]] = {}
        self.stream_count = 0
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(who, self._open_session(who)), daemon=True) for who in people
        ]
        for thread in self._threads:
            thread.start()

    def _open_session(self, anonymous_id: str) -> requests.Session:
        """The first visit, which brings the cookie."""
        session = requests.Session()
        session.headers.update(HEADERS)
        session.post(
            f"{self.instance.url}/v1/page",
            timeout=10,
            data=json.dumps(
                {
                    "anonymousId": anonymous_id,
                    "writeKey": self.instance.settings.write_key,
                    "messageId": f"first-{anonymous_id}",
                }
            ),
        )
        assert COOKIE_NAME in session.cookies
        return session

    def _run(self, anonymous_id: str, session: requests.Session) -> None:
        while not self._stop.is_set():
            try:
                self._read_stream(anonymous_id, session)
            except (requests.RequestException, AttributeError, ValueError):  # urllib3 may be in the middle of a line
                pass
            time.sleep(0.05)

    def _read_stream(self, anonymous_id: str, session: requests.Session) -> None:
        answer = session.post(
            f"{self.instance.url}/v1/stream/token", timeout=10, data=json.dumps({"anonymousId": anonymous_id})
        )
        answer.raise_for_status()
        name = ""
        with session.get(
            f"{self.instance.url}/v1/stream", params={"token": answer.json()["token"]}, stream=True, timeout=(5, 60)
        ) as stream:
            stream.raise_for_status()
            self.stream_count += 1
            for line in stream.iter_lines(chunk_size=1):
                if line.startswith(b"event: "):
                    name = line[7:].decode()
                elif line.startswith(b"data: "):
                    found = json.loads(line[6:])
                    for action in found if name == "snapshot" else [found]:
                        self._execute(anonymous_id, action)

    def _execute(self, anonymous_id: str, action: dict[str, Any]) -> None:
        if action["type"] != "send" or action["id"] in self.executed:
            return
        self.executed[action["id"]] = {**action, "who": anonymous_id}
        self.sent[action["id"]] = (anonymous_id, action["campaign"])
        if code := action["content"].get("coupon"):
            self.codes[anonymous_id] = code

    def mismatched(self, sends: Sequence[Send]) -> set[str]:
        """The ids carried out that were not decided for that person, and those decided and lost.

        A browser that was away is given the latest of each campaign: what came before that is over.
        """
        decided = {one.id: one.anonymous_id for one in sends}
        wrong = {name for name, action in self.executed.items() if decided.get(name) != action["who"]}
        latest: dict[tuple[str, str], int] = {}
        for action in list(self.executed.values()):
            about = action["who"], action["campaign"]
            latest[about] = max(latest.get(about, 0), action["at"])
        return wrong | {one.id for one in sends if latest.get((one.anonymous_id, one.campaign), 0) < one.at}

    def close(self) -> None:
        """The edge has ended by now, and with it the streams."""
        self._stop.set()
        for thread in self._threads:
            thread.join(20)
