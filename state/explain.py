"""Explain: what is known of a person, and why the last things were said to them or held back, in plain words."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from domain.money import to_major
from domain.partition import partition_of
from domain.rfm_groups import group_of
from state import codec
from state.funnel import stage_of
from state.person import Decision, Facts, Person, Said, person_key, routing_key
from state.rules import Rules
from state.runs import ASKED
from state.view import known
from state.why_not import why_not

MOST = 50
"""Campaigns that are shown of one person."""

NEWEST = 10
"""Messages that are shown of one person."""

Read = Callable[[int, str], bytes | None]
"""(partition, person key) -> the person's bytes."""


def find(who: str, read: Read, partitions: int) -> list[Person]:
    """The persons an id may mean: a person key as it is, else the customer of this id, else the browser of this id.

    Who became an alias of a known customer is followed there.
    """
    keys = [who] if who[:2] in ("u:", "a:") else [key for key in (person_key(who, None), person_key(None, who)) if key]
    found: list[Person] = []
    for named in keys:
        key, seen = named, set[str]()
        while key and key not in seen:
            seen.add(key)
            kept = read(partition_of(routing_key(key), partitions), key)
            if kept is None:
                break
            person = codec.decode(kept)
            if not person.alias_of:
                if all(other.id != person.id for other in found):
                    found.append(person)
                break
            key = person.alias_of
    return found


def moment(at: int) -> str:
    """A time as people read it, UTC.

    >>> moment(1_569_888_000_000)
    '2019-10-01 00:00:00'
    """
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def money(minor: int, currency: str) -> str:
    """An amount as people read it, with the digits its currency has; without one, two.

    >>> money(1250, "EUR"), money(1500, "JPY"), money(1250, "")
    ('12.50 EUR', '1500 JPY', '12.50')
    """
    return f"{to_major(minor, currency)} {currency}".strip()


def explain(person: Person, currency: str, campaign: str = "", rules: Rules | None = None, now: int = 0) -> str:
    """A page of text about one person; with `campaign`, why they got that one, or why not.

    With the live `rules`, what stands in its way at `now` (ms) is told too.
    """
    if campaign:
        more = why_not(person, campaign, rules, now) if rules is not None else ()
        return "\n".join([*_decisions(person, campaign), *more])
    return "\n".join([*_who(person, currency), "", *_decisions(person, "")])


def _who(person: Person, currency: str) -> Iterator[str]:
    facts = known(person)
    kind = "known customer" if person.id.startswith("u:") else "anonymous visitor"
    yield f"{person.id}  ({kind})" + ("  marked as a robot" if person.bot else "")
    if joined := [name for name, link in person.links.items() if link.state == "joined"]:
        yield "  also known as   " + ", ".join(joined)
    last = f"{moment(facts.last_seen)} (UTC)" if facts.last_seen else "never: only told of"
    yield f"  first seen      {moment(facts.first_seen)}   last seen {last}"
    about = [word for word in (facts.device, facts.country, facts.locale, facts.timezone) if word]
    if about:
        yield "  from            " + ", ".join(about)
    if facts.traits:
        traits = [f"{name} = {trait.value}" for name, trait in sorted(facts.traits.items())]
        yield "  traits          " + ", ".join(traits)
    for name, trait in sorted(facts.consent.items()):
        yield f"  consent         {name}: {'given' if trait.value else 'refused'} on {moment(trait.at)}"
    yield from _did(facts, currency)
    session = person.session
    if session is not None:
        first = ", first visit" if session.first_visit else ""
        yield (f"  visit           since {moment(session.started_at)}: {session.pages} pages, {session.products} "
               f"products, {session.added} added to the cart{first}")
    if person.cart is not None and person.cart.items:
        yield f"  cart            {len(person.cart.items)} products, {money(person.cart.value, currency)}"
    if person.score is not None:
        band = f" ({person.band})" if person.band else ""
        yield f"  score           {person.score:.1%} likely to buy in this visit{band}"
    if person.rfm:
        yield f"  rfm             {person.rfm} ({group_of(person.rfm).replace('_', ' ')})"
    if stage := stage_of(person):
        yield f"  stage           {stage}"
    for written in reversed(person.written[-NEWEST:]):
        yield f"  was written     {written.campaign} by {written.channel} on {moment(written.at)}: {written.state}"
    for name, at in sorted(person.unreachable.items(), key=lambda item: item[1]):
        yield f"  not reached     by {name.partition(':')[0]}: an address was given up on {moment(at)}"
    for name, at in sorted(person.segments.items()):
        yield f"  in segment      {name} since {moment(at)}"
    for coupon in person.coupons:
        ends = f", until {moment(coupon.until)}" if coupon.state == "reserved" else ""
        order = f" by order {coupon.order_id}" if coupon.state == "redeemed" else ""
        yield f"  coupon          {coupon.code} ({coupon.pool}): {coupon.state}{order}{ends}"
    yield from _runs(person)
    for name, due in sorted(person.timers.items(), key=lambda item: item[1]):
        yield f"  will be looked at again  {moment(due)}  ({name})"


def _runs(person: Person) -> Iterator[str]:
    """Where they are on their ways through workflows, since when, and what they wait for."""
    for run in sorted(person.runs.values(), key=lambda run: (run.began_at, run.workflow)):
        yield (f"  in workflow     {run.workflow} since {moment(run.began_at)} ({run.origin}), at {run.at} since "
               f"{moment(run.since)}")
        waits = ("the moment to say what this step says" if run.waits in ASKED else run.waits) or "nothing"
        yield f"{'':18}waits for {waits}" + (f", until {moment(run.until)}" if run.until else "")
    for name, been in sorted(person.been.items()):
        yield f"  was in workflow {name}: {been.times} times, last left {moment(been.left_at)}"


def _did(facts: Facts, currency: str) -> Iterator[str]:
    for name, count in sorted(facts.counts.items(), key=lambda item: -item[1].last_at):
        yield f"  did             {name}: {count.n} times, last {moment(count.last_at)}"
    if facts.order_count:
        yield (f"  orders          {facts.order_count}, {money(facts.revenue, currency)} net, last "
               f"{moment(facts.last_order_at)}")
    if facts.products:
        yield "  looked at       " + ", ".join(seen.name or seen.product_id for seen in reversed(facts.products[-5:]))


def _decisions(person: Person, campaign: str) -> Iterator[str]:
    lines = [_decision(name, person.decisions.get(name), person.said.get(name, Said()))
             for name in dict.fromkeys([*person.decisions, *person.said]) if not campaign or name == campaign]
    lines += [_decision(one.campaign, Decision(one.at, one.kind, one.reason, one.detail, one.action_id), Said())
              for one in person.earlier if not campaign or one.campaign == campaign]
    if not lines:
        yield (f"Nothing was decided about {campaign}: there was no occasion on which its conditions held."
               if campaign else "Nothing was decided yet.")
        return
    yield "Decisions, newest first"
    newest = sorted(lines, key=lambda found: -found[0])
    for _, words in newest[:MOST]:
        yield from words
    if len(newest) > MOST:
        yield f"  and {len(newest) - MOST} older ones"


def _decision(name: str, decision: Decision | None, said: Said) -> tuple[int, list[str]]:
    """The last word about a campaign: when, and the lines."""
    often = [f"{'':31}shown {said.total} times, last {moment(said.last_at)}"] if said.total else []
    if decision is None:  # said under another id, or long ago: that it was said is remembered longer than why
        return said.last_at, [f"  {moment(said.last_at)}  shown   {name:<24}  why is not known any more", *often]
    if decision.kind in ("hold", "disarm"):
        why = f"{decision.reason}: {decision.detail}" if decision.detail else decision.reason
        held = []
    else:
        why, held = decision.reason, [f"{'':31}because {decision.detail}"] if decision.detail else []
    return decision.at, [f"  {moment(decision.at)}  {decision.kind:<6}  {name:<24}  {why}".rstrip(), *held, *often]
