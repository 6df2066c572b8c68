"""The whole way of a message: something happens, a campaign speaks, the outbox has it, and the person knows it.

Real processes over one folder: edge, onsite, outreach; killed in between, too.
"""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from domain import message as messages
from domain.message import Message
from tests.system import House, house

pytestmark = [pytest.mark.redis, pytest.mark.timeout(300)]

SHOP = """
url = "https://shop.example"
currency = "EUR"
timezone = "Europe/Rome"
events = ["Quiz Finished"]
"""
REMINDER = """
format = "email"
[trigger]
event = "Checkout Started"
[content.default]
title = "Your {{ cart.items[0].name }} waits, {{ first_name }}"
body = "<p>{{ traits.city }}</p>"
url = "/shop/cart.html"
[limits]
total = 1
"""
HOOK = """
format = "webhook"
[trigger]
event = "Quiz Finished"
[content.default]
title = "Quiz"
"""
CUP = {"product_id": "cup", "name": "Cup <b>of</b>\r\nBcc: all@x.example\u2028tea", "price": 9.5, "currency": "EUR",
       "quantity": 2}


@pytest.fixture
def home(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[House]:
    """A house; `channels` as the test asks for."""
    folder = tmp_path / "shop"
    (folder / "campaigns").mkdir(parents=True)
    (folder / "shop.toml").write_text(SHOP)
    (folder / "campaigns" / "reminder.toml").write_text(REMINDER)
    (folder / "campaigns" / "quiz.toml").write_text(HOOK)
    with house(tmp_path / "data", folder, channels=getattr(request, "param", ("file",))) as made:
        yield made


def track(home: House, who: str, event: str, **properties: Any) -> None:
    home.post("/v1/track", {"event": event, "userId": who, "properties": properties}, key="server-key")


def lines(home: House) -> list[Message]:
    return [messages.decode(one) for path in sorted((home.folder / "outbox").glob("*.jsonl"))
            for one in path.read_bytes().split(b"\n")[:-1]]


def said(home: House, who: str, campaign: str) -> int:
    person = home.persons().get(f"u:{who}")
    found = person.said.get(campaign) if person is not None else None
    return found.total if found is not None else 0


def explain(home: House, who: str, campaign: str) -> str:
    done = subprocess.run([sys.executable, "-m", "attimo", "explain", who, campaign], env=home.environment({}),
                          cwd=home.folder, capture_output=True, text=True, check=True)
    return done.stdout


def shops(home: House, who: str, email: str = "ann@x.example") -> None:
    home.post("/v1/identify", {"userId": who, "traits": {
        "email": email, "first_name": "Ann <script>x()</script>", "city": "Roma\r\n<img src=x onerror=y>"}},
        key="server-key")
    track(home, who, "Product Added", **CUP)
    track(home, who, "Checkout Started", order_id=f"o-{who}", products=[CUP])


def test_from_an_event_to_the_outbox_and_back(home: House) -> None:
    for name in ("edge", "onsite", "outreach"):
        home.start(name)
    shops(home, "ann")
    home.wait(lambda: said(home, "ann", "reminder") == 1, "the person knows that it was said")
    (message,) = lines(home)
    assert (message.person, message.channel, message.campaign) == ("u:ann", "email", "reminder")
    assert message.addresses == {"email": "ann@x.example"}
    assert message.content.title.isprintable(), "a subject is one line"
    assert "<script" not in message.content.html
    assert "<img src" not in message.content.html
    (path,) = (home.folder / "outbox").glob("*.jsonl")
    assert len(path.read_text("utf-8").splitlines()) == 1
    assert "shown" in explain(home, "ann", "reminder")
    assert [one.state for one in home.persons()["u:ann"].written] == ["delivered"]
    assert home.persons()["u:ann"].reserved == []

    home.post("/v1/track", {"event": "Message Bounced", "userId": "ann", "properties": {
        "message_id": message.id, "type": "hard", "reason": "550 no such user"}}, key="server-key")
    home.wait(lambda: bool(home.persons()["u:ann"].unreachable), "the bounce has come back")
    assert "bounced: 550 no such user" in explain(home, "ann", "reminder")
    track(home, "ann", "Quiz Finished")
    home.wait(lambda: said(home, "ann", "quiz") == 1, "a webhook needs no address")
    assert [home.stop(name) for name in ("outreach", "onsite", "edge")] == [0, 0, 0]


@pytest.mark.parametrize("home", [("sms:file",)], indirect=True)
def test_without_an_address_or_a_channel_it_is_held_and_said_why(home: House) -> None:
    for name in ("edge", "onsite", "outreach"):
        home.start(name)
    shops(home, "eve", "eve@x.example\r\nBcc: all@x.example")
    home.wait(lambda: "u:eve" in home.persons() and "reminder" in home.persons()["u:eve"].decisions, "it was decided")
    assert "no_address" in explain(home, "eve", "reminder")
    shops(home, "bob", "bob@x.example")
    home.wait(lambda: [one.state for p in home.persons().values() for one in p.written] == ["held"], "it is held")
    assert "no_channel" in explain(home, "bob", "reminder")
    assert lines(home) == []
    assert home.persons()["u:bob"].reserved == []


@pytest.mark.parametrize("place", ["onsite:after_publish#3", "outreach:after_send", "outreach:after_feedback"])
def test_killed_anywhere_everybody_gets_it_once(home: House, place: str) -> None:
    name = place.partition(":")[0]
    home.start("edge")
    for process in ("onsite", "outreach"):
        home.start(process, crash_at=place if process == name else "")
    people = [f"p{n}" for n in range(12)]
    for who in people[:8]:
        shops(home, who)
    assert home.died(name, 60) == 137
    home.start(name)
    for who in people[8:]:
        shops(home, who)
    home.wait(lambda: all(said(home, who, "reminder") for who in people), "everybody knows that it was said")
    home.wait(home.drained, "all is applied")
    assert Counter(one.person for one in lines(home)) == Counter(f"u:{who}" for who in people)
    assert {said(home, who, "reminder") for who in people} == {1}
    assert {home.persons()[f"u:{who}"].own().counts["Message Delivered"].n for who in people} == {1}
    assert [home.stop(process) for process in ("outreach", "onsite")] == [0, 0]
