"""Check of looks: what would be shown otherwise than it is meant, and what is asked of things that do not have it.

Warnings, as those of `domain/check_warnings.py`.
"""

import re
from collections.abc import Iterator

from domain.campaign import Campaign, Goal
from domain.check_condition import everything
from domain.condition import Did
from domain.content import Content
from domain.event_names import EVENTS
from domain.known import Finding, Found
from domain.playbook import Playbook
from domain.shop import Shop
from domain.trigger import Occasion, Trigger
from domain.workflow import WaitFor

_TAG = re.compile(r"</?[a-z][a-z0-9]*(?:\s[^<>]*)?/?>", re.IGNORECASE)
_ELEMENT = re.compile(r"[a-z][a-z0-9]*")
_ELEMENTS = frozenset((
    "a", "article", "aside", "body", "button", "dialog", "div", "figure", "footer", "form", "h1", "h2", "h3", "h4",
    "h5", "h6", "header", "img", "label", "li", "main", "nav", "ol", "p", "picture", "section", "span",
    "table", "td", "ul"))
"""Elements of a page that somebody may mean as a place."""

_WITH_PRODUCTS = ("Order Completed", "Order Updated", "Order Cancelled", "Order Refunded", "Checkout Started",
                  "Cart Viewed", "Cart Updated", "Product List Viewed", "Product List Filtered")
_OF_PRODUCTS = ("product_id", "sku", "category", "brand", "name", "price", "quantity")
"""Events that carry a list of products, and what stands in it."""
_ASKED = {"product_id": "contains_product", "category": "contains_category"}


def looks(playbook: Playbook) -> Iterator[Finding]:
    """All of these warnings."""
    yield from (Finding("shop", "", path, text) for path, text in _events(playbook.shop))
    for one in playbook.campaigns:
        yield from (Finding("campaigns", one.name, path, text) for path, text in _campaign(one))
    yield from _within_products(playbook)


def _events(shop: Shop) -> Found:
    theirs = {name.lower(): name for name in EVENTS}
    for n, name in enumerate(shop.events):
        if name not in EVENTS and (other := theirs.get(name.lower())):
            yield ("events", n), f'differs only in capitals from "{other}", and is another event'


def _campaign(one: Campaign) -> Found:
    if one.slot and _ELEMENT.fullmatch(one.slot) and one.slot not in _ELEMENTS:
        yield ("slot",), f'is every <{one.slot}> of the page; did you mean "#{one.slot}"?'
    for path, content in ((("content",), one.content), *(
            (("variants", name, "content"), side.content) for name, side in one.variants.items())):
        if isinstance(content, Content):
            for device in ("default", "desktop", "mobile", "tablet"):
                words = getattr(content, device)
                for field in ("title", "button") if words is not None else ():
                    if tag := _TAG.search(getattr(words, field)):
                        yield (*path, device, field), f"is plain text: {tag[0][:40]} is shown as it stands"
    names = list(one.variants)
    for n, name in enumerate(names):
        same = next((other for other in names[:n] if one.variants[other].content == one.variants[name].content), None)
        if same is not None:
            yield ("variants", name), f'says the same as "{same}": nothing would be compared'


def _within_products(playbook: Playbook) -> Iterator[Finding]:
    """Properties that stand in a list of products."""
    for part, name, path, piece in everything(playbook):
        if not isinstance(piece, (Did, WaitFor, Occasion, Trigger, Goal)) or piece.event not in _WITH_PRODUCTS:
            continue
        field = "properties" if isinstance(piece, (Occasion, Trigger)) else "where"
        for asked, value in getattr(piece, field).items():
            if asked in _OF_PRODUCTS:
                yield Finding(part, name, (*path, field, asked), (
                    f'stands with each product of "{piece.event}", and `{field}` does not look into lists of products'
                    + _instead(piece, asked, value)))


def _instead(piece: object, asked: str, value: object) -> str:
    about = getattr(piece, "event", "")
    noun = "orders" if about.startswith("Order") else "cart" if about.startswith(("Cart", "Checkout")) else ""
    first = next((one for one in (value if isinstance(value, tuple) else (value,)) if isinstance(one, str)), "")
    if not noun or asked not in _ASKED or not first or isinstance(piece, Goal):
        return ""
    return f'; did you mean {noun} = {{ {_ASKED[asked]} = "{first}" }}?'
