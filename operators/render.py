"""render: the content of a campaign for one person, as safe HTML and plain text.

Templates are parsed once for each playbook. A variable without a value is an error (`MissingVariable`), not an empty
string. The output is sanitized, because product data and traits are untrusted.
"""

from collections.abc import Callable
from datetime import datetime
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec
import nh3

from domain.action import Discount, RenderedContent
from domain.money import to_minor
from domain.playbook.campaign import Copy, inherit_copy
from domain.playbook.coupon import CouponPool
from domain.playbook.template import HTML_TAGS, CouponValue, Price, Template, is_safe_url
from state.coupons.wallet import active_coupon, active_discount, eligible_products
from state.local_time import zone_info
from state.person.model import CartItem, Person, ProfileFragment, ViewedProduct
from state.playbook.campaign import CampaignRule
from state.playbook.compiled import Rules
from state.profile.profile import merged_profile


def _drop_empty(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value not in (None, "")}


def _price(minor: int, currency: str, rules: Rules) -> Price | None:
    """Return a formatted amount, or None if it is not in the shop's currency."""
    return None if currency else Price(rules.format_money(minor))


def _product(viewed: ViewedProduct, rules: Rules) -> dict[str, Any]:
    return _drop_empty(
        id=viewed.product_id,
        name=viewed.name,
        category=viewed.category,
        brand=viewed.brand,
        url=viewed.url,
        image_url=viewed.image_url,
        price=_price(viewed.price, viewed.currency, rules) if viewed.price else None,
    )


def _item(product_id: str, item: CartItem, rules: Rules) -> dict[str, Any]:
    return _drop_empty(
        id=product_id,
        name=item.name,
        category=item.category,
        quantity=item.quantity,
        price=_price(item.price, item.currency, rules) if item.price else None,
    )


def _cart(person: Person, profile: ProfileFragment, rules: Rules) -> dict[str, Any] | None:
    cart = person.cart
    if cart is None or not cart.items:
        return None
    return _drop_empty(
        items=[_item(product_id, item, rules) for product_id, item in cart.items.items()],
        value=Price(rules.format_money(cart.value)),
        count=sum([item.quantity for item in cart.items.values()]),
    )


def _order(person: Person, profile: ProfileFragment, rules: Rules) -> dict[str, Any] | None:
    if not profile.orders:
        return None
    order = profile.orders[-1]
    return _drop_empty(id=order.order_id, value=_price(order.value, order.currency, rules), items=order.items or None)


def _trait(profile: ProfileFragment, *names: str) -> Any:
    for name in names:
        trait = profile.traits.get(name)
        if trait is not None and trait.value not in (None, ""):
            return trait.value
    return None


def _device(person: Person, profile: ProfileFragment) -> str:
    return (person.session.device if person.session is not None else "") or profile.device


VARIABLE_VALUES: dict[str, Callable[[Person, ProfileFragment, Rules], Any]] = {
    "product": lambda p, f, rules: _product(f.viewed_products[-1], rules) if f.viewed_products else None,
    "products": lambda p, f, rules: [_product(viewed, rules) for viewed in reversed(f.viewed_products)],
    "cart": _cart,
    "order": _order,
    "first_name": lambda p, f, rules: _trait(f, "first_name", "firstName"),
    "last_name": lambda p, f, rules: _trait(f, "last_name", "lastName"),
    "traits": lambda p, f, rules: {name: t.value for name, t in f.traits.items() if t.value not in (None, "")},
    "country": lambda p, f, rules: f.country,
    "device": lambda p, f, rules: _device(p, f),
    "search": lambda p, f, rules: f.searches[-1].query if f.searches else None,
    "shop": lambda p, f, rules: _drop_empty(name=rules.shop.name, url=rules.shop.url, currency=rules.shop.currency),
}

VARIABLE_FINGERPRINTS: dict[str, Callable[[Person, ProfileFragment], Any]] = {
    "product": lambda p, f: _product_fingerprint(f.viewed_products[-1]) if f.viewed_products else None,
    "products": lambda p, f: [_product_fingerprint(viewed) for viewed in f.viewed_products],
    "cart": lambda p, f: [(key, i.quantity, i.price, i.name) for key, i in p.cart.items.items()] if p.cart else None,
    "order": lambda p, f: (f.orders[-1].order_id, f.orders[-1].value, f.orders[-1].items) if f.orders else None,
    "first_name": lambda p, f: _trait(f, "first_name", "firstName"),
    "last_name": lambda p, f: _trait(f, "last_name", "lastName"),
    "traits": lambda p, f: sorted((name, repr(t.value)) for name, t in f.traits.items()),
    "country": lambda p, f: f.country,
    "device": _device,
    "search": lambda p, f: f.searches[-1].query if f.searches else None,
}

VARIABLE_DEPENDENCIES: dict[str, tuple[str, ...]] = {
    "product": ("event:Product Viewed",),
    "products": ("event:Product Viewed",),
    "cart": ("cart",),
    "order": ("orders",),
    "search": ("event:Products Searched",),
}
"""Dependencies of the variables; changes of other variables (traits, playbook) re-evaluate everything."""


def _product_fingerprint(viewed: ViewedProduct) -> tuple[Any, ...]:
    return viewed.product_id, viewed.name, viewed.price, viewed.url, viewed.image_url, viewed.category, viewed.brand


# -- coupons ---------------------------------------------------------------------------------------------------


def coupon_value(person: Person, discount: Discount, rules: Rules, *, include_products: bool = False) -> CouponValue:
    """Return the value of the variable `coupon`: its code and discount.

    `expires` is the last day in the person's time zone, as "2026-12-24". `products`, if included, are the viewed
    products that the coupon covers, newest first.
    """
    currency, profile = rules.shop.currency, merged_profile(person)

    def price(amount: float) -> Price | None:
        return Price(rules.format_money(to_minor(amount, currency))) if amount else None

    expires = datetime.fromtimestamp(discount.expires_at / 1000, zone_info(profile.timezone, rules.shop.timezone))
    return CouponValue(
        _drop_empty(
            code=discount.code,
            percent=Price(f"{discount.percent:g}") if discount.percent else None,
            amount=price(discount.amount),
            min_value=price(discount.min_value),
            free_shipping=discount.free_shipping or None,
            expires=expires.strftime("%Y-%m-%d"),
            products=[
                _product(viewed, rules)
                for viewed in reversed(eligible_products(profile.viewed_products, discount.products))
            ]
            or None
            if include_products
            else None,
        )
    )


def coupon_fingerprint(person: Person, pool: str, products: tuple[str, ...] | None = None) -> tuple[Any, ...] | None:
    """Return what identifies the person's coupon of a pool, and the viewed products among `products` (empty: all).

    >>> from state.person.model import Coupon
    >>> coupon = Coupon("TEN-1", "ten", "reserved", reserved_at=0, until=9_000)
    >>> coupon_fingerprint(Person(id="a:ann", coupons=[coupon]), "ten")
    (('TEN-1', 9000),)
    """
    coupon = active_coupon(person, pool)
    viewed = eligible_products(merged_profile(person).viewed_products, products) if products is not None else ()
    if coupon is None and not viewed:
        return None
    return (coupon.code, coupon.until) if coupon is not None else (), *map(_product_fingerprint, viewed)


MAX_LINE_LENGTH = 300
MAX_BODY_LENGTH = 20_000


class PreparedContent(NamedTuple):
    """Parsed templates of one variant.

    `variant` is the experiment variant and the device: "default", "mobile", "b/default", "b/mobile". `hash` covers the
    copy and the playbook settings that affect it: shop, discount, format. `variables` are the variables that the copy
    uses. `depends_on` are the changes (`state/membership/changes.py`) that can change the content. `pool` is the coupon
    pool. `covered_products` are the products of the coupon if the copy uses `coupon.products`, else None.
    `states_minimum` is whether the copy uses `coupon.min_value`.
    """

    variant: str
    hash: str
    title: Template
    body: Template
    button: Template
    url: Template
    image_url: Template
    coupon: Template
    variables: tuple[str, ...]
    depends_on: frozenset[str]
    pool: str
    covered_products: tuple[str, ...] | None
    states_minimum: bool


def prepare_content(rule: CampaignRule, device: str, rules: Rules, experiment_variant: str = "") -> PreparedContent:
    """Return the parsed content for a device (or "") and an experiment variant; parsed once.

    A variant inherits missing fields from the campaign's content for that device.
    """
    content = rule.campaign.content
    chosen = rule.campaign.variants.get(experiment_variant) if experiment_variant else None
    variant_content = chosen.content if chosen is not None else None
    variant = content.device_key(device)
    if variant_content is not None and variant == "default":
        variant = variant_content.device_key(device)
    cached = rules.templates.get((rule.name, experiment_variant, variant))
    if cached is None:
        copy = content.copy_for(content.device_key(device))
        if variant_content is not None:
            copy = inherit_copy(variant_content.copy_for(variant_content.device_key(device)), copy)
        key = f"{experiment_variant}/{variant}" if experiment_variant else variant
        cached = rules.templates[rule.name, experiment_variant, variant] = _parse_content(key, copy, rule, rules)
    prepared: PreparedContent = cached
    return prepared


def _parse_content(variant: str, copy: Copy, rule: CampaignRule, rules: Rules) -> PreparedContent:
    body = rules.playbook.templates.get(copy.template, "") if copy.template else copy.body
    parts = {
        "title": Template(copy.title),
        "body": Template(body, html=True),
        "button": Template(copy.button),
        "url": Template(copy.url),
        "image_url": Template(copy.image_url),
        "coupon": Template(copy.coupon),
    }
    variables = {variable for part in parts.values() for variable in part.variables}
    pool, pool_rule = rule.campaign.coupon or "", rules.pools.get(rule.campaign.coupon or "")
    coupon_pool = pool_rule.pool if pool_rule is not None else CouponPool("")
    seed = msgspec.json.encode(
        [
            variant,
            copy,
            body,
            rule.format,
            rule.priority,
            rule.campaign.cancel_on,
            rules.shop.name,
            rules.shop.url,
            rules.shop.currency,
            rules.shop.timezone,
            coupon_pool.percent,
            coupon_pool.amount,
            coupon_pool.free_shipping,
            coupon_pool.min_value,
            coupon_pool.products,
        ]
    )
    depends_on = {"session", "profile"}.union(*(VARIABLE_DEPENDENCIES.get(variable, ()) for variable in variables))
    fields = frozenset[str]().union(*(part.variable_fields for part in parts.values()))
    if pool:
        depends_on.add("coupons")
    covered_products = coupon_pool.products if pool and "coupon.products" in fields else None
    if covered_products is not None:
        depends_on.update(VARIABLE_DEPENDENCIES["products"])
    return PreparedContent(
        variant=variant,
        hash=blake2b(seed, digest_size=8).hexdigest(),
        variables=tuple(sorted(variables)),
        depends_on=frozenset(depends_on),
        pool=pool,
        covered_products=covered_products,
        states_minimum="coupon.min_value" in fields,
        **parts,
    )


def content_fingerprint(prepared: PreparedContent, person: Person, profile: ProfileFragment) -> str:
    """Return a hash that changes when the playbook content or a value used in it changes."""
    if not prepared.variables and not prepared.pool:
        return prepared.hash
    values = [
        VARIABLE_FINGERPRINTS[variable](person, profile)
        for variable in prepared.variables
        if variable in VARIABLE_FINGERPRINTS
    ]
    if prepared.pool:
        values.append(coupon_fingerprint(person, prepared.pool, prepared.covered_products))
    return blake2b(repr((prepared.hash, values)).encode(), digest_size=8).hexdigest()


def render_content(
    prepared: PreparedContent, person: Person, profile: ProfileFragment, rules: Rules, discount: Discount | None = None
) -> RenderedContent:
    """Render the content. Raises `MissingVariable`, or ValueError if a template fails or a URL is unsafe.

    The person's own coupon code is shown unless the copy names another code. If the person has no coupon, `discount` is
    used.
    """
    values = template_values(prepared, person, profile, rules, discount)
    code = _single_line(prepared.coupon.render(values))
    if code and not prepared.pool:
        values["coupon"] = CouponValue(code=code)
    return RenderedContent(
        title=_single_line(prepared.title.render(values)),
        html=sanitize_html(prepared.body.render(values)),
        button=_single_line(prepared.button.render(values)),
        url=_check_url("url", prepared.url.render(values)),
        image_url=_check_url("image_url", prepared.image_url.render(values)),
        coupon=code or values.get("coupon", {}).get("code", "") if prepared.pool else code,
    )


def template_values(
    prepared: PreparedContent, person: Person, profile: ProfileFragment, rules: Rules, discount: Discount | None = None
) -> dict[str, Any]:
    """Return the values of the variables that the content uses; unknown values are omitted."""
    values = {
        variable: value
        for variable in prepared.variables
        if variable in VARIABLE_VALUES
        and (value := VARIABLE_VALUES[variable](person, profile, rules)) not in (None, "", [], {})
    }
    if prepared.pool and (discount := active_discount(person, prepared.pool, rules) or discount) is not None:
        values["coupon"] = coupon_value(person, discount, rules, include_products=prepared.covered_products is not None)
    if "shop" not in values:  # amounts need its currency
        values["shop"] = VARIABLE_VALUES["shop"](person, profile, rules)
    return values


def _filter_attribute(tag: str, attribute: str, value: str) -> str | None:
    return value if attribute not in ("href", "src") or is_safe_url(value) else None


_sanitizer = nh3.Cleaner(
    tags=set(HTML_TAGS),
    attributes={tag: allowed for tag, allowed in HTML_TAGS.items() if allowed},
    clean_content_tags={"script", "style"},
    url_schemes={"http", "https"},
    link_rel="noopener noreferrer",
    attribute_filter=_filter_attribute,
)


def sanitize_html(html: str) -> str:
    """Return HTML without scripts, event handlers and unsafe links.

    >>> sanitize_html('<p onclick="x()">Hi <b>Ann</b><script>x()</script><a href="javascript:x()">go</a></p>')
    '<p>Hi <b>Ann</b><a rel="noopener noreferrer">go</a></p>'
    """
    if len(html) > MAX_BODY_LENGTH:
        raise ValueError(f"body: longer than {MAX_BODY_LENGTH} characters")
    return str(_sanitizer.clean(html)).strip() if "<" in html or "&" in html or ">" in html else html.strip()


def _single_line(text: str) -> str:
    return " ".join(text.split())[:MAX_LINE_LENGTH]


def _check_url(field: str, text: str) -> str:
    url = text.strip()
    if url and not is_safe_url(url):
        raise ValueError(f"{field}: should be a path, or begin with https:// or http://, is {url[:80]!r}")
    return url
