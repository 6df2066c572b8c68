"""Playbooks of any size for benchmarks: like real ones in their mix of triggers, conditions and limits."""

from typing import Any

import msgspec

from domain.playbook import Playbook

EVENTS = ("Product Added", "Product Viewed", "Products Searched", "Cart Viewed", "Checkout Started", "Order Completed",
          "Product Clicked", "Product Removed", "Coupon Entered", "Product List Viewed")
COUNTRIES = ("CA", "US", "DE", "FR", "IT", "GB", "ES", "NL", "SE", "JP")


def condition(n: int) -> dict[str, Any]:
    """One of ten kinds of condition, two or three statements each."""
    kinds: tuple[dict[str, Any], ...] = (
        {"has": {"country": COUNTRIES[n // 10 % 10]}, "session": {"pages_at_least": 2 + n % 7}},
        {"cart": {"items_at_least": 2 + n % 3}, "did_not": {"event": "Checkout Started", "within": "30m"}},
        {"session": {"products_at_least": 4 + n % 9}, "orders": {"count_at_least": 1}},
        {"score": {"at_least": 0.5 + n % 5 / 10}, "orders": {"count_at_least": 1}},
        {"in_segment": f"segment_{n % 30}", "has": {"country": COUNTRIES[n // 10 % 10]}},
        {"session": {"first_visit": True, "seconds_at_least": 30 + n % 90, "source": "spring"}},
        {"did": {"event": "Product Viewed", "at_least": 5 + n % 10}, "has": {"trait": {"plan": "silver"}}},
        {"any": [{"cart": {"value_at_least": 50 + n}}, {"orders": {"last_within": "30d"}}]},
        {"has": {"trait": {"plan": "gold"}}, "not": {"orders": {"count_at_least": 3}}},
        {"session": {"pages_at_least": 3, "landing_page_contains": "/sale"}, "has": {"language": "fr"}},
    )
    return kinds[n % 10]


def many(campaigns: int = 100, segments: int = 30) -> Playbook:
    """A fifth of the campaigns on events, three tenths each on segments and exit intent, a fifth on seconds."""
    return msgspec.convert({
        "shop": {"limits": {"per_session": 5, "per_day": 10, "cooldown": "1m"}},
        "segments": [
            {"name": f"segment_{n}", "when": condition(n + (1 if n % 10 == 4 else 0))} for n in range(segments)],
        "campaigns": [_campaign(n, segments) for n in range(campaigns)],
    }, Playbook)


def _campaign(n: int, segments: int) -> dict[str, Any]:
    kind = n % 10
    trigger: dict[str, Any]
    if kind < 2:
        trigger = {"event": EVENTS[n // 10 % 10], "properties": {"category": f"category-{n % 20}"}}
    elif kind < 5:
        trigger = {"segment": f"segment_{n % segments}"}
    elif kind < 8:
        trigger = {"exit_intent": True}
    else:
        trigger = {"seconds_on_site": 20 + n % 12 * 10}
    return {
        "name": f"campaign_{n}", "format": ("popup", "banner", "bar")[n % 3], "priority": n % 7, "trigger": trigger,
        "when": condition(n * 7 // 10 + n), "limits": {"per_session": 1, "per_day": 2},
        "content": {"default": {"title": "Hello {{ first_name | default: 'you' }}", "url": "/shop/", "button": "Go",
                                "body": "<p>{{ cart.value | default: '' | money }} {{ product.name }}</p>"}},
    }
