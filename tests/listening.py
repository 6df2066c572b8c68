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

from connectors.identity_tokens import COOKIE
from domain.action import Send, channel
from tests.system import HEADERS, House


class Listener:
    """A plain subscriber of every channel: what it hears, it notes."""

    def __init__(self, url: str, shop: str) -> None:
        self.heard: list[str] = []
        self.said: Counter[str] = Counter()
        """How often each action was said."""
        self.told: dict[str, tuple[str, str]] = {}
        self.codes: dict[str, str] = {}
        """What was sent and not yet answered: action id -> (who, campaign); and the code that somebody was offered."""
        self._redis = redis.Redis.from_url(url)
        self._pubsub = self._redis.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]  # redis-py
        self._pubsub.psubscribe(**{channel(shop, "*"): self._note})
        self._thread = self._pubsub.run_in_thread(sleep_time=0.01)

    def _note(self, message: dict[str, bytes]) -> None:
        plain = msgspec.json.decode(message["data"])
        self.said[plain["id"]] += 1
        if plain["type"] == "send" and plain["id"] not in self.heard:  # after a crash it may be said once more
            self.heard.append(plain["id"])
            self.told[plain["id"]] = (plain["anonymous_id"], plain["campaign"])
            if code := plain["content"].get("coupon"):
                self.codes[plain["anonymous_id"]] = code

    def astray(self, sends: Sequence[Send]) -> set[str]:
        """What was heard and not decided, or decided and not heard."""
        return set(self.heard) ^ {one.id for one in sends}

    def close(self) -> None:
        self._thread.stop()
        self._thread.join(5)
        self._redis.close()


class Browsers:
    """One browser for each of these people; each listens until `close`, and comes back whenever its stream ends.

    What is sent to it, it carries out, unless it remembers the action's id: as the widget does. A crowd may ask what
    its people were told (`told`: action id -> who and campaign) and which codes they have.
    """

    def __init__(self, house: House, people: Sequence[str]) -> None:
        self.house = house
        self.told: dict[str, tuple[str, str]] = {}
        self.codes: dict[str, str] = {}
        self.carried_out: dict[str, dict[str, Any]] = {}
        self.streams = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._live, args=(who, self._bound(who)), daemon=True)
                         for who in people]
        for thread in self._threads:
            thread.start()

    def _bound(self, who: str) -> requests.Session:
        """The first visit, which brings the cookie."""
        session = requests.Session()
        session.headers.update(HEADERS)
        session.post(f"{self.house.url}/v1/page", timeout=10, data=json.dumps(
            {"anonymousId": who, "writeKey": self.house.settings.write_key, "messageId": f"first-{who}"}))
        assert COOKIE in session.cookies
        return session

    def _live(self, who: str, session: requests.Session) -> None:
        while not self._stop.is_set():
            try:
                self._listen(who, session)
            except (requests.RequestException, AttributeError, ValueError):  # urllib3 may be in the middle of a line
                pass
            time.sleep(0.05)

    def _listen(self, who: str, session: requests.Session) -> None:
        answer = session.post(f"{self.house.url}/v1/stream/token", timeout=10, data=json.dumps({"anonymousId": who}))
        answer.raise_for_status()
        name = ""
        with session.get(f"{self.house.url}/v1/stream", params={"token": answer.json()["token"]}, stream=True,
                         timeout=(5, 60)) as stream:
            stream.raise_for_status()
            self.streams += 1
            for line in stream.iter_lines(chunk_size=1):
                if line.startswith(b"event: "):
                    name = line[7:].decode()
                elif line.startswith(b"data: "):
                    found = json.loads(line[6:])
                    for action in found if name == "armed" else [found]:
                        self._carry_out(who, action)

    def _carry_out(self, who: str, action: dict[str, Any]) -> None:
        if action["type"] != "send" or action["id"] in self.carried_out:
            return
        self.carried_out[action["id"]] = {**action, "who": who}
        self.told[action["id"]] = (who, action["campaign"])
        if code := action["content"].get("coupon"):
            self.codes[who] = code

    def astray(self, sends: Sequence[Send]) -> set[str]:
        """The ids carried out that were not decided for that person, and those decided and lost.

        A browser that was away is given the latest of each campaign: what came before that is over.
        """
        decided = {one.id: one.anonymous_id for one in sends}
        wrong = {name for name, action in self.carried_out.items() if decided.get(name) != action["who"]}
        latest: dict[tuple[str, str], int] = {}
        for action in list(self.carried_out.values()):
            about = action["who"], action["campaign"]
            latest[about] = max(latest.get(about, 0), action["at"])
        return wrong | {one.id for one in sends if latest.get((one.anonymous_id, one.campaign), 0) < one.at}

    def close(self) -> None:
        """The edge has ended by now, and with it the streams."""
        self._stop.set()
        for thread in self._threads:
            thread.join(20)
