"""render: the words of a campaign for one person, as safe HTML and plain texts.

Templates are parsed once for each playbook. A variable without a value is an error, not a blank (`Missing`). What comes
out is sanitised, whatever went in: product data and traits come from outside.
"""

from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec
import nh3

from domain.action import Content, Discount
from domain.campaign import Words
from domain.content import inherit
from domain.coupon import Pool
from domain.template import TAGS, Template, Voucher, is_safe_url
from operators.values import NEEDS, STAMPS, VALUES, coupon_stamp, coupon_values
from state.coupons import discount
from state.person import Facts, Person
from state.rules import CampaignRule, Rules

LONGEST_LINE = 300
LONGEST_BODY = 20_000


class Prepared(NamedTuple):
    """The parsed words of one variant. `roots` are the variables they use, `hash` is of the words themselves, and of
    all else that the playbook says of what is told: the shop, what the coupon is worth, how it is shown.

    `variant` names the side of the experiment and the device they are for: "default", "mobile", "b/default",
    "b/mobile". `needs` is what may change what they say, in the words of `state/changes.py`. `pool` names the pool
    whose coupon they show, `covers` the products it is good for where they say `coupon.products`, and `told` is whether
    they say from what value.
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
    pool: str
    covers: tuple[str, ...] | None
    told: bool


def prepare(rule: CampaignRule, device: str, rules: Rules, side: str = "") -> Prepared:
    """The words of a campaign for a device (empty: for none) and a side of its experiment, parsed when first asked for.

    What a side leaves out is as in the campaign's own words for that device.
    """
    content = rule.campaign.content
    chosen = rule.campaign.variants.get(side) if side else None
    own = chosen.content if chosen is not None else None
    variant = content.variant(device)
    if own is not None and variant == "default":
        variant = own.variant(device)
    kept = rules.words.get((rule.name, side, variant))
    if kept is None:
        words = content.words(content.variant(device))
        if own is not None:
            words = inherit(own.words(own.variant(device)), words)
        named = f"{side}/{variant}" if side else variant
        kept = rules.words[rule.name, side, variant] = _parsed(named, words, rule, rules)
    prepared: Prepared = kept
    return prepared


def _parsed(variant: str, words: Words, rule: CampaignRule, rules: Rules) -> Prepared:
    body = rules.playbook.templates.get(words.template, "") if words.template else words.body
    parts = {
        "title": Template(words.title), "body": Template(body, html=True), "button": Template(words.button),
        "url": Template(words.url), "image_url": Template(words.image_url), "coupon": Template(words.coupon),
    }
    roots = {root for part in parts.values() for root in part.roots}
    pool, found = rule.campaign.coupon or "", rules.pools.get(rule.campaign.coupon or "")
    worth = found.pool if found is not None else Pool("")
    seed = msgspec.json.encode([
        variant, words, body, rule.format, rule.priority, rule.campaign.disarm_on,
        rules.shop.name, rules.shop.url, rules.shop.currency, rules.shop.timezone,
        worth.percent, worth.amount, worth.free_shipping, worth.min_value, worth.products])
    needs = {"visit", "about"}.union(*(NEEDS.get(root, ()) for root in roots))
    fields = frozenset[str]().union(*(part.fields for part in parts.values()))
    if pool:
        needs.add("coupons")
    covers = worth.products if pool and "coupon.products" in fields else None
    if covers is not None:
        needs.update(NEEDS["products"])
    return Prepared(variant=variant, hash=blake2b(seed, digest_size=8).hexdigest(), roots=tuple(sorted(roots)),
                    needs=frozenset(needs), pool=pool, covers=covers, told="coupon.min_value" in fields, **parts)


def content_key(prepared: Prepared, person: Person, facts: Facts) -> str:
    """Changes whenever what would be shown may change: what the playbook says of it, or a value that the words use."""
    if not prepared.roots and not prepared.pool:
        return prepared.hash
    values = [STAMPS[root](person, facts) for root in prepared.roots if root in STAMPS]
    if prepared.pool:
        values.append(coupon_stamp(person, prepared.pool, prepared.covers))
    return blake2b(repr((prepared.hash, values)).encode(), digest_size=8).hexdigest()


def render(prepared: Prepared, person: Person, facts: Facts, rules: Rules, worth: Discount | None = None) -> Content:
    """What is shown. Missing when a value is not known; ValueError when the template fails or leads astray.

    The code of a person's own coupon is shown, unless the words name another one; `worth` stands for it while they have
    none.
    """
    values = values_of(prepared, person, facts, rules, worth)
    code = _line(prepared.coupon.render(values))
    if code and not prepared.pool:
        values["coupon"] = Voucher(code=code)
    return Content(
        title=_line(prepared.title.render(values)),
        html=clean(prepared.body.render(values)),
        button=_line(prepared.button.render(values)),
        url=_url("url", prepared.url.render(values)),
        image_url=_url("image_url", prepared.image_url.render(values)),
        coupon=code or values.get("coupon", {}).get("code", "") if prepared.pool else code,
    )


def values_of(prepared: Prepared, person: Person, facts: Facts, rules: Rules,
              worth: Discount | None = None) -> dict[str, Any]:
    """The values that the words use, by variable; what is not known is not there."""
    values = {root: value for root in prepared.roots
              if root in VALUES and (value := VALUES[root](person, facts, rules)) not in (None, "", [], {})}
    if prepared.pool and (worth := discount(person, prepared.pool, rules) or worth) is not None:
        values["coupon"] = coupon_values(person, worth, rules, products=prepared.covers is not None)
    if "shop" not in values:  # amounts are written in its currency
        values["shop"] = VALUES["shop"](person, facts, rules)
    return values


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
