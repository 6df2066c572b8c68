"""Rehearsal: the same steps over what is recorded; against what was live, against itself, and what it says."""

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.history import recorded
from connectors.playbook_folder import read
from connectors.rehearsal_report import text
from domain.action import Action
from domain.message import Message
from domain.model import Model
from domain.rehearsal import decode
from domain.rehearsal import encode as canonical
from domain.settings import Settings
from domain.streams import PUBLIC
from flows.rehearsal import decisions, follow, rehearse
from flows.rehearsal_plan import Wish
from state.rules import compile_rules
from tests.live import T0, Live

SHOP = """
currency = "EUR"
timezone = "Europe/Rome"
[limits]
per_session = 4
cooldown = "20s"
[consent]
default = "denied"
purposes = { marketing = "granted" }
"""
FILES = {
    "segments/browsing.toml": "[when]\nsession = { products_at_least = 2 }\n",
    "segments/asleep.toml": '[when]\nsession = { pages_at_least = 1 }\ncart = { untouched_for = "3m" }\n',
    "campaigns/hello.toml": """
format = "banner"
trigger = { seconds_on_site = 60 }
[when]
session = { pages_at_least = 1 }
[content.default]
title = "Hello"
""",
    "campaigns/added.toml": """
format = "bar"
priority = 5
trigger = { event = "Product Added" }
limits = { per_session = 2 }
[content.default]
title = "Good choice: {{ cart.value | money }}"
""",
    "campaigns/also_added.toml": """
format = "bar"
trigger = { event = "Product Added" }
[content.default]
title = "Another bar"
""",
    "campaigns/looking.toml": """
format = "popup"
trigger = { segment = "browsing" }
[content.default]
title = "Anything we can help with?"
""",
    "campaigns/cart_waits.toml": """
format = "popup"
trigger = { segment = "asleep" }
[content.default]
title = "Your cart waits"
""",
    "campaigns/leaving.toml": """
format = "popup"
trigger = { exit_intent = true }
valid_for = "5m"
[when]
cart = { items_at_least = 1 }
[content.default]
title = "{{ cart.count }} things"
""",
    "campaigns/likely.toml": """
format = "popup"
trigger = { exit_intent = true }
priority = 9
[when]
in_segment = "likely_buyers"
[content.default]
title = "For you"
""",
    "campaigns/nudge.toml": """
format = "popup"
trigger = { workflow = true }
[content.default]
title = "Still here?"
""",
    "campaigns/receipt.toml": """
format = "email"
purpose = "service"
trigger = { event = "Order Completed" }
limits = { per_day = 3 }
[content.default]
title = "Thank you"
body = "<p>It is on its way.</p>"
""",
    "workflows/wake.toml": """
enters = { segment = "browsing" }
leaves = { did = { event = "Order Completed", within = "1h" } }
again = "always"
[[steps]]
wait = "2m"
[[steps]]
send = "nudge"
patience = "10m"
[[steps]]
wait_for = { event = "Product Added", within = "5m", otherwise = "over" }
[[steps]]
tag = "woken"
[[steps]]
id = "over"
exit = true
""",
    "segments/woken.toml": "static = true\n",
}
CUP = {"product_id": "cup", "name": "Cup", "price": 9.5, "currency": "EUR", "quantity": 1}


def folder(at: Path, **more: str) -> Path:
    """The playbook of these tests, with other files in place of some."""
    for name, content in {"shop.toml": SHOP, **FILES, **more}.items():
        (at / name).parent.mkdir(parents=True, exist_ok=True)
        (at / name).write_text(content)
    return at


def model(n: int) -> Model:
    return Model(kind="propensity", version=n, hash=f"model-{n}", weights={"products": 0.9 * (-1) ** n}, intercept=0.1)


def lived(tmp_path: Path, seed: int, moments: int = 250) -> Live:
    """Some people over some hours: they look, add, log in on several browsers, leave, buy; shards come along."""
    live = Live(tmp_path / "data", compile_rules(read(folder(tmp_path / "shop"))), seed)
    chance = live.chance
    for n in range(moments):
        live.now += chance.choice((0, 1, 40, 900, 5_000, 30_000, 61_000, 200_000, 1_900_000))
        who = f"b{chance.randrange(9)}"
        user = f"user-{chance.randrange(3)}" if chance.random() < 0.25 else ""
        name = chance.choice(("Page Viewed", "Product Viewed", "Product Viewed", "Product Added", "Product Added",
                              "Exit Intent", "Exit Intent", "Order Completed", "Cart Cleared", "Signed Out",
                              "Identified"))
        more: dict[str, Any] = {"properties": {**CUP, "order_id": f"o{n}"}}
        if name == "Identified":
            more = {"traits": {"email": f"{user or who}@shop.example"}}
        live.happens(who, name, user, **more)
        if chance.random() < 0.1:
            live.learns(model(n))
        for partition in range(4):
            if chance.random() < 0.6:
                live.reads(partition, chance.choice((1, 2, 1_000)))
            if chance.random() < 0.5:
                live.ticks(partition)
    live.rests()
    return live


@pytest.mark.parametrize("seed", range(8))
def test_as_recorded_is_what_was_live(tmp_path: Path, seed: int) -> None:
    """Every action and message again, with the same id and the same bytes: logins, timers, models, late readers."""
    live = lived(tmp_path, seed)
    expected = live.decided()
    live.close()
    wish = Wish(str(tmp_path / "shop"), as_recorded=True, end="2031-01-01")
    found = {decided.id: msgspec.json.encode(decided) for decided in decisions(live.settings, wish)
             if isinstance(decided, Action | Message)}
    kinds = Counter(msgspec.json.decode(body).get("type", "message") for body in expected.values())
    assert min(kinds[kind] for kind in ("send", "arm", "disarm", "hold", "move", "message")) > 3
    assert found.keys() == expected.keys()
    assert found == expected
