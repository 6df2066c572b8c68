"""Playbooks of any size, with a realistic mix of triggers, conditions and frequency caps.

The events of `benchmarks/side_by_side.py` match them: every condition is true for some people, mostly only now and
then.
"""

from typing import Any

import msgspec

from domain.playbook.playbook import Playbook

EVENTS = (
    "Product Added",
    "Product Viewed",
    "Products Searched",
    "Exit Intent",
    "Order Completed",
    "Product Viewed",
    "Product Added",
    "Page Viewed",
    "Products Searched",
    "Product Viewed",
)
CATEGORIES = (
    "chairs",
    "lamps",
    "jackets",
    "kettles",
    "backpacks",
    "blankets",
    "mugs",
    "sneakers",
    "notebooks",
    "scarfs",
)
COUNTRIES = ("CA", "US", "DE", "FR", "IT", "GB", "ES", "NL", "CH", "JP")
SOURCES = ("spring", "newsletter", "search", "friends")


def condition(n: int) -> dict[str, Any]:
    """One of ten kinds of conditions, with two or three parts each."""
    kinds: tuple[dict[str, Any], ...] = (
        {"has": {"country": COUNTRIES[n // 10 % 10]}, "session": {"pages_at_least": 2 + n % 7}},
        {"cart": {"items_at_least": 2 + n % 3}, "did_not": {"event": "Checkout Started", "within": "30m"}},
        {"session": {"products_at_least": 4 + n % 9}, "orders": {"count_at_least": 1}},
        {"score": {"at_least": 0.5 + n % 5 / 10}, "orders": {"count_at_least": 1}},
        {"in_segment": f"segment_{n % 30}", "has": {"country": COUNTRIES[n // 10 % 10]}},
        {"session": {"first_session": True, "seconds_at_least": 30 + n % 90, "source": SOURCES[n // 10 % 4]}},
        {"did": {"event": "Product Viewed", "at_least": 5 + n % 10}, "has": {"trait": {"plan": "silver"}}},
        {"any": [{"cart": {"value_at_least": 50 + n % 500}}, {"orders": {"last_within": "30d"}}]},
        {"has": {"trait": {"plan": "gold"}}, "not": {"orders": {"count_at_least": 3}}},
        {"session": {"pages_at_least": 3, "landing_page_contains": "/sale"}, "has": {"language": "fr"}},
    )
    return kinds[n % 10]


def niche(n: int) -> dict[str, Any]:
    """A niche condition: on a product, a nearby store, an advertisement or a category."""
    viewed = {"event": "Product Viewed", "where": {"product_id": f"sku-{1000 + n * 7 % 400}"}}
    kinds: tuple[dict[str, Any], ...] = (
        {"cart": {"contains_product": f"sku-{1000 + n * 7 % 400}"}},
        {"has": {"trait": {"club": n * 7 % 300}}},
        {"session": {"campaign": f"ad-{n * 7 % 200}"}},
        {"cart": {"contains_category": CATEGORIES[n % 10], "value_below": 20 + n % 30}},
        {"did": {**viewed, "at_least": 1 + n % 3, "within": "7d"}},
        {"sequence": {"steps": [viewed, "Product Added"], "within": f"{1 + n % 4}h"}},
    )
    return kinds[n // 10 % 6]


def make_playbook(campaigns: int = 100, segments: int = 30, workflows: int = 0, broad: bool = False) -> Playbook:
    """A playbook with campaigns on events (20%), segments (30%), exit intent (30%) and time on site (20%).

    The first 100 campaigns are for everybody; further ones are for niches, unless they are `broad`.
    """
    return msgspec.convert(
        {
            "shop": {"frequency_caps": {"per_session": 5, "per_day": 10, "cooldown": "1m"}},
            "segments": [
                {"name": f"segment_{n}", "when": condition(n + (1 if n % 10 == 4 else 0))} for n in range(segments)
            ],
            "campaigns": [
                *(_campaign(n, segments, broad) for n in range(campaigns)),
                *(_workflow_message(n) for n in range(workflows)),
            ],
            "workflows": [_workflow(n, segments) for n in range(workflows)],
        },
        Playbook,
    )


def _campaign(n: int, segments: int, broad: bool) -> dict[str, Any]:
    kind = n % 10
    trigger: dict[str, Any]
    if kind < 2:
        trigger = {"event": EVENTS[n // 10 % 10]}
        if trigger["event"].startswith("Product "):
            trigger["properties"] = {"category": CATEGORIES[n // 2 % 10]}
    elif kind < 5:
        trigger = {"segment": f"segment_{n % segments}"}
    elif kind < 8:
        trigger = {"exit_intent": True}
    else:
        trigger = {"seconds_on_site": 20 + n % 12 * 10}
    when = condition(n * 7 // 10 + n)
    if n >= 100 and not broad:
        when = {"all": [when, niche(n)]}
    return {
        "name": f"campaign_{n}",
        "format": ("popup", "banner", "bar")[n % 3],
        "priority": n % 7,
        "trigger": trigger,
        "when": when,
        "frequency_caps": {"per_session": 1, "per_day": 2},
        "content": {
            "default": {
                "title": "Hello {{ first_name | default: 'you' }}",
                "url": "/shop/",
                "button": "Go",
                "body": "<p>{{ cart.value | default: '' | money }} {{ product.name }}</p>",
            }
        },
    }


def _workflow(n: int, segments: int) -> dict[str, Any]:
    """A workflow with an event or a segment as entry trigger, a wait, a message, and an order as exit condition."""
    enters = {"event": EVENTS[n // 2 % 10]} if n % 2 else {"segment": f"segment_{n % segments}"}
    return {
        "name": f"workflow_{n}",
        "enter_on": {**enters, "when": condition(n * 3)},
        "reentry": "after",
        "reentry_after": "1d",
        "exit_when": {"did": {"event": "Order Completed", "within": "1h"}},
        "steps": [
            {"wait_for": {"event": "Product Added", "timeout": "2m", "else": "look"}},
            {"wait": "30s"},
            {"id": "look", "branch": [{"when": condition(n * 7 + 2), "goto": "end"}]},
            {"send": f"message_{n}", "timeout": "10m"},
            {"wait": "2d"},
            {"id": "end", "exit": True},
        ],
    }


def _workflow_message(n: int) -> dict[str, Any]:
    """The campaign of a workflow."""
    return {
        "name": f"message_{n}",
        "format": ("bar", "banner")[n % 2],
        "trigger": {"workflow": True},
        "priority": 3,
        "content": {"default": {"title": "A word about {{ product.name | default: 'our range' }}"}},
    }
