"""Check of words: templates that cannot be shown, links that lead nowhere, coupons that nobody has."""

import re
from collections.abc import Iterator

from domain.campaign import Campaign
from domain.check_template import problems
from domain.content import Content, Words, inherit
from domain.coupon import Pool
from domain.event_names import offered
from domain.known import Found, Known, NoSuch
from domain.lines import Line
from domain.pieces import Refused, pieces
from domain.problem import Path
from domain.template import VARIABLES, is_safe_url

FIELDS = ("title", "body", "button", "url", "image_url", "coupon")
TITLED = {"email": "it is its subject", "push": "it is what people see first", "sms": "it is all that a text says"}
"""Formats that are nothing without a title, and why."""
PEOPLE = ("email", "sms", "push", "chat")
"""Messages that people read, wherever they are."""

_PRINTED = re.compile(r"\{\{-?\s*([a-z_]+)(?:\s*\.\s*([a-z_]+))?\s*(.*?)-?\}\}", re.DOTALL)
_ASKED = re.compile(r"\{%-?\s*(?:if|elsif|unless|case|for)\b(.*?)%\}", re.DOTALL)
_LINK = re.compile(r"""\b(?:href|src)\s*=\s*["']([^"'{]*)["']""", re.IGNORECASE)


def content(one: Campaign, known: Known) -> Found:
    """All mistakes in the words of a campaign."""
    yield from _words(one.content, ("content",), one, known, whole=True)
    for name, variant in one.variants.items():
        if variant.content is not None:
            yield from _words(variant.content, ("variants", name, "content"), one, known, whole=False)
    if one.format in TITLED and not all(words.title for words in _sides(one, "default")):
        yield ("content", "default", "title"), f"is missing: {TITLED[one.format]}"


def _sides(one: Campaign, device: str) -> list[Words]:
    """What is shown on a device: the words of each side of the experiment."""
    plain = one.content.words(one.content.variant(device))
    return [plain if variant.content is None
            else inherit(variant.content.words(variant.content.variant(device)), plain)
            for variant in one.variants.values()] or [plain]


def _words(content: Content, path: Path, one: Campaign, known: Known, *, whole: bool) -> Found:
    for device in ("default", "desktop", "mobile", "tablet"):
        own = getattr(content, device)
        if own is None:
            continue
        here = (*path, device)
        if own.body and own.template:
            yield here, "has both a body and a template: choose one"
        if own.template and own.template not in known.playbook.templates:
            yield (*here, "template"), NoSuch(f'there is no "{own.template}" in templates/'
                                              + offered(own.template, sorted(known.playbook.templates)))
        if whole and device == "default" and not (own.title or own.body or own.template or one.format in TITLED):
            yield here, "shows nothing: it needs a title, a body or a template"
        words = content.words(device)
        if whole and words.button and not words.url and one.format != "sms":
            yield (*here, "button"), "leads nowhere: it needs a url"
        for field in FIELDS:
            for line, _, text in problems(getattr(own, field), html=field == "body"):
                yield (*here, field, Line(line)), NoSuch(text)
        yield from _links(own, here, one, known)
        if one.format == "sms":
            for field in ("body", "template", "button", "image_url"):
                if getattr(own, field):
                    yield (*here, field), "does not go with sms: a text message is its title and nothing else"
        if own.coupon and one.coupon:
            yield (*here, "coupon"), "the campaign has a coupon of its own for each person already"
        else:
            coded = words.coupon or one.content.words(one.content.variant(device)).coupon or all(
                side.coupon for side in _sides(one, device))
            yield from _values(own, here, one, known, coded=bool(coded))


def _links(own: Words, here: Path, one: Campaign, known: Known) -> Found:
    for field in ("url", "image_url"):
        url = getattr(own, field)
        if url.startswith(_BARE):
            yield (*here, field), _BEGINS.format(url[:80])
        elif url and "{" not in url and not is_safe_url(url):
            yield (*here, field), f'should be a path, or begin with https:// or http://, is "{url[:80]}"'
        elif _astray(url, one, known):
            yield (*here, field), _ASTRAY.format(url[:80])
    for field, source in _sources(own, known):
        if field in ("body", "template"):
            for url in dict.fromkeys(_LINK.findall(source)):
                if url.startswith(_BARE):
                    yield (*here, field), _BEGINS.format(url[:80])
                elif _astray(url, one, known):
                    yield (*here, field), _ASTRAY.format(url[:80])


_BARE, _BEGINS = "www.", 'should begin with https://, is "{}"'
_ASTRAY = ('"{}" leads nowhere from a message, which is read outside the shop: '
           'begin it with https://, or let shop.toml say the shop\'s url')


def _astray(url: str, one: Campaign, known: Known) -> bool:
    """Whether this is a path in a message, and nobody knows of which site."""
    return bool(url) and one.format in PEOPLE and not known.shop.url and "{" not in url and is_safe_url(url) \
        and not url.startswith(("https://", "http://"))


# -- values that are never known ---------------------------------------------------------------------------------


def _values(own: Words, here: Path, one: Campaign, known: Known, *, coded: bool) -> Found:
    """What is printed and never has a value: then the campaign is held every time. `coded`: the words have a code."""
    pool = next((pool for pool in known.playbook.coupons if pool.name == one.coupon), None)
    for field, source in _sources(own, known):
        for root, asked in printed(source):
            if root == "shop" and asked in ("name", "url") and not getattr(known.shop, asked):
                yield (*here, field), f"asks for {{{{ shop.{asked} }}}}, and shop.toml has no {asked}"
            if root != "coupon" or (asked and asked not in VARIABLES["coupon"]):
                continue
            if one.coupon is None and not coded:
                yield (*here, field), ("asks for a coupon, and the campaign has none: name a pool (coupon = \"…\"), "
                                       "or write a code for everybody into content.default.coupon")
            elif one.coupon is None and asked not in ("", "code"):
                yield (*here, field), (f"asks for {{{{ coupon.{asked} }}}}: a code that is the same for everybody has "
                                       "only {{ coupon.code }}; the coupons of a pool have more")
            elif pool is not None and asked not in ("", "code", "expires", "products") and not getattr(pool, asked):
                yield (*here, field), (f"asks for {{{{ coupon.{asked} }}}}, and coupons/{pool.name}.toml has no "
                                       f"{asked}{_worth(pool, asked)}")


def _worth(pool: Pool, asked: str) -> str:
    """What was probably meant instead."""
    given = [name for name in ("percent", "amount") if getattr(pool, name)]
    return f"; did you mean {{{{ coupon.{given[0]} }}}}?" if given and asked in ("percent", "amount") else ""


def _sources(own: Words, known: Known) -> Iterator[tuple[str, str]]:
    for field in FIELDS:
        yield field, getattr(own, field)
    yield "template", known.playbook.templates.get(own.template, "")


def printed(source: str) -> list[tuple[str, str]]:
    """The variables (and fields) that a template prints without a `default`, and without asking for them first.

    >>> printed("{{ coupon.code }} {{ coupon.percent | default: '' }} {% if cart %}{{ cart.value }}{% endif %}")
    [('coupon', 'code')]
    """
    texts = list(_pieces(source))
    asked = set(re.findall(r"[a-z_]+", " ".join(match[1] for text in texts if (match := _ASKED.fullmatch(text)))))
    found = ((match[1], match[2] or "") for text in texts
             if (match := _PRINTED.fullmatch(text)) and "default" not in match[3])
    return list(dict.fromkeys((root, field) for root, field in found if root not in asked))


def _pieces(source: str) -> Iterator[str]:
    """The tags and outputs of a template; of one that is refused, those before the place where it is."""
    try:
        for start, end in pieces(source):
            yield source[start:end]
    except Refused:  # `problems` says it
        return
