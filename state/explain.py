"""Explain: what is known of a person, and why the last things were said to them or held back, in plain words."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from domain.action import Because
from domain.amounts import some, times
from domain.money import to_major
from domain.partition import partition_of
from domain.rfm_groups import group_of
from state import codec
from state.days import written
from state.funnel import stage_of
from state.next_look import in_words
from state.person import Decision, Facts, Person, Said, person_key, routing_key
from state.rules import Rules
from state.runs import ASKED
from state.view import known
from state.why_not import unheard_of, why_not

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


def money(minor: int, currency: str) -> str:
    """An amount as people read it, with the digits its currency has; without one, two.

    >>> money(1250, "EUR"), money(1500, "JPY"), money(1250, "")
    ('12.50 EUR', '1500 JPY', '12.50')
    """
    return f"{to_major(minor, currency)} {currency}".strip()


Told = Mapping[str, Because]
"""What the log holds of decisions: by the id of the action, and by `held_at` for those that have none."""


def held_at(campaign: str, at: int) -> str:
    """The key of a decision that is known by its campaign and its time (ms) alone."""
    return f"{campaign} {at}"


def explain(person: Person, currency: str, name: str = "", rules: Rules | None = None, now: int = 0,
            zone: str = "UTC", told: Told | None = None) -> str:
    """A page of text about one person; with `name`, why they got that campaign, or are in that workflow or segment.

    With the live `rules`, what stands in its way at `now` (ms) is told too. Times are those of the `zone`, which is
    said once; `told` adds to a decision which variant, and by which playbook.
    """
    page = _Page(currency, zone, told or {})
    if not name:
        return "\n".join([*page.who(person), "", *page.decisions(person, "")])
    lines = [f"{person.id}  (times are those of {zone})"]
    decided = name in person.decisions or name in person.said or any(one.campaign == name for one in person.earlier)
    if decided or rules is None or name in rules.campaigns:
        lines += page.decisions(person, name)
    if rules is not None:
        lines += why_not(person, name, rules, now, page.moment)
        lines += filter(None, [unheard_of(person, name, rules)])
    return "\n".join(lines)


class _Page:
    """What is said the same way everywhere on the page."""

    def __init__(self, currency: str, zone: str, told: Told) -> None:
        self.currency, self.zone, self.told = currency, zone, told
        self.moment = partial(written, name=zone)

    def who(self, person: Person) -> Iterator[str]:
        facts = known(person)
        kind = "known customer" if person.id.startswith("u:") else "anonymous visitor"
        yield f"{person.id}  ({kind})" + ("  marked as a robot" if person.bot else "")
        if joined := [name for name, link in person.links.items() if link.state == "joined"]:
            yield "  also known as   " + ", ".join(joined)
        last = f"{self.moment(facts.last_seen)} ({self.zone})" if facts.last_seen else "never: only told of"
        yield f"  first seen      {self.moment(facts.first_seen)}   last seen {last}"
        about = [word for word in (facts.device, facts.country, facts.locale, facts.timezone) if word]
        if about:
            yield "  from            " + ", ".join(about)
        if facts.traits:
            traits = [f"{name} = {trait.value}" for name, trait in sorted(facts.traits.items())]
            yield "  traits          " + ", ".join(traits)
        for name, trait in sorted(facts.consent.items()):
            yield f"  consent         {name}: {'given' if trait.value else 'refused'} on {self.moment(trait.at)}"
        yield from self._did(facts)
        session = person.session
        if session is not None:
            first = ", first visit" if session.first_visit else ""
            seen = f"{some(session.pages, 'page')}, {some(session.products, 'product')}"
            yield (f"  visit           since {self.moment(session.started_at)}: {seen}, {session.added} added to the "
                   f"cart{first}")
        if person.cart is not None and person.cart.items:
            worth = money(person.cart.value, self.currency)
            yield f"  cart            {some(len(person.cart.items), 'product')}, {worth}"
        if person.score is not None:
            band = f" ({person.band})" if person.band else ""
            yield f"  score           {person.score:.1%} likely to buy in this visit{band}"
        if person.rfm:
            yield f"  rfm             {person.rfm} ({group_of(person.rfm).replace('_', ' ')})"
        if stage := stage_of(person):
            yield f"  stage           {stage}"
        for one in reversed(person.written[-NEWEST:]):
            yield f"  was written     {one.campaign} by {one.channel} on {self.moment(one.at)}: {one.state}"
        for name, at in sorted(person.unreachable.items(), key=lambda item: item[1]):
            yield f"  not reached     by {name.partition(':')[0]}: an address was given up on {self.moment(at)}"
        for name, at in sorted(person.segments.items()):
            yield f"  in segment      {name} since {self.moment(at)}"
        for coupon in person.coupons:
            ends = f", until {self.moment(coupon.until)}" if coupon.state == "reserved" else ""
            order = f" by order {coupon.order_id}" if coupon.state == "redeemed" else ""
            yield f"  coupon          {coupon.code} ({coupon.pool}): {coupon.state}{order}{ends}"
        yield from self._runs(person)
        for name, due in sorted(person.timers.items(), key=lambda item: item[1]):
            yield f"  will be looked at again  {self.moment(due)}  ({in_words(name, person)})"

    def _runs(self, person: Person) -> Iterator[str]:
        """Where they are on their ways through workflows, since when, and what they wait for."""
        for run in sorted(person.runs.values(), key=lambda run: (run.began_at, run.workflow)):
            yield (f"  in workflow     {run.workflow} since {self.moment(run.began_at)} ({run.origin}), at {run.at} "
                   f"since {self.moment(run.since)}")
            waits = ("the moment to say what this step says" if run.waits in ASKED else run.waits) or "nothing"
            yield f"{'':18}waits for {waits}" + (f", until {self.moment(run.until)}" if run.until else "")
        for name, been in sorted(person.been.items()):
            yield f"  was in workflow {name}: {times(been.times)}, last left {self.moment(been.left_at)}"

    def _did(self, facts: Facts) -> Iterator[str]:
        for name, count in sorted(facts.counts.items(), key=lambda item: -item[1].last_at):
            yield f"  did             {name}: {times(count.n)}, last {self.moment(count.last_at)}"
        if facts.order_count:
            yield (f"  orders          {facts.order_count}, {money(facts.revenue, self.currency)} net, last "
                   f"{self.moment(facts.last_order_at)}")
        if facts.products:
            newest = reversed(facts.products[-5:])
            yield "  looked at       " + ", ".join(seen.name or seen.product_id for seen in newest)

    def decisions(self, person: Person, campaign: str) -> Iterator[str]:
        lines = [self._decision(name, person.decisions.get(name), person.said.get(name, Said()))
                 for name in dict.fromkeys([*person.decisions, *person.said]) if not campaign or name == campaign]
        lines += [
            self._decision(one.campaign, Decision(one.at, one.kind, one.reason, one.detail, one.action_id), Said())
            for one in person.earlier if not campaign or one.campaign == campaign]
        if not lines:
            yield f"Nothing was decided about {campaign} so far." if campaign else "Nothing was decided yet."
            return
        yield "Decisions, newest first"
        newest = sorted(lines, key=lambda found: -found[0])
        for _, words in newest[:MOST]:
            yield from words
        if len(newest) > MOST:
            yield f"  and {len(newest) - MOST} older ones"

    def _decision(self, name: str, decision: Decision | None, said: Said) -> tuple[int, list[str]]:
        """The last word about a campaign: when, and the lines."""
        often = [f"{'':31}shown {times(said.total)}, last {self.moment(said.last_at)}"] if said.total else []
        if decision is None:  # said under another id, or long ago: that it was said is remembered longer than why
            when = self.moment(said.last_at)
            return said.last_at, [f"  {when}  shown   {name:<24}  why is not known any more", *often]
        if decision.kind in ("hold", "disarm"):
            why = f"{decision.reason}: {decision.detail}" if decision.detail else decision.reason
            held = []
        else:
            why, held = decision.reason, [f"{'':31}because {decision.detail}"] if decision.detail else []
        head = f"  {self.moment(decision.at)}  {decision.kind:<6}  {name:<24}  {why}".rstrip()
        with_what = self._with_what(self.told.get(decision.action_id) or self.told.get(held_at(name, decision.at)))
        return decision.at, [head, *held, *with_what, *often]

    def _with_what(self, because: Because | None) -> Iterator[str]:
        """The variant and the version of the playbook that it was decided with, as far as that is known."""
        if because is None:
            return
        parts = [f"variant {because.variant}"] if because.variant not in ("", "default") else []
        if because.propensity < 1.0:
            parts.append(f"a side that {because.propensity:.1%} get")
        parts += [f"playbook {because.playbook}"] if because.playbook else []
        if parts:
            yield f"{'':31}with {', '.join(parts)}"
