"""A small playbook with every kind of file, and invariants of its results.

    Product Added    a bar in two variants with a goal; a workflow (email, wait, segment, goal); a static segment
    Product Viewed   a popup with a coupon; two views within a second enter a segment, which triggers a banner

Frequency caps are high, so that all expected effects can be counted.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from domain import action as actions
from domain import action as messages
from domain.action import Action, CouponEvent, Message, Outcome, Send, WorkflowProgress
from state.person.model import Person

CODES = 2_000

FILES = {
    "shop.toml": """
        currency = "EUR"
        timezone = "Europe/Rome"
        frequency_caps = { per_session = 1000, per_day = 1000 }
        """,
    "campaigns/added.toml": """
        format = "bar"
        valid_for = "10m"
        trigger = { event = "Product Added" }
        frequency_caps = { per_session = 1000 }
        goal = { event = "Order Completed", within = "1h", value = "revenue" }
        content = { default = { title = "It is in your cart" } }
        [variants.calm]
        weight = 2
        [variants.loud]
        content = { default = { title = "It is in your cart!" } }
        """,
    "campaigns/ten.toml": """
        format = "popup"
        valid_for = "10m"
        coupon = "ten"
        trigger = { event = "Product Viewed" }
        frequency_caps = { per_session = 1000 }
        content = { default = { title = "Ten percent with {{ coupon.code }}" } }
        """,
    "campaigns/keen.toml": """
        format = "banner"
        valid_for = "10m"
        trigger = { segment = "keen" }
        frequency_caps = { per_session = 1000 }
        content = { default = { title = "You know what you want" } }
        """,
    "campaigns/newsletter.toml": """
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
        expires_after = "1s"
        enter_on = [{ event = "Product Added" }]
        exit_on = [{ event = "Order Completed" }]
        """,
    "segments/nudged.toml": """
        static = true
        """,
    "segments/keen.toml": """
        when = { did = { event = "Product Viewed", at_least = 2, within = "1s" } }
        """,
    "workflows/nudge.toml": """
        enter_on = { event = "Product Added" }
        reentry = "always"
        [[steps]]
        send = "newsletter"
        [[steps]]
        wait = "1s"
        [[steps]]
        add_to_segment = "nudged"
        [[steps]]
        goal = "thought"
        """,
}


def write_playbook(folder: Path) -> Path:
    """Write the playbook files."""
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(re.sub(r"^ +", "", text, flags=re.MULTILINE))
    return folder


def decode_actions(bodies: Iterable[bytes]) -> list[Action]:
    """Decode records of the stream `actions`."""
    return [actions.decode_action(body) for body in bodies]


# -- invariants ----------------------------------------------------------------------------------------------------


def check_runs_reach_goal_once(decided: Iterable[Action]) -> int:
    """Every run reaches its goal once, except duplicate runs of two merged ids."""
    progress = [one for one in decided if isinstance(one, WorkflowProgress)]
    entered = Counter(one.run for one in progress if one.transition == "entered")
    reached = Counter(one.run for one in progress if one.transition == "goal")
    finished = Counter(one.run for one in progress if one.transition == "finished")
    exited = {one.run: one.because.reason for one in progress if one.transition == "exited"}
    assert set(entered.values()) <= {1}
    assert set(reached.values()) <= {1}
    assert reached == finished
    assert set(exited.values()) <= {"was in it already, under another id"}
    assert not exited.keys() & reached.keys()
    assert entered.keys() == reached.keys() | exited.keys()
    return len(reached)


def check_codes_have_one_owner(decided: Iterable[Action], persons: Iterable[Person]) -> int:
    """A code belongs to one person at most, or to one code cache."""
    coupon_events = [one for one in decided if isinstance(one, CouponEvent)]
    reserved = Counter(one.code for one in coupon_events if one.status == "reserved")
    persons = list(persons)
    held = [one.code for person in persons for one in person.coupons]
    cached = [code for person in persons if person.code_cache is not None for code in person.code_cache.codes]
    assert set(reserved.values()) <= {1}
    assert max(Counter([*held, *cached]).values(), default=0) <= 1
    assert sorted(held) == sorted(reserved)
    assert set(Counter(one.code for one in coupon_events if one.status == "redeemed").values()) <= {1}
    deferred = [
        person.id for person in persons for sends in person.deferred.values() if any(send.pool for send in sends)
    ]
    assert not deferred, "a message still waits for its code"
    return len(held)


def check_messages_written_once(decided: Iterable[Message], outbox: Path) -> int:
    """Each message is one line of the outbox, and the outbox has no other lines."""
    lines = Counter(
        messages.decode_message(line).id
        for path in sorted(outbox.glob("*.jsonl"))
        for line in path.read_bytes().split(b"\n")[:-1]
    )
    assert set(lines.values()) <= {1}
    assert lines.keys() == {one.id for one in decided}
    return len(lines)


def check_goals_reported_once(decided: Iterable[Outcome]) -> int:
    """An exposure has at most one goal outcome."""
    goals = [one for one in decided if one.kind == "goal"]
    assert set(Counter(one.action_id for one in goals).values()) <= {1}
    assert {one.variant for one in goals} <= {"calm", "loud"}
    return len(goals)


def check_one_variant_each(decided: Iterable[Action]) -> set[str]:
    """Each browser got one variant of the bar; return the variants."""
    seen: dict[str, set[str]] = {}
    for one in decided:
        if isinstance(one, Send) and one.campaign == "added":
            seen.setdefault(one.anonymous_id, set()).add(one.because.variant)
    assert all(len(variants) == 1 for variants in seen.values())
    return {variant for variants in seen.values() for variant in variants}


def is_settled(persons: Mapping[str, Person], now: int) -> bool:
    """Whether no workflow run is active, no timer is due soon, and all messages have feedback."""
    return is_at_rest(persons, now) and not any(
        one.status == "sent" for person in persons.values() for one in person.messages
    )


def is_at_rest(persons: Mapping[str, Person], now: int) -> bool:
    """Whether no run is active and no timer is due within 30 seconds of `now` (ms)."""
    return not any(
        person.runs or any(due < now + 30_000 for due in person.timers.values()) for person in persons.values()
    )


def make_product(n: int, **more: Any) -> dict[str, Any]:
    """Properties of a product event."""
    return {"product_id": f"p{n % 7}", "name": "Cup", "price": 9.5, "currency": "EUR", "quantity": 1, **more}
