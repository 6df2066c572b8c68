"""render: the words of a campaign for one person, as safe HTML and plain texts.

Templates are parsed once for each playbook. A variable without a value is an error, not a blank (`Missing`). What comes
out is sanitised, whatever went in: product data and traits come from outside.
"""

from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec
import nh3

from domain.action import Content
from domain.campaign import Words
from domain.template import TAGS, Price, Template, is_safe_url
from state.person import CartItem, Facts, Person, ProductSeen
from state.rules import CampaignRule, Rules

LONGEST_LINE = 300
LONGEST_BODY = 20_000
PRODUCTS = 4
"""Products that `products` lists, newest first."""


class Prepared(NamedTuple):
    """The parsed words of one variant. `roots` are the variables they use, `hash` is of the words themselves.

    `needs` is what may change what they say, in the words of `state/changes.py`.
    """

    variant: str
    hash: str
    title: Template
    body: Template
    button: Template
    url: Template
    image_url: Template
    coupon: Template
    roots: tuple[str, ...]
    needs: frozenset[str]


def prepare(rule: CampaignRule, device: str, rules: Rules) -> Prepared:
    """The words of a campaign for a device, parsed when first asked for."""
    content = rule.campaign.content
    variant = content.variant(device)
    kept = rules.words.get((rule.name, variant))
    if kept is None:
        kept = rules.words[rule.name, variant] = _parsed(variant, content.words(variant), rules.playbook.templates)
    prepared: Prepared = kept
    return prepared


def _parsed(variant: str, words: Words, files: Mapping[str, str]) -> Prepared:
    body = files.get(words.template, "") if words.template else words.body
    parts = {
        "title": Template(words.title), "body": Template(body, html=True), "button": Template(words.button),
        "url": Template(words.url), "image_url": Template(words.image_url), "coupon": Template(words.coupon),
    }
    seed = msgspec.json.encode([variant, words, body])
    roots = {root for part in parts.values() for root in part.roots}
    return Prepared(variant=variant, hash=blake2b(seed, digest_size=8).hexdigest(), roots=tuple(sorted(roots)),
                    needs=frozenset({"visit", "about"}.union(*(_NEEDS.get(root, ()) for root in roots))), **parts)


def content_key(prepared: Prepared, person: Person, facts: Facts) -> str:
    """Changes exactly when what would be shown may change: the words, or a value that they use."""
    if not prepared.roots:
        return prepared.hash
    values = [_STAMPS[root](person, facts) for root in prepared.roots if root in _STAMPS]
    return blake2b(repr((prepared.hash, values)).encode(), digest_size=8).hexdigest()


def render(prepared: Prepared, person: Person, facts: Facts, rules: Rules) -> Content:
    """What is shown. Missing when a value is not known; ValueError when the template fails or leads astray."""
    values = values_of(prepared, person, facts, rules)
    coupon = _line(prepared.coupon.render(values))
    if coupon:
        values["coupon"] = coupon
    return Content(
        title=_line(prepared.title.render(values)),
        html=clean(prepared.body.render(values)),
        button=_line(prepared.button.render(values)),
        url=_url("url", prepared.url.render(values)),
        image_url=_url("image_url", prepared.image_url.render(values)),
        coupon=coupon,
    )


def values_of(prepared: Prepared, person: Person, facts: Facts, rules: Rules) -> dict[str, Any]:
    """The values that the words use, by variable; what is not known is not there."""
    return {root: value for root in prepared.roots
            if root in _VALUES and (value := _VALUES[root](person, facts, rules)) not in (None, "", [], {})}


def _safe_attribute(tag: str, attribute: str, value: str) -> str | None:
    return value if attribute not in ("href", "src") or is_safe_url(value) else None


_cleaner = nh3.Cleaner(
    tags=set(TAGS), attributes={tag: allowed for tag, allowed in TAGS.items() if allowed},
    clean_content_tags={"script", "style"}, url_schemes={"http", "https"}, link_rel="noopener noreferrer",
    attribute_filter=_safe_attribute,
)


def clean(html: str) -> str:
    """HTML with nothing in it that could run or lead astray.

    >>> clean('<p onclick="x()">Hi <b>Ann</b><script>x()</script><a href="javascript:x()">go</a></p>')
    '<p>Hi <b>Ann</b><a rel="noopener noreferrer">go</a></p>'
    """
    if len(html) > LONGEST_BODY:
        raise ValueError(f"body: longer than {LONGEST_BODY} characters")
    return str(_cleaner.clean(html)).strip() if "<" in html or "&" in html or ">" in html else html.strip()


def _line(text: str) -> str:
    return " ".join(text.split())[:LONGEST_LINE]


def _url(field: str, text: str) -> str:
    url = text.strip()
    if url and not is_safe_url(url):
        raise ValueError(f"{field}: should be a path, or begin with https:// or http://, is {url[:80]!r}")
    return url


# -- what templates may ask for (named in domain/template.py) ---------------------------------------------------


def _filled(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value not in (None, "")}


def _price(minor: int, currency: str, rules: Rules) -> Price | None:
    """An amount; nothing when it is not in the shop's currency."""
    return None if currency else Price(rules.money(minor))


def _product(seen: ProductSeen, rules: Rules) -> dict[str, Any]:
    return _filled(
        id=seen.product_id, name=seen.name, category=seen.category, brand=seen.brand, url=seen.url,
        image_url=seen.image_url, price=_price(seen.price, seen.currency, rules) if seen.price else None)


def _item(product_id: str, item: CartItem, rules: Rules) -> dict[str, Any]:
    return _filled(id=product_id, name=item.name, category=item.category, quantity=item.quantity,
                   price=_price(item.price, item.currency, rules) if item.price else None)


def _cart(person: Person, facts: Facts, rules: Rules) -> dict[str, Any] | None:
    cart = person.cart
    if cart is None or not cart.items:
        return None
    return _filled(items=[_item(product_id, item, rules) for product_id, item in cart.items.items()],
                   value=Price(rules.money(cart.value)), count=sum([item.quantity for item in cart.items.values()]))


def _order(person: Person, facts: Facts, rules: Rules) -> dict[str, Any] | None:
    if not facts.orders:
        return None
    order = facts.orders[-1]
    return _filled(id=order.order_id, value=_price(order.value, order.currency, rules), items=order.items or None)


def _trait(facts: Facts, *names: str) -> Any:
    for name in names:
        trait = facts.traits.get(name)
        if trait is not None and trait.value not in (None, ""):
            return trait.value
    return None


def _device(person: Person, facts: Facts) -> str:
    return (person.session.device if person.session is not None else "") or facts.device


_VALUES: dict[str, Callable[[Person, Facts, Rules], Any]] = {
    "product": lambda p, f, rules: _product(f.products[-1], rules) if f.products else None,
    "products": lambda p, f, rules: [_product(seen, rules) for seen in reversed(f.products[-PRODUCTS:])],
    "cart": _cart,
    "order": _order,
    "first_name": lambda p, f, rules: _trait(f, "first_name", "firstName"),
    "last_name": lambda p, f, rules: _trait(f, "last_name", "lastName"),
    "traits": lambda p, f, rules: {name: t.value for name, t in f.traits.items() if t.value not in (None, "")},
    "country": lambda p, f, rules: f.country,
    "device": lambda p, f, rules: _device(p, f),
    "search": lambda p, f, rules: f.searches[-1].query if f.searches else None,
    "shop": lambda p, f, rules: _filled(name=rules.shop.name, url=rules.shop.url, currency=rules.shop.currency),
}

_STAMPS: dict[str, Callable[[Person, Facts], Any]] = {
    "product": lambda p, f: _stamp(f.products[-1]) if f.products else None,
    "products": lambda p, f: [_stamp(seen) for seen in f.products[-PRODUCTS:]],
    "cart": lambda p, f: [(key, i.quantity, i.price, i.name) for key, i in p.cart.items.items()] if p.cart else None,
    "order": lambda p, f: (f.orders[-1].order_id, f.orders[-1].value, f.orders[-1].items) if f.orders else None,
    "first_name": lambda p, f: _trait(f, "first_name", "firstName"),
    "last_name": lambda p, f: _trait(f, "last_name", "lastName"),
    "traits": lambda p, f: sorted((name, repr(t.value)) for name, t in f.traits.items()),
    "country": lambda p, f: f.country,
    "device": _device,
    "search": lambda p, f: f.searches[-1].query if f.searches else None,
}

_NEEDS: dict[str, tuple[str, ...]] = {
    "product": ("event:Product Viewed",), "products": ("event:Product Viewed",), "cart": ("cart",),
    "order": ("orders",), "search": ("event:Products Searched",),
}
"""What changes the other variables (traits, the playbook itself) is never named: then everything is asked again."""


def _stamp(seen: ProductSeen) -> tuple[Any, ...]:
    return seen.product_id, seen.name, seen.price, seen.url, seen.image_url, seen.category, seen.brand
