"""What is known of a person, as leaves: where they are and came from, traits, consent, addresses, how long known."""

from operator import attrgetter
from typing import Any

from domain.amounts import some
from domain.condition import Filter, Has, Value
from domain.duration import parse, roughly, say
from domain.shop import Shop
from state import properties
from state.addresses import KINDS, reachable
from state.leaves import Leaf, age, either, granted, texts
from state.person import Facts, Person
from state.properties import accepts


def has(part: Has, shop: Shop) -> list[Leaf]:
    """What is known of the person."""
    found: list[Leaf] = []
    if part.country is not None:
        found.append(_among("country", frozenset(texts(part.country)), "is in"))
    if part.device is not None:
        found.append(_among("device", frozenset(texts(part.device)), "is using"))
    if part.language is not None:
        wanted = frozenset(text.lower().replace("_", "-") for text in texts(part.language))
        named = either(texts(part.language))

        def reads(p: Person, f: Facts, now: int) -> bool:
            locale = f.locale.lower().replace("_", "-")
            return locale in wanted or locale.partition("-")[0] in wanted

        found.append(Leaf(reads, lambda p, f, now: f"reads {named} ({f.locale or 'not known'})", "about"))
    for which, field, value in (("last", "source", part.source), ("first", "source", part.first_source),
                                ("last", "medium", part.medium), ("last", "campaign", part.campaign)):
        if value is not None:
            found.append(_came(which, field, texts(value)))
    if part.consent is not None:
        purposes = texts(part.consent)

        def agreed(p: Person, f: Facts, now: int) -> bool:
            return any(granted(f, purpose, shop) for purpose in purposes)

        found.append(Leaf(agreed, lambda p, f, now: f"agreed to {either(purposes)}", "person"))
    found += [_trait(name, value) for name, value in part.trait.items()]
    if part.address is not None:
        found.append(_address(texts(part.address)))
    if part.visits_at_least is not None:
        visits, said = part.visits_at_least, "at least " + some(part.visits_at_least, "visit")
        found.append(Leaf(lambda p, f, now: f.sessions >= visits,
                          lambda p, f, now: f"{said} (has {f.sessions})", "visit"))
    if part.known is not None:
        found.append(_known(part.known))
    if part.first_seen_within is not None:
        found.append(_first_seen(parse(part.first_seen_within)))
    if part.last_seen_before is not None:
        found.append(_last_seen(parse(part.last_seen_before)))
    return found


def _came(which: str, field: str, wanted: tuple[str, ...]) -> Leaf:
    """Where they came from, last or first."""
    read_source, read = attrgetter(which + "_source"), attrgetter(field)
    among = frozenset(wanted)
    verb = ("came from" if field == "source" else f"came by the {field}") + (" first" if which == "first" else "")

    def value(f: Facts) -> str:
        source = read_source(f)
        return str(read(source)) if source is not None else ""

    return Leaf(lambda p, f, now: value(f) in among,
                lambda p, f, now: f"{verb} {either(wanted)} ({value(f) or 'not known'})", "about")


def _address(kinds: tuple[str, ...]) -> Leaf:
    """We may write to one of these: it is known, looks like an address, and was not given up."""
    channels = [channel for channel, kind in KINDS.items() if kind.name in kinds]

    def test(p: Person, f: Facts, now: int) -> bool:
        return any(reachable(p, f, channel) for channel in channels)

    return Leaf(test, lambda p, f, now: f"can be reached by {either(kinds)}", "person")


def _known(wanted: bool) -> Leaf:
    return Leaf(lambda p, f, now: (p.id[:2] == "u:") is wanted,
                lambda p, f, now: "a known customer" if wanted else "an anonymous visitor", "about")


def _first_seen(span: int) -> Leaf:
    def test(p: Person, f: Facts, now: int) -> bool:
        return f.first_seen > 0 and now < f.first_seen + span

    def change(p: Person, f: Facts, now: int) -> int | None:
        return f.first_seen + span if f.first_seen > 0 and now < f.first_seen + span else None

    return Leaf(test, lambda p, f, now: f"first seen less than {say(span)} ago ({_ago(now, f.first_seen)})", "about",
                change)


def _last_seen(span: int) -> Leaf:
    def test(p: Person, f: Facts, now: int) -> bool:
        return f.last_seen > 0 and now >= f.last_seen + span

    def change(p: Person, f: Facts, now: int) -> int | None:
        return f.last_seen + span if f.last_seen > 0 and now < f.last_seen + span else None

    return Leaf(test, lambda p, f, now: f"last seen at least {say(span)} ago ({_ago(now, f.last_seen)})", "seen",
                change)


def _ago(now: int, at: int) -> str:
    return f"{roughly(age(now, at))} ago" if at else "never"


def _among(field: str, wanted: frozenset[str], verb: str) -> Leaf:
    """Country or device: of the open visit, else the last one known."""
    read = attrgetter(field)
    named = either(sorted(wanted))

    def value(p: Person, f: Facts) -> Any:
        session = p.session
        return (session is not None and read(session)) or read(f)

    def country(p: Person, f: Facts, now: int) -> bool:
        session = p.session
        return ((session is not None and session.country) or f.country) in wanted

    def device(p: Person, f: Facts, now: int) -> bool:
        session = p.session
        return ((session is not None and session.device) or f.device) in wanted

    return Leaf(country if field == "country" else device,
                lambda p, f, now: f"{verb} {named} ({value(p, f) or 'not known'})", "about")


def _trait(name: str, wanted: Value | tuple[Value, ...] | Filter) -> Leaf:
    accepted = accepts(wanted)
    said = properties.words({name: wanted})

    def test(p: Person, f: Facts, now: int) -> bool:
        trait = f.traits.get(name)
        return accepted(None if trait is None else trait.value)

    def words(p: Person, f: Facts, now: int) -> str:
        return f"{said} ({'as it is' if test(p, f, now) else 'not so' if name in f.traits else 'not known'})"

    return Leaf(test, words, "person")
