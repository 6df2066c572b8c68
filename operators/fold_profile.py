"""fold_profile: what happened becomes what is known.

    event ── read (or refused by name) ──▶ facts of the own facet: counts, products, orders, traits, consent …
                                      ├──▶ the visit: opened, prolonged, closed; the order that labels it
                                      └──▶ the cart

Everything is read before anything is changed, so an event that cannot be read leaves no trace. Event time decides what
belongs together; what is late counts, but opens, prolongs and closes nothing in the past (`state/sessions.py`). Bots
are remembered as bots: no visit, no outcome. A known customer does not become one because a program called in their
name: that call alone is set aside. Nor does who was sent a mail whose images a robot loads.
"""

from collections.abc import Sequence
from typing import Any
from zlib import crc32

from domain.effect import Effect
from domain.event import Context as About
from domain.event import Event, Group, Identify, Page, Screen, Track, text_id
from domain.letter import Letter
from domain.outcome import Outcome
from domain.product import Prices, WrongField
from domain.shop import Shop
from operators import books
from state import traces
from state.context import Context, Due, Happening, Unreadable
from state.coupons import expire
from state.facts import count, learn_trait
from state.person import MAX_CONSENT, MAX_TEXT, MAX_TRAITS, Facts, Person, Session, Source, Trait
from state.rules import Rules
from state.sessions import SESSION_FOR, SESSION_TIMER, begin, close, device_of, ends_at, label
from state.shop_events import KNOWN, How
from state.traits import read_answers, read_traits

NAME = "fold_profile"

MAX_URL = 512
"""Characters of a landing page or referrer that are kept."""

NO_VISIT = frozenset({
    "Order Updated", "Order Refunded", "Order Cancelled", "Consent Updated", "Message Delivered", "Message Opened",
    "Message Clicked", "Message Bounced", "Message Held", "Unsubscribed", "Offer Held", "Offer Shown", "Signed Out",
    "Identified", "Grouped", "Aliased",
})
"""What is reported about a person, not done by them in the shop: it opens no visit, keeps none open, and who was only
reported about was not seen again."""

FEEDBACK = frozenset({"Message Delivered", "Message Opened", "Message Clicked", "Message Bounced", "Message Held",
                      "Unsubscribed"})
"""What programs report: that one of them called makes no robot of the person."""

SCANNED = frozenset({"Message Opened", "Message Clicked"})
"""What a mail scanner does, too: from a robot it tells nothing about the person."""

_PAGES = (Page, Screen)

_prices_of: tuple[Shop | None, Prices] = (None, Prices("EUR"))


def step(person: Person, event: Happening, context: Context) -> Sequence[Effect]:
    """Fold one happening. Unreadable, before anything has changed, when a field is of no use."""
    if person.rules != context.rules.short:
        traces.forget(person, context.rules.remembered)
    if isinstance(event, Due):
        return _due(person, event, context)
    if isinstance(event, Letter):
        return _settle(person, context)
    about = event.context
    seen = about.attimo if about is not None else None
    if person.bot or (seen is not None and seen.bot):
        image = seen is not None and seen.image
        if person.bot or (event.name not in FEEDBACK and not image):
            return _bot(person, event, context.event_time)
        if event.name in SCANNED or event.name not in FEEDBACK:
            return ()
    effects = _fold(person, event, context)
    if event.name in books.BOOKS or person.hopes or books.EVERY:
        return (*effects, *books.keep(person, event, context))
    return effects


def _fold(person: Person, event: Event, context: Context) -> Sequence[Effect]:
    about = event.context
    seen = about.attimo if about is not None else None
    at = context.event_time
    try:
        how, news = _read(event, context.rules)
    except WrongField as wrong:
        raise Unreadable(wrong.field, wrong.reason, wrong.kind) from None

    facts = person.facets.get(person.id)
    if facts is None:
        facts = person.own()
    facts.version += 1
    latest = at >= facts.last_seen
    if latest and event.name not in NO_VISIT:
        facts.last_seen = at
    if at < facts.first_seen or not facts.first_seen:
        facts.first_seen = at
    if about is not None:
        _circumstances(facts, about, latest)

    name = event.name
    offline = seen is not None and seen.offline
    ended: Sequence[Effect] = ()
    session = None
    if name not in NO_VISIT and not offline:
        ended = _visit(person, facts, event, at, context)
        session = person.session
        if session is not None:
            if at < session.started_at:
                session = None
            else:
                session.events += 1
                if at >= session.last_at:
                    session.last_at = at
                    if event.anonymous_id is not None:
                        session.anonymous_id = text_id(event.anonymous_id) or ""
    if how is not None:
        if how.fold(person, facts, session, news, at, offline):
            count(facts, name, at)
            if name in context.rules.traces:
                context.rules.traces[name].remember(facts, event, at)
        if session is not None and session.ordered and not session.labelled:
            return (*ended, *_bought(person, session, context))
        return ended
    count(facts, name, at)
    if name in context.rules.traces:
        context.rules.traces[name].remember(facts, event, at)
    if isinstance(event, _PAGES):
        facts.pages += 1
        if session is not None:
            session.pages += 1
    elif isinstance(event, Track):
        if name == "Exit Intent" and session is not None:
            session.exits += 1
        elif news:
            _consent(facts, news, event, at)
    elif isinstance(event, Identify):
        traits, answers = news
        mark = _mark(event)
        for trait, value in traits:
            learn_trait(facts.traits, trait, Trait(at, value, mark), MAX_TRAITS)
        _consent(facts, answers, event, at)
    elif isinstance(event, Group) and event.group_id is not None:
        learn_trait(facts.traits, "group", Trait(at, str(event.group_id)[:MAX_TEXT], _mark(event)), MAX_TRAITS)
    return ended


def readable(event: Event, rules: Rules) -> bool:
    """Whether the engine folds this event, or refuses it for what it says.

    >>> from domain.playbook import Playbook
    >>> from state.rules import compile_rules
    >>> readable(Track(event="Product Added", properties={"product_id": {}}), compile_rules(Playbook()))
    False
    """
    try:
        _read(event, rules)
    except WrongField:
        return False
    return True


def _read(event: Event, rules: Rules) -> tuple[How | None, Any]:
    """How this event is folded (None: it is counted), and what it says. WrongField when it says nonsense."""
    if isinstance(event, Track):
        name = event.event
        how = KNOWN.get(name)
        if how is not None:
            return how, how.read(event.properties, _prices(rules.playbook.shop), event)
        if not 0 < len(name) <= MAX_TEXT:
            raise WrongField("event", f"should have between 1 and {MAX_TEXT} characters", "too_long")
        if name == "Consent Updated":
            return None, read_answers(event.properties, "properties")
    elif isinstance(event, Identify):
        return None, read_traits(event.traits)
    return None, None


def _prices(shop: Shop) -> Prices:
    """The shop's currency and rates, made ready once per playbook."""
    global _prices_of
    if _prices_of[0] is not shop:
        _prices_of = (shop, Prices(shop.currency, shop.rates))
    return _prices_of[1]


def _due(person: Person, due: Due, context: Context) -> Sequence[Effect]:
    """The visit is over, unless it went on since the timer was set; or a coupon has expired."""
    session = person.session
    effects: Sequence[Effect] = expire(person, due.id, context) if due.kind == "coupon" else ()
    if session is None:
        return effects
    if ends_at(session) > context.now:
        if due.kind == "session_end":
            person.timers[SESSION_TIMER] = ends_at(session)
        return effects
    return (*effects, *close(person, context, NAME))  # whichever timer of this moment fires first


def _settle(person: Person, context: Context) -> Sequence[Effect]:
    """After a handover: the order may have been here before the visit it belongs to."""
    session = person.session
    if session is None or session.labelled or not session.ordered or not session.snapshot:
        return ()
    return (label(person, session, True, context, NAME),)


def _bot(person: Person, event: Event, at: int) -> Sequence[Effect]:
    """Remember that it is one, and when it was here."""
    if person.id[0] == "a":
        person.bot = True
        person.session = None
        person.timers.pop(SESSION_TIMER, None)
    facts = person.own()
    facts.version += 1
    facts.first_seen = min(facts.first_seen or at, at)
    facts.last_seen = max(facts.last_seen, at)
    if 0 < len(event.name) <= MAX_TEXT:
        count(facts, event.name, at)
    return ()


def _circumstances(facts: Facts, about: About, latest: bool) -> None:
    """Where they are, with what, in which language. Late news does not overrule."""
    seen = about.attimo
    if seen is not None:
        if seen.country and (latest or not facts.country):
            facts.country = seen.country[:2]
        if seen.device and (latest or not facts.device):
            facts.device = seen.device[:16]
    if not facts.device and about.user_agent:
        facts.device = device_of(about.user_agent)
    if about.locale and (latest or not facts.locale):
        facts.locale = about.locale[:35]
    if about.timezone and (latest or not facts.timezone):
        facts.timezone = about.timezone[:64]


def _visit(person: Person, facts: Facts, event: Event, at: int, context: Context) -> Sequence[Outcome]:
    """Open a visit if this begins one; the one before it is closed first, and gets its label."""
    session = person.session
    about = event.context
    campaign = about.campaign if about is not None else None
    came_from = ("", "", "")
    if campaign is not None:
        came_from = ((campaign.source or "")[:MAX_TEXT], (campaign.medium or "")[:MAX_TEXT],
                     (campaign.name or "")[:MAX_TEXT])
    ended: Sequence[Outcome] = ()
    if session is not None:
        over = at >= session.last_at + SESSION_FOR
        if not over and (came_from == ("", "", "") or at < session.last_at
                         or came_from == (session.source, session.medium, session.campaign)):
            return ()
        ended = close(person, context, NAME)
    elif at + SESSION_FOR <= context.now:
        return ()
    session = begin(person, facts, at)
    session.source, session.medium, session.campaign = came_from
    session.device, session.country = facts.device, facts.country
    if came_from != ("", "", ""):
        source = Source(*came_from, at)
        if facts.first_source is None or at < facts.first_source.at:
            facts.first_source = source
        if facts.last_source is None or at >= facts.last_source.at:
            facts.last_source = source
    page = about.page if about is not None else None
    if page is not None:
        session.landing_page = (page.url or page.path or "")[:MAX_URL]
        session.referrer = (page.referrer or "")[:MAX_URL]
    return ended


def _bought(person: Person, session: Session, context: Context) -> Sequence[Outcome]:
    """An order in this visit. Its moment, if it came before the order, was followed by a purchase."""
    if not session.snapshot:
        return ()
    if session.snapshot_at > session.ordered_at:
        session.snapshot, session.labelled = {}, True
        return ()
    return (label(person, session, True, context, NAME),)


def _mark(event: Event) -> int:
    return crc32(event.message_id.encode()) if event.message_id else 0


def _consent(facts: Facts, answers: list[tuple[str, bool]], event: Event, at: int) -> None:
    """The latest answer counts; of a yes and a no at the same time, the no."""
    for purpose, answer in answers:
        have = facts.consent.get(purpose)
        if have is not None and have.at == at and not have.value:
            continue
        if have is not None and have.at == at and not answer:
            facts.consent[purpose] = Trait(at, answer, _mark(event))
            continue
        learn_trait(facts.consent, purpose, Trait(at, answer, _mark(event)), MAX_CONSENT)
