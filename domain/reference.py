"""The reference page of the playbook and its JSON Schema, made from the declarations alone.

    python -m domain.reference > docs/playbook.md

`tests/test_playbook_reference.py` holds the committed page equal to what the declarations say.
"""

import sys
import typing
from collections.abc import Iterator
from inspect import cleandoc
from typing import Any

import msgspec

from domain.campaign import Campaign, Content, Goal, Limits, Trigger, Variant, Words
from domain.condition import (
    Condition,
    Did,
    Filter,
    Funnel,
    Has,
    Holds,
    InCart,
    InSession,
    Orders,
    Rfm,
    Score,
    Sequence,
    Sum,
    WasSaid,
)
from domain.coupon import Pool
from domain.declared import metas, unwrapped
from domain.event_names import CALL_EVENTS, OUR_EVENTS, SHOP_EVENTS
from domain.segment import Segment
from domain.shop import Consent, Group, Pressure, QuietHours, RfmCuts, Shop, ShopLimits, Stage
from domain.template import TAGS, VARIABLES
from domain.trigger import Occasion
from domain.workflow import Step, WaitFor, WaitUntil, Way, Workflow

HEAD = """# The playbook

<!-- Made by `python -m domain.reference > docs/playbook.md`. Change the declarations in domain/, not this page. -->

A playbook is a folder of plain files. Change one, and a second later the engine decides by it; a mistake never stops
anything: the last good playbook stays live, and `attimo up`, `attimo top` and `/live` show the mistake with its file,
line and field until it is put right. Only the very first playbook must be whole: nothing could stay live before it.

```
shop/
  shop.toml              what holds for the whole shop
  segments/NAME.toml     who belongs together
  campaigns/NAME.toml    what to say, to whom, when, how often
  workflows/NAME.toml    a conversation over days
  coupons/NAME.toml      what a coupon is worth
  codes/NAME.txt         its codes, where they are not made up
  templates/NAME.liquid  longer words
  scenarios/NAME.md      stories that must come true
```

A README in any of these folders is for people; a file whose name begins with a dot is nobody's. Nothing else in it is
read, and `attimo check` says what lies there for nothing, and what may not be read. It reads all files, names every
mistake with its line and what to write instead, warns of what is hardly meant, and tells the [stories](scenarios.md).

A banner for people on their first visit, from Canada, who saw at least 3 pages and have been here for 60 seconds, is
this file. It appears at second 60, with no further click:

```toml
# campaigns/welcome_canada.toml
format = "banner"
trigger = { seconds_on_site = 60 }

[when]
has = { country = "CA" }
session = { first_visit = true, pages_at_least = 3 }

[content.default]
title = "Hello, Canada"
body = "<p>We ship to you in six days.</p>"
```

Everything written side by side must hold. A list of values means any of them, a list of tables means all of them.
What is not known does not hold. Amounts are in the shop's currency, in whole units: `value_at_least = 50`. What
becomes true or false because time passes does so at that very moment.
"""

TAIL = """## In an editor

`attimo schema campaign > campaign.schema.json` writes down what a campaign's file may say, as a JSON Schema; `shop`,
`segment`, `workflow` and `pool` (for coupons/) are the others. An editor that knows it offers the fields, explains them
and underlines a slip while you type. In VS Code, with the extension Even Better TOML, a file names its schema in its
first line: `#:schema ../campaign.schema.json`; or the settings say it once for all of them:

```json
"evenBetterToml.schema.associations": {{
  ".*/campaigns/[^/]*\\\\.toml$": "file:///where/it/is/campaign.schema.json"
}}
```

## Events

In the shop: {shop}.

Pages and calls: {calls}.

Ours: {ours}.

Events of your own are named in `shop.toml`, so that a slip of the pen is noticed: `events = ["Quiz Finished"]`.

## What comes late

What happened more than half an hour before it arrives (`late_after` in `shop.toml`) counts, and is no occasion. A
receipt of last year, or what a browser kept while it was off line, changes counts, orders, traits and consent, and
who is in which segment: that is true now. But it starts no campaign and no workflow, and puts nobody into a static
segment, nor do the moves that it makes. It still ends what it ends: workflows are left, offers are taken back; it
takes out of a static segment who was in when it happened. Who waits for an event goes on if it happened since they
wait. A shop whose tills report at night sets `late_after = "2d"`; on the site nothing is ever said because of what
happened off it (an order marked offline), or more than half an hour ago. Recorded days (`attimo ingest --history`)
have their own clock: nothing in them is late.

## Segments that the engine learns

`likely_buyers`, `undecided` and `unlikely` need no file: as soon as there is a model, whoever visits is in one of them,
until they order.

## Templates

The words of a campaign are [Liquid](https://shopify.github.io/liquid/). A value that is not known is never shown as a
blank: the campaign is held, with the reason `missing product.name`, unless the template says what to do instead:
`{{{{ first_name | default: "you" }}}}` or `{{% if first_name %}}…{{% endif %}}`. `{{{{ cart.value | money }}}}` writes
an amount. Everything inserted is escaped, and the result is sanitised. One tag may have 2,000 characters, all of them
together 32,000; loops go round 2,000 times in all. Making the words may take 30,000 steps (5,000 for a title, a
button, a link): what is said of each of a hundred things in a cart takes 7,000. Words that take more are not said,
with the reason `template`.

| variable | fields |
|---|---|
{variables}

`products` are the last 20 products that they looked at, the newest first; `product` is the newest one.
`coupon.products` are those of them that the campaign's coupon is good for. Those of one category are
`{{% assign lamps = products | where: "category", "Light" %}}`, and the first of them is `{{{{ lamps.first.name }}}}`.

HTML may use {tags}.

## Why something was held

Of several reasons one is told: first that there is nowhere to say it (site, address), then consent, what was closed by
hand, limits (its own, its group's, the shop's), pressure, cooldown, a place that is taken, quiet hours, holdouts, and
last what its words or its coupon lack. The same one is told once, until something else is decided about the campaign.

| reason | what it means |
|---|---|
{reasons}
"""

REASONS = {
    "consent": "they did not agree to the campaign's purpose, or to messages (for it) on this channel: an answer to "
               "`email` or `email:marketing` counts beside the one to `marketing`",
    "no_address": "nothing is known where a message of this kind could go",
    "unreachable": "messages to their address come back",
    "audience": "`when` does not hold (any more): of a workflow's campaign, or after a delay",
    "dismissed": "they closed it by hand in this visit",
    "limit": "they saw it as often as its limits allow",
    "group_limit": "they saw as much of its group as the group's limits allow",
    "shop_limit": "they saw as much of everything as the shop allows",
    "pressure": "it would be more than the pressure budget of a day or a week",
    "cooldown": "the last popup was a moment ago",
    "already_reserved": "something for the same place was just sent and not shown yet",
    "lower_priority": "something more important took the place at the same moment",
    "not_on_site": "no browser of theirs is open",
    "quiet_hours": "nobody is written to at this hour; it is decided again when the quiet hours end",
    "holdout": "they are among those who never get this campaign, so that its effect can be told",
    "global_holdout": "they are among those who get nothing but `service`, so that the effect of it all can be told",
    "missing …": "the words need a value that is not known",
    "template": "the words could not be made; the detail says why",
    "coupon_first_order": "the coupon is for a first order, and they have ordered",
    "coupon_once": "they had a coupon of this kind already",
    "coupon_not_with": "they have (or used) a coupon that goes not together with this one",
    "coupon_products": "the occasion is about a product that the coupon is not good for",
    "coupon_min_value": "with what the occasion is about the cart would be worth less than the coupon is good from, "
                        "and the words do not say `coupon.min_value`",
    "coupon_limit": "they hold as many coupons as anybody can",
    "coupon_pending": "a code for them is on its way; they are looked at again when it is here",
    "sold_out": "all codes of the coupon are given out",
    "codes_changed": "codes that were given out are no longer in codes/, or the shop's secret is another one",
    "no_coupon": "there are no such coupons in the playbook",
    "recorded_days": "recorded days are being read: no code is spent on them",
    "stale": "it was decided too late to be shown, or sent (an outage, a backlog)",
    "no_channel": "nobody sends messages of this kind (the setting `channels`)",
    "bounced": "the message came back",
    "held": "whoever sends messages of this kind did not send it, and did not say why",
}

PARTS: tuple[tuple[str, str, tuple[type[msgspec.Struct], ...]], ...] = (
    ("shop.toml", "", (Shop, ShopLimits, Pressure, Group, QuietHours, Consent, Stage, RfmCuts)),
    ("segments/NAME.toml", "", (Segment, Occasion)),
    ("Conditions", "The same language stands behind `when` everywhere.",
     (Condition, Did, Sum, Filter, Sequence, Has, InSession, InCart, Orders, Rfm, Funnel, Score, Holds, WasSaid)),
    ("campaigns/NAME.toml", "", (Campaign, Trigger, Limits, Variant, Goal, Content, Words)),
    ("workflows/NAME.toml", "", (Workflow, Step, WaitUntil, WaitFor, Way)),
    ("coupons/NAME.toml", "", (Pool,)),
)

_WHERE = {
    ShopLimits: "[limits]", Consent: "[consent]", Did: "did, did_not", Has: "has", InSession: "session",
    Pressure: "[pressure]", Group: "[groups.NAME]", QuietHours: "[quiet_hours]", Stage: "[[funnel]]", RfmCuts: "[rfm]",
    Occasion: "enter_on, leave_on, enters", Sum: "sum", Filter: "a value in `where`, `properties`, `trait`",
    Sequence: "sequence", Rfm: "rfm", Funnel: "funnel", Holds: "holds_coupon", WasSaid: "was_said",
    Variant: "[variants.NAME]", Goal: "[goal]", Step: "[[steps]]", WaitUntil: "wait_until", WaitFor: "wait_for",
    Way: "branch",
    InCart: "cart", Orders: "orders", Score: "score", Trigger: "[trigger]", Limits: "[limits]", Content: "[content]",
    Words: "[content.default], [content.mobile], …",
}


def page() -> str:
    """The reference page, as Markdown."""
    lines = [HEAD]
    for title, about, structs in PARTS:
        lines += [f"## {title}", ""]
        if about:
            lines += [about, ""]
        for struct in structs:
            lines += _section(struct)
    lines.append(TAIL.format(
        shop=_listed(SHOP_EVENTS), calls=_listed(CALL_EVENTS), ours=_listed(OUR_EVENTS),
        variables="\n".join(f"| `{name}` | {_listed(fields)} |" for name, fields in VARIABLES.items()),
        tags=", ".join(f"`{tag}`" for tag in sorted(TAGS)),
        reasons="\n".join(f"| `{reason}` | {meaning} |" for reason, meaning in REASONS.items())))
    return "\n".join(lines).rstrip() + "\n"


KINDS: dict[str, type[msgspec.Struct]] = {
    "shop": Shop, "segment": Segment, "campaign": Campaign, "workflow": Workflow, "pool": Pool}
"""The kinds of files."""


def schema() -> dict[str, Any]:
    """JSON Schemas of the files, by their kind: "shop", "segment", "campaign", "workflow", "pool".

    >>> schema()["segment"]["properties"]["when"]["$ref"], "name" in schema()["segment"].get("required", [])
    ('#/$defs/Condition', False)
    """
    return {name: _one(kind) for name, kind in KINDS.items()}


def _one(kind: type[msgspec.Struct]) -> dict[str, Any]:
    found = msgspec.json.schema(kind)
    definitions: dict[str, Any] = found.get("$defs", {})
    for definition in definitions.values():
        definition["description"] = _doc(definition["description"])
    whole: dict[str, Any] = definitions.pop(kind.__name__)
    if kind is not Shop:  # it is called what its file is called
        whole["required"] = [name for name in whole["required"] if name != "name"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **whole, "$defs": definitions}


def _doc(text: str) -> str:
    """A docstring without its indentation and its examples."""
    return cleandoc(text.partition(">>>")[0]).strip()


def _section(struct: type[msgspec.Struct]) -> Iterator[str]:
    about = _doc(struct.__doc__ or "")
    if struct in _WHERE:
        yield from (f"### `{_WHERE[struct]}`", "")
    yield from (about, "", "| field | what | is | left out |", "|---|---|---|---|")
    hints = typing.get_type_hints(struct, include_extras=True)
    for field in msgspec.structs.fields(struct):
        hint = hints[field.name]
        yield f"| `{field.encode_name}` | {_about(hint)} | {_kind(hint)} | {_default(field)} |"
    yield ""


def _about(hint: Any) -> str:
    described = [meta.description for meta in metas(hint) if meta.description]
    return described[-1] if described else ""


def _kind(hint: Any) -> str:
    words: list[str] = []
    for one in unwrapped(hint):
        if one is type(None):
            continue
        origin, arguments = typing.get_origin(one), typing.get_args(one)
        if origin is typing.Literal:
            words += [f"`{choice}`" for choice in arguments]
        elif origin is tuple:
            words.append(f"list of {_kind(arguments[0])}" if not words else "or a list of these")
        elif origin is dict or (isinstance(one, type) and issubclass(one, msgspec.Struct)):
            words.append("table")
        elif any(meta.pattern and "duration" in (meta.description or "") for meta in metas(hint)):
            words.append("duration")
        else:
            words.append({str: "text", int: "whole number", float: "number", bool: "true, false"}[one])
    return ", ".join(dict.fromkeys(words))


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "**needed**" if field.encode_name != "name" else "the file's name"
    default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    if default in (None, (), {}, "", False) or isinstance(default, msgspec.Struct):
        return ""
    return f"`{default}`"


def _listed(names: typing.Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    sys.stdout.write(page())
