"""Predicates on the profile: location, source, traits, consent, addresses and time since first seen."""

from operator import attrgetter
from typing import Any

from domain.duration import format_duration, format_rough_duration, parse_duration, pluralize
from domain.playbook.condition import Has, PropertyFilter, Value
from domain.playbook.shop import Shop
from state.conditions import properties
from state.conditions.predicate import Predicate, as_tuple, elapsed, has_consent, join_or
from state.conditions.properties import value_matcher
from state.person.addresses import ADDRESS_TYPES, reachable_address
from state.person.model import Person, ProfileFragment


def profile_predicates(condition: Has, shop: Shop) -> list[Predicate]:
    """What is known of the person."""
    found: list[Predicate] = []
    if condition.country is not None:
        found.append(_location_or_device("country", frozenset(as_tuple(condition.country)), "is in"))
    if condition.device is not None:
        found.append(_location_or_device("device", frozenset(as_tuple(condition.device)), "is using"))
    if condition.language is not None:
        wanted = frozenset(text.lower().replace("_", "-") for text in as_tuple(condition.language))
        named = join_or(as_tuple(condition.language))

        def reads(p: Person, f: ProfileFragment, now: int) -> bool:
            locale = f.locale.lower().replace("_", "-")
            return locale in wanted or locale.partition("-")[0] in wanted

        found.append(Predicate(reads, lambda p, f, now: f"reads {named} ({f.locale or 'not known'})", "profile"))
    for which, field, value in (
        ("last", "source", condition.source),
        ("first", "source", condition.first_source),
        ("last", "medium", condition.medium),
        ("last", "campaign", condition.campaign),
    ):
        if value is not None:
            found.append(_source_predicate(which, field, as_tuple(value)))
    if condition.consent is not None:
        purposes = as_tuple(condition.consent)

        def agreed(p: Person, f: ProfileFragment, now: int) -> bool:
            return any(has_consent(f, purpose, shop) for purpose in purposes)

        found.append(Predicate(agreed, lambda p, f, now: f"agreed to {join_or(purposes)}", "traits"))
    found += [_trait_predicate(name, value) for name, value in condition.trait.items()]
    if condition.address is not None:
        found.append(_reachable_predicate(as_tuple(condition.address)))
    if condition.sessions_at_least is not None:
        visits, said = condition.sessions_at_least, "at least " + pluralize(condition.sessions_at_least, "session")
        found.append(
            Predicate(lambda p, f, now: f.sessions >= visits, lambda p, f, now: f"{said} (has {f.sessions})", "session")
        )
    if condition.identified is not None:
        found.append(_identified_predicate(condition.identified))
    if condition.first_seen_within is not None:
        found.append(_first_seen_predicate(parse_duration(condition.first_seen_within)))
    if condition.last_seen_before is not None:
        found.append(_last_seen_predicate(parse_duration(condition.last_seen_before)))
    return found


def _source_predicate(touch: str, field: str, wanted: tuple[str, ...]) -> Predicate:
    """Where they came from, last or first."""
    read_source, read = attrgetter(touch + "_source"), attrgetter(field)
    among = frozenset(wanted)
    verb = ("came from" if field == "source" else f"came by the {field}") + (" first" if touch == "first" else "")

    def value(f: ProfileFragment) -> str:
        source = read_source(f)
        return str(read(source)) if source is not None else ""

    return Predicate(
        lambda p, f, now: value(f) in among,
        lambda p, f, now: f"{verb} {join_or(wanted)} ({value(f) or 'not known'})",
        "profile",
    )


def _reachable_predicate(kinds: tuple[str, ...]) -> Predicate:
    """Build the predicate on a reachable channel: a known, valid and not suppressed address."""
    channels = [channel for channel, kind in ADDRESS_TYPES.items() if kind.name in kinds]

    def test(p: Person, f: ProfileFragment, now: int) -> bool:
        return any(reachable_address(p, f, channel) for channel in channels)

    return Predicate(test, lambda p, f, now: f"can be reached by {join_or(kinds)}", "traits")


def _identified_predicate(wanted: bool) -> Predicate:
    return Predicate(
        lambda p, f, now: (p.id[:2] == "u:") is wanted,
        lambda p, f, now: "a known customer" if wanted else "an anonymous visitor",
        "profile",
    )


def _first_seen_predicate(span: int) -> Predicate:
    def test(p: Person, f: ProfileFragment, now: int) -> bool:
        return f.first_seen > 0 and now < f.first_seen + span

    def change(p: Person, f: ProfileFragment, now: int) -> int | None:
        return f.first_seen + span if f.first_seen > 0 and now < f.first_seen + span else None

    return Predicate(
        test,
        lambda p, f, now: f"first seen less than {format_duration(span)} ago ({_ago(now, f.first_seen)})",
        "profile",
        change,
    )


def _last_seen_predicate(span: int) -> Predicate:
    def test(p: Person, f: ProfileFragment, now: int) -> bool:
        return f.last_seen > 0 and now >= f.last_seen + span

    def change(p: Person, f: ProfileFragment, now: int) -> int | None:
        return f.last_seen + span if f.last_seen > 0 and now < f.last_seen + span else None

    return Predicate(
        test,
        lambda p, f, now: f"last seen at least {format_duration(span)} ago ({_ago(now, f.last_seen)})",
        "last_seen",
        change,
    )


def _ago(now: int, at: int) -> str:
    return f"{format_rough_duration(elapsed(now, at))} ago" if at else "never"


def _location_or_device(field: str, wanted: frozenset[str], verb: str) -> Predicate:
    """Build the predicate on country or device: of the current session, else the last known one."""
    read = attrgetter(field)
    named = join_or(sorted(wanted))

    def value(p: Person, f: ProfileFragment) -> Any:
        session = p.session
        return (session is not None and read(session)) or read(f)

    def country(p: Person, f: ProfileFragment, now: int) -> bool:
        session = p.session
        return ((session is not None and session.country) or f.country) in wanted

    def device(p: Person, f: ProfileFragment, now: int) -> bool:
        session = p.session
        return ((session is not None and session.device) or f.device) in wanted

    return Predicate(
        country if field == "country" else device,
        lambda p, f, now: f"{verb} {named} ({value(p, f) or 'not known'})",
        "profile",
    )


def _trait_predicate(name: str, wanted: Value | tuple[Value, ...] | PropertyFilter) -> Predicate:
    accepted = value_matcher(wanted)
    said = properties.describe({name: wanted})

    def test(p: Person, f: ProfileFragment, now: int) -> bool:
        trait = f.traits.get(name)
        return accepted(None if trait is None else trait.value)

    def words(p: Person, f: ProfileFragment, now: int) -> str:
        return f"{said} ({'as it is' if test(p, f, now) else 'not so' if name in f.traits else 'not known'})"

    return Predicate(test, words, "traits")
