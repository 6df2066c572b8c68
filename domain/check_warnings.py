"""Warnings: what a playbook may be meant to do, and more likely is not. It goes live all the same.

For a playbook without mistakes (`domain/check.py`); the engine knows nothing of them. What nobody refers to is found by
`domain/check_unused.py`.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

from domain.campaign import Campaign
from domain.check_condition import asks_more, everything, must
from domain.check_looks import looks
from domain.check_unused import unused
from domain.condition import Condition, Did, Filter
from domain.contradiction import VISIT, contradiction
from domain.duration import UNITS, parse, say
from domain.event_names import meant, offered
from domain.known import PURPOSES, Finding, Found, Known, several
from domain.playbook import Playbook
from domain.shop import Shop
from domain.trigger import KINDS, Occasion, Trigger
from domain.workflow import WaitFor, Workflow

ADDRESS = {"email": "email", "sms": "phone", "push": "push"}
"""What `has.address` calls the address of a format."""

SITE = {"Message Delivered": "Offer Shown", "Message Opened": "Offer Shown", "Message Clicked": "Offer Clicked",
        "Message Held": "Offer Held", "Message Bounced": "Offer Held"}
MAIL = {"Offer Shown": "Message Delivered", "Offer Clicked": "Message Clicked", "Offer Held": "Message Held",
        "Offer Dismissed": "Unsubscribed"}
"""What is told of a message, and the like of what is shown on the site; and the other way round."""

MOST_COMPARED = 20
"""Campaigns of one place and priority that each is compared with."""


def warnings(playbook: Playbook, told: Iterable[str] = (), now: int | None = None) -> list[Finding]:
    """All warnings. `told` are names that the playbook's stories speak of, `now` (ms) tells which ends are past.

    >>> from domain.condition import Condition, InCart
    >>> from domain.segment import Segment
    >>> warnings(Playbook(segments=(Segment("full", Condition(cart=InCart(items_at_least=9))),)))[0].text
    'nobody asks for it: no campaign, no workflow, no other segment, no story'
    """
    known = Known(playbook, {})
    found = [Finding("shop", "", path, text) for path, text in _shop(playbook.shop, known)]
    for one in playbook.campaigns:
        found += [Finding("campaigns", one.name, path, text) for path, text in _campaign(one, known)]
    for flow in playbook.workflows:
        found += [Finding("workflows", flow.name, path, text) for path, text in _workflow(flow, known)]
    if now is not None:
        found += _over(playbook, now)
    found += _same_place(playbook, known)
    found += _answers(playbook, known)
    found += looks(playbook)
    found += unused(playbook, known, frozenset(told))
    return found


def _shop(shop: Shop, known: Known) -> Found:
    own = [name for name in shop.consent.purposes if ":" not in name and name not in PURPOSES]
    asked = {one.purpose for one in known.playbook.campaigns}
    for name in own:
        near = meant(name, (*PURPOSES, *ADDRESS))
        if near and name not in asked and name not in ADDRESS:
            yield ("consent", "purposes", name), f"is a purpose of your own, and no campaign has it{near}"
    for n, stage in enumerate(shop.funnel):
        for later in shop.funnel[n + 1:]:
            if asks_more(stage.when, later.when):
                yield ("funnel", n), (f'nobody is ever at this stage: who has come this far is at "{later.name}" too, '
                                      "and the furthest stage counts")
                break


# -- campaigns ---------------------------------------------------------------------------------------------------


def _campaign(one: Campaign, known: Known) -> Found:
    yield from _wider(one, known.shop)
    yield from _seldom(one)
    if one.on_site:
        yield from _visits(one)
    else:
        yield from _mail(one, known)
    pool = next((pool for pool in known.playbook.coupons if pool.name == one.coupon), None)
    if pool is not None and one.goal is not None and one.goal.event == "Order Completed" \
            and parse(pool.valid_for) < parse(one.goal.within):
        yield ("goal", "within"), (f"orders count for {say(parse(one.goal.within))}, and the coupon of {pool.name} is "
                                   f"good for {say(parse(pool.valid_for))}: orders without it count as well")
    if one.goal is not None and one.goal.event == one.trigger.event != "Order Completed" and not one.goal.where:
        yield ("goal", "event"), ("is its own occasion: whoever does it once more counts; say in goal.where which ones "
                                  "are hoped for")


def _wider(one: Campaign, shop: Shop) -> Found:
    """Limits that another limit does not let it reach."""
    group = shop.groups.get(one.group or "")
    for field in ("per_session", "per_day", "per_week"):
        own = getattr(one.limits, field)
        if own is None or (field == "per_session" and (own == 1 or not one.on_site)):
            continue
        if group is not None and (most := getattr(group, field)) is not None and own > most:
            yield ("limits", field), f"is never reached: its group {one.group} allows {most}"
        elif field != "per_week" and one.purpose != "service" and one.format != "slot" \
                and own > getattr(shop.limits, field):
            yield ("limits", field), (f"is never reached: [limits] of shop.toml allows {getattr(shop.limits, field)} "
                                      "of everything together")


def _over(playbook: Playbook, now: int) -> Iterator[Finding]:
    """Campaigns whose end has come."""
    zone = ZoneInfo(playbook.shop.timezone)
    for one in playbook.campaigns:
        if one.end is not None and datetime.fromisoformat(one.end).replace(tzinfo=zone).timestamp() * 1_000 <= now:
            yield Finding("campaigns", one.name, ("end",), f"is past ({one.end}): it is said to nobody any more")


def _same_place(playbook: Playbook, known: Known) -> Iterator[Finding]:
    """Campaigns that fill one element for the same people, and none of them comes first."""
    places: dict[tuple[str, int], list[Campaign]] = {}
    for one in playbook.campaigns:
        if one.format == "slot":
            places.setdefault((one.slot, one.priority), []).append(one)
    for some in places.values():
        for n, one in enumerate(some):
            for other in some[max(0, n - MOST_COMPARED):n]:
                if _at_once(one.trigger, other.trigger) and not contradiction(
                        _both(one, other), known.conditions, known.stages):
                    yield Finding("campaigns", one.name, ("priority",), (
                        f'is that of "{other.name}", which fills {one.slot} too: for whom both are meant, the name '
                        "decides; give the one that is to win more"))
                    break


def _at_once(one: Trigger, other: Trigger) -> bool:
    """Whether two occasions are the same one, and their properties do not tell them apart."""
    if one.kind == "workflow" or any(getattr(one, field) != getattr(other, field) for field in (*KINDS, "delay")):
        return False
    for name, value in one.properties.items():
        beside = other.properties.get(name, value)
        some, more = (each if isinstance(each, tuple) else (each,) for each in (value, beside))
        if not any(isinstance(each, Filter) for each in (*some, *more)) and not set(some) & set(more):
            return False
    return True


def _both(one: Campaign, other: Campaign) -> Condition:
    no = tuple(Condition(not_=each.unless) for each in (one, other) if each.unless is not None)
    return Condition(all=(one.when, other.when, *no))


def _seldom(one: Campaign) -> Found:
    """Limits of a day or a week that the time between two of them does not let it reach."""
    every = parse(one.limits.every or "0s")
    for field, span in (("per_day", UNITS["d"]), ("per_week", UNITS["w"])):
        most = getattr(one.limits, field)
        if most is not None and most > 1 and (most - 1) * every >= span:
            yield ("limits", field), f"is never reached: two of them are at least {say(every)} apart (every)"


def _visits(one: Campaign) -> Found:
    if one.limits.every is None:
        return
    every = parse(one.limits.every)
    if one.limits.per_session == 1 and every <= VISIT:
        yield ("limits", "every"), (f"makes no difference: it is shown once a visit, and between two visits lie more "
                                    f"than {say(VISIT)}; for several in one visit raise per_session")
    elif one.limits.per_session > 1 and every >= UNITS["d"]:
        yield ("limits", "per_session"), f"is never reached: two of them are at least {say(every)} apart (every)"


def _mail(one: Campaign, known: Known) -> Found:
    if one.limits.per_session != 1:
        yield ("limits", "per_session"), "makes no difference to messages: use per_day, per_week, total or every"
    needed = ADDRESS.get(one.format)
    for path, when in must(one.when):
        asked = several(when.has.address) if when.has is not None else ()
        if needed and asked and needed not in asked:
            yield ("when", *path, "has", "address"), (
                f'asks for another address than {one.format} needs; did you mean "{needed}"? (Left out, it is asked '
                "for in any case.)")
    if one.purpose != "service" and not _bounded(one, known):
        yield ("limits",), (f"nothing but the {known.shop.limits.per_day} a day of everything limits how often "
                            "somebody gets it: say per_week or every, give it a group with limits, or shop.toml a "
                            "[pressure] budget")


def _bounded(one: Campaign, known: Known) -> bool:
    """Whether something limits how often a person gets a message."""
    limits, group, pressure = one.limits, known.shop.groups.get(one.group or ""), known.shop.pressure
    if (limits.per_day, limits.per_week, limits.total, limits.every) != (None, None, None, None):
        return True
    if group is not None and (group.per_day is not None or group.per_week is not None):
        return True
    if pressure.per_day is not None or pressure.per_week is not None:
        return True
    senders = [flow for flow in known.playbook.workflows if any(step.send == one.name for step in flow.steps)]
    return bool(senders) and all(flow.again != "always" for flow in senders)


# -- workflows ---------------------------------------------------------------------------------------------------


def night(shop: Shop, one: Campaign) -> int:
    """How long (ms) a campaign may have to wait for the end of quiet hours."""
    quiet = shop.quiet_hours
    if quiet is None or one.on_site or one.urgent or (quiet.channels and one.format not in quiet.channels):
        return 0
    begin, end = (int(clock[:2]) * 60 + int(clock[3:]) for clock in (quiet.begin, quiet.end))
    return (end - begin) % (24 * 60) * UNITS["m"]


def _workflow(flow: Workflow, known: Known) -> Found:
    yield from _unsent(flow, known)
    for n, step in enumerate(flow.steps):
        sent = known.campaign.get(step.send or "")
        if sent is None:
            continue
        if step.patience is not None and parse(step.patience) < (quiet := night(known.shop, sent)):
            yield ("steps", n, "patience"), (
                f"is shorter than the quiet hours ({say(quiet)}): who comes to this step in the evening never gets it; "
                "left out, their end is waited for")
        if sent.on_site and step.patience is None and n and flow.steps[n - 1].kind in ("wait", "wait_until"):
            yield ("steps", n, "send"), (f'"{sent.name}" is shown on the site, where they hardly are after a wait: '
                                         'patience = "7d" lets it wait for their next visit')
        yield from _into_the_night(flow, n, sent, known.shop)
        before = flow.steps[n - 1] if n else None
        if before is not None and before.send == step.send and before.go in (None, flow.id_of(n)):
            yield ("steps", n, "send"), (f'"{sent.name}" is said by the step before as well, at the same moment; a '
                                         "wait belongs between them")
        onward = step.go or (flow.id_of(n + 1) if n + 1 < len(flow.steps) else None)
        if step.otherwise is not None and step.otherwise == onward:
            yield ("steps", n, "otherwise"), "leads to where it goes on anyway: leave it out"


def _into_the_night(flow: Workflow, n: int, sent: Campaign, shop: Shop) -> Found:
    """A wait for a time of day at which the message behind it is not sent."""
    quiet, before = shop.quiet_hours, flow.steps[n - 1] if n else None
    if quiet is None or not night(shop, sent) or before is None or before.go or before.wait_until is None:
        return
    at = before.wait_until.time or "00:00"
    if (quiet.begin <= at < quiet.end) if quiet.begin < quiet.end else (at >= quiet.begin or at < quiet.end):
        yield ("steps", n - 1, "wait_until"), (f'ends at {at}, in the quiet hours: "{sent.name}" goes out at '
                                               f"{quiet.end}; wait until then, or make it urgent")


def _unsent(flow: Workflow, known: Known) -> Found:
    """Waiting for an answer to what this workflow does not say."""
    sent = {step.send for step in flow.steps}
    for n, step in enumerate(flow.steps):
        wait = step.wait_for
        if wait is None or wait.event is None or not wait.event.startswith(("Message ", "Offer ")):
            continue
        asked = wait.where.get("campaign")
        named = [one for one in (asked if isinstance(asked, tuple) else (asked,)) if isinstance(one, str)]
        if named and all(one in known.campaign and one not in sent for one in named):
            yield ("steps", n, "wait_for", "where", "campaign"), (
                f'this workflow never sends "{named[0]}"' + offered(named[0], sorted(one for one in sent if one)))


# -- what is told of messages and offers -------------------------------------------------------------------------


def _answers(playbook: Playbook, known: Known) -> Iterator[Finding]:
    """Questions for what a campaign cannot bring about: a text message is not opened, a popup is not delivered."""
    for part, name, path, piece in everything(playbook):
        if not isinstance(piece, (Did, WaitFor, Occasion, Trigger)) or piece.event is None \
                or not piece.event.startswith(("Message ", "Offer ")):
            continue
        field = "properties" if isinstance(piece, (Occasion, Trigger)) else "where"
        asked = getattr(piece, field).get("campaign")
        for one in asked if isinstance(asked, tuple) else (asked,):
            if isinstance(one, str) and (text := _unanswered(piece.event, one, known)):
                yield Finding(part, name, (*path, field, "campaign"), text)


def _unanswered(event: str, name: str, known: Known) -> str:
    one = known.campaign.get(name)
    if one is None:
        return f'there is no campaign "{name}"{meant(name, known.campaigns)}'
    if one.on_site and event in SITE:
        return (f'"{name}" is shown on the site, so there is no "{event}" of it; '
                f'did you mean event = "{SITE[event]}"?')
    if not one.on_site and event in MAIL:
        return (f'"{name}" goes out by {one.format}, so there is no "{event}" of it; '
                f'did you mean event = "{MAIL[event]}"?')
    if one.format == "sms" and event == "Message Opened":
        return (f'"{name}" goes out by sms, and nobody can tell whether a text was opened; did you mean '
                'event = "Message Clicked" or "Message Delivered"?')
    return ""
