"""A small shop with one of everything that a playbook can say, and the laws that hold for whoever runs it.

    Product Added    a bar in two variants with a goal; a workflow (letter, a second, tag, goal); a basket (static)
    Product Viewed   a popup with a coupon; who looks twice within a second is keen, and sees a banner

Without limits: what must come out can be counted.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from domain import action as actions
from domain import message as messages
from domain.action import Action, CouponNews, Progress, Send
from domain.message import Message
from domain.outcome import Outcome
from state.person import Person

CODES = 2_000

FILES = {
    "shop.toml": """
        currency = "EUR"
        timezone = "Europe/Rome"
        limits = { per_session = 1000, per_day = 1000 }
        """,
    "campaigns/added.toml": """
        format = "bar"
        valid_for = "10m"
        trigger = { event = "Product Added" }
        limits = { per_session = 1000 }
        goal = { event = "Order Completed", within = "1h", value = "revenue" }
        content = { default = { title = "It is in your cart" } }
        [variants.calm]
        share = 2
        [variants.loud]
        content = { default = { title = "It is in your cart!" } }
        """,
    "campaigns/ten.toml": """
        format = "popup"
        valid_for = "10m"
        coupon = "ten"
        trigger = { event = "Product Viewed" }
        limits = { per_session = 1000 }
        content = { default = { title = "Ten percent with {{ coupon.code }}" } }
        """,
    "campaigns/keen.toml": """
        format = "banner"
        valid_for = "10m"
        trigger = { segment = "keen" }
        limits = { per_session = 1000 }
        content = { default = { title = "You know what you want" } }
        """,
    "campaigns/letter.toml": """
        format = "email"
        trigger = { workflow = true }
        content = { default = { title = "Still there?", body = "<p>We are</p>" } }
        """,
    "coupons/ten.toml": f"""
        percent = 10
        size = {CODES}
        prefix = "TEN-"
        """,
    "segments/basket.toml": """
        static = true
        stays = "1s"
        enter_on = [{ event = "Product Added" }]
        leave_on = [{ event = "Order Completed" }]
        """,
    "segments/nudged.toml": """
        static = true
        """,
    "segments/keen.toml": """
        when = { did = { event = "Product Viewed", at_least = 2, within = "1s" } }
        """,
    "workflows/nudge.toml": """
        enters = { event = "Product Added" }
        again = "always"
        [[steps]]
        send = "letter"
        [[steps]]
        wait = "1s"
        [[steps]]
        tag = "nudged"
        [[steps]]
        goal = "thought"
        """,
}


def write(folder: Path) -> Path:
    """The shop as files."""
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(re.sub(r"^ +", "", text, flags=re.MULTILINE))
    return folder


def decided(bodies: Iterable[bytes]) -> list[Action]:
    """What the stream `actions` says."""
    return [actions.decode(body) for body in bodies]


# -- laws, of everything that was decided and everybody in the store -----------------------------------------------


def each_run_reaches_its_goal_once(found: Iterable[Action]) -> int:
    """Every way through the workflow that began; only what two ids of one person began at a time is one too many."""
    ways = [one for one in found if isinstance(one, Progress)]
    began = Counter(one.run for one in ways if one.what == "entered")
    reached = Counter(one.run for one in ways if one.what == "goal")
    finished = Counter(one.run for one in ways if one.what == "finished")
    left = {one.run: one.because.reason for one in ways if one.what == "left"}
    assert set(began.values()) <= {1}
    assert set(reached.values()) <= {1}
    assert reached == finished
    assert set(left.values()) <= {"was in it already, under another id"}
    assert not left.keys() & reached.keys()
    assert began.keys() == reached.keys() | left.keys()
    return len(reached)


def each_code_is_one_persons(found: Iterable[Action], everybody: Iterable[Person]) -> int:
    """Over all persons and desks: nobody has a code that another one has, or that is still to be given out."""
    news = [one for one in found if isinstance(one, CouponNews)]
    given = Counter(one.code for one in news if one.what == "reserved")
    everybody = list(everybody)
    held = [one.code for person in everybody for one in person.coupons]
    on_desks = [code for person in everybody if person.desk is not None for code in person.desk.codes]
    assert set(given.values()) <= {1}
    assert max(Counter([*held, *on_desks]).values(), default=0) <= 1
    assert sorted(held) == sorted(given)
    assert set(Counter(one.code for one in news if one.what == "redeemed").values()) <= {1}
    waiting = [person.id for person in everybody for later in person.later.values() if any(one.pool for one in later)]
    assert not waiting, "codes have come, and somebody was not told"
    return len(held)


def each_message_is_written_once(found: Iterable[Message], outbox: Path) -> int:
    """What was decided to be written is one line of the outbox, and nothing else is."""
    lines = Counter(messages.decode(line).id for path in sorted(outbox.glob("*.jsonl"))
                    for line in path.read_bytes().split(b"\n")[:-1])
    assert set(lines.values()) <= {1}
    assert lines.keys() == {one.id for one in found}
    return len(lines)


def each_goal_is_told_once(found: Iterable[Outcome]) -> int:
    """Of one showing at most one outcome; both variants are somebody's."""
    goals = [one for one in found if one.kind == "goal"]
    assert set(Counter(one.action_id for one in goals).values()) <= {1}
    assert {one.variant for one in goals} <= {"calm", "loud"}
    return len(goals)


def one_variant_each(found: Iterable[Action]) -> set[str]:
    """Whoever saw the bar saw one side of it."""
    sides: Mapping[str, set[str]] = {}
    seen: dict[str, set[str]] = dict(sides)
    for one in found:
        if isinstance(one, Send) and one.campaign == "added":
            seen.setdefault(one.anonymous_id, set()).add(one.because.variant)
    assert all(len(some) == 1 for some in seen.values())
    return {side for some in seen.values() for side in some}


def settled(everybody: Mapping[str, Person], now: int) -> bool:
    """Whether nobody is on their way any more, and every message was answered for."""
    return at_rest(everybody, now) and not any(
        one.state == "sent" for person in everybody.values() for one in person.written)


def at_rest(everybody: Mapping[str, Person], now: int) -> bool:
    """Whether nothing will happen by itself within half a minute of `now` (ms)."""
    return not any(person.runs or any(due < now + 30_000 for due in person.timers.values())
                   for person in everybody.values())


def product(n: int, **more: Any) -> dict[str, Any]:
    """What somebody looks at, or adds."""
    return {"product_id": f"p{n % 7}", "name": "Cup", "price": 9.5, "currency": "EUR", "quantity": 1, **more}
