"""update_profile: apply an event to the profile fragment, the session and the cart.

The whole event is validated before anything changes, so an invalid event leaves no partial update. Event time decides
the session; a late event counts, but does not open, extend or close a past session (`state/profile/session.py`).

Bots get no session and no outcome. A bot call in the name of a known customer does not mark the customer as a bot, nor
does an image proxy that loads the images of an email.
"""

from collections.abc import Sequence
from typing import Any
from zlib import crc32

from domain.action import Effect, Outcome, ShardMessage
from domain.event import Event, Group, Identify, Page, Screen, Track, normalize_id
from domain.event import EventContext as About
from domain.playbook.shop import Shop
from domain.product import ExchangeRates, InvalidField
from operators import record_feedback
from state.conditions import counters
from state.context import Input, InvalidEvent, StepContext, TimerFired
from state.coupons.wallet import expire_coupon
from state.person.model import MAX_CONSENT, MAX_TEXT_LENGTH, MAX_TRAITS, Person, ProfileFragment, Session, Source, Trait
from state.playbook.compiled import Rules
from state.profile.ecommerce import HANDLERS, EventHandler, parse_consent, parse_traits
from state.profile.profile import count_event, set_trait
from state.profile.session import (
    SESSION_TIMEOUT,
    SESSION_TIMER,
    close_session,
    device_class,
    ends_at,
    label_session,
    open_session,
)

STEP_NAME = "update_profile"

MAX_URL_LENGTH = 512
"""Maximum stored characters of a landing page or referrer."""

NON_SESSION_EVENTS = frozenset(
    {
        "Order Updated",
        "Order Refunded",
        "Order Cancelled",
        "Consent Updated",
        "Message Delivered",
        "Message Opened",
        "Message Clicked",
        "Message Bounced",
        "Message Suppressed",
        "Unsubscribed",
        "Offer Suppressed",
        "Offer Shown",
        "Signed Out",
        "Identified",
        "Grouped",
        "Aliased",
    }
)
"""Events about a person that are not activity in the shop.

They neither open nor extend a session, and do not update `last_seen`.
"""

FEEDBACK_EVENTS = frozenset(
    {"Message Delivered", "Message Opened", "Message Clicked", "Message Bounced", "Message Suppressed", "Unsubscribed"}
)
"""Events that programs report; a bot as caller does not mark the person as a bot."""

SCANNER_EVENTS = frozenset({"Message Opened", "Message Clicked"})
"""Events that mail scanners also cause; from a bot they are ignored."""

_PAGE_EVENTS = (Page, Screen)

_prices_cache: tuple[Shop | None, ExchangeRates] = (None, ExchangeRates("EUR"))


def step(person: Person, event: Input, context: StepContext) -> Sequence[Effect]:
    """Apply one input. Raises `InvalidEvent`, before any change, if a field is invalid."""
    if person.playbook_hash != context.rules.short_hash:
        counters.prune(person, context.rules.counter_specs)
    if isinstance(event, TimerFired):
        return _on_timer(person, event, context)
    if isinstance(event, ShardMessage):
        return _label_after_merge(person, context)
    about = event.context
    seen = about.attimo if about is not None else None
    if person.bot or (seen is not None and seen.bot):
        image = seen is not None and seen.tracking_image
        if person.bot or (event.name not in FEEDBACK_EVENTS and not image):
            return _record_bot(person, event, context.event_time)
        if event.name in SCANNER_EVENTS or event.name not in FEEDBACK_EVENTS:
            return ()
    effects = _apply_event(person, event, context)
    if event.name in record_feedback.HANDLERS or person.pending_goals or record_feedback.GENERAL_HANDLERS:
        return (*effects, *record_feedback.handle(person, event, context))
    return effects


def _apply_event(person: Person, event: Event, context: StepContext) -> Sequence[Effect]:
    about = event.context
    seen = about.attimo if about is not None else None
    at = context.event_time
    try:
        handler, parsed = _parse(event, context.rules)
    except InvalidField as error:
        raise InvalidEvent(error.field, error.reason, error.kind) from None

    fragment = person.fragments.get(person.id)
    if fragment is None:
        fragment = person.own_fragment()
    fragment.version += 1
    latest = at >= fragment.last_seen
    if latest and event.name not in NON_SESSION_EVENTS:
        fragment.last_seen = at
    if at < fragment.first_seen or not fragment.first_seen:
        fragment.first_seen = at
    if about is not None:
        _update_environment(fragment, about, latest)

    name = event.name
    offline = seen is not None and seen.offline
    ended: Sequence[Effect] = ()
    session = None
    if name not in NON_SESSION_EVENTS and not offline:
        ended = _update_session(person, fragment, event, at, context)
        session = person.session
        if session is not None:
            if at < session.started_at:
                session = None
            else:
                session.events += 1
                if at >= session.last_at:
                    session.last_at = at
                    if event.anonymous_id is not None:
                        session.anonymous_id = normalize_id(event.anonymous_id) or ""
    if handler is not None:
        if handler.apply(person, fragment, session, parsed, at, offline):
            count_event(fragment, name, at)
            if name in context.rules.counters_by_event:
                context.rules.counters_by_event[name].add_event(fragment, event, at)
        if session is not None and session.ordered and not session.labelled:
            return (*ended, *_label_ordered(person, session, context))
        return ended
    count_event(fragment, name, at)
    if name in context.rules.counters_by_event:
        context.rules.counters_by_event[name].add_event(fragment, event, at)
    if isinstance(event, _PAGE_EVENTS):
        fragment.pages += 1
        if session is not None:
            session.pages += 1
    elif isinstance(event, Track):
        if name == "Exit Intent" and session is not None:
            session.exit_intents += 1
        elif parsed:
            _update_consent(fragment, parsed, event, at)
    elif isinstance(event, Identify):
        traits, answers = parsed
        tiebreak = _tiebreak(event)
        for trait, value in traits:
            set_trait(fragment.traits, trait, Trait(at, value, tiebreak), MAX_TRAITS)
        _update_consent(fragment, answers, event, at)
    elif isinstance(event, Group) and event.group_id is not None:
        set_trait(
            fragment.traits, "group", Trait(at, str(event.group_id)[:MAX_TEXT_LENGTH], _tiebreak(event)), MAX_TRAITS
        )
    return ended


def is_parsable(event: Event, rules: Rules) -> bool:
    """Return whether the engine accepts the fields of this event.

    >>> from domain.playbook.playbook import Playbook
    >>> from state.playbook.compiled import compile_rules
    >>> is_parsable(Track(event="Product Added", properties={"product_id": {}}), compile_rules(Playbook()))
    False
    """
    try:
        _parse(event, rules)
    except InvalidField:
        return False
    return True


def _parse(event: Event, rules: Rules) -> tuple[EventHandler | None, Any]:
    """Return the handler (None: only counted) and the parsed fields. Raises `InvalidField`."""
    if isinstance(event, Track):
        name = event.event
        handler = HANDLERS.get(name)
        if handler is not None:
            return handler, handler.parse(event.properties, _shop_prices(rules.playbook.shop), event)
        if not 0 < len(name) <= MAX_TEXT_LENGTH:
            raise InvalidField("event", f"should have between 1 and {MAX_TEXT_LENGTH} characters", "too_long")
        if name == "Consent Updated":
            return None, parse_consent(event.properties, "properties")
    elif isinstance(event, Identify):
        return None, parse_traits(event.traits)
    return None, None


def _shop_prices(shop: Shop) -> ExchangeRates:
    """Return the shop's currency and exchange rates; cached per playbook."""
    global _prices_cache
    if _prices_cache[0] is not shop:
        _prices_cache = (shop, ExchangeRates(shop.currency, shop.exchange_rates))
    return _prices_cache[1]


def _on_timer(person: Person, fired: TimerFired, context: StepContext) -> Sequence[Effect]:
    """Close the session if it has ended, else reset its timer; expire a coupon on its timer."""
    session = person.session
    effects: Sequence[Effect] = expire_coupon(person, fired.id, context) if fired.kind == "coupon" else ()
    if session is None:
        return effects
    if ends_at(session) > context.now:
        if fired.kind == "session_end":
            person.timers[SESSION_TIMER] = ends_at(session)
        return effects
    return (*effects, *close_session(person, context, STEP_NAME))  # on any timer at or after the session end


def _label_after_merge(person: Person, context: StepContext) -> Sequence[Effect]:
    """Label a merged session; its order may have arrived before the merge."""
    session = person.session
    if session is None or session.labelled or not session.ordered or not session.snapshot:
        return ()
    return (label_session(person, session, True, context, STEP_NAME),)


def _record_bot(person: Person, event: Event, at: int) -> Sequence[Effect]:
    """Mark an anonymous person as a bot, and count the event."""
    if person.id[0] == "a":
        person.bot = True
        person.session = None
        person.timers.pop(SESSION_TIMER, None)
    fragment = person.own_fragment()
    fragment.version += 1
    fragment.first_seen = min(fragment.first_seen or at, at)
    fragment.last_seen = max(fragment.last_seen, at)
    if 0 < len(event.name) <= MAX_TEXT_LENGTH:
        count_event(fragment, event.name, at)
    return ()


def _update_environment(fragment: ProfileFragment, event_context: About, latest: bool) -> None:
    """Update country, device, locale and time zone; late events only fill empty fields."""
    seen = event_context.attimo
    if seen is not None:
        if seen.country and (latest or not fragment.country):
            fragment.country = seen.country[:2]
        if seen.device and (latest or not fragment.device):
            fragment.device = seen.device[:16]
    if not fragment.device and event_context.user_agent:
        fragment.device = device_class(event_context.user_agent)
    if event_context.locale and (latest or not fragment.locale):
        fragment.locale = event_context.locale[:35]
    if event_context.timezone and (latest or not fragment.timezone):
        fragment.timezone = event_context.timezone[:64]


def _update_session(
    person: Person, fragment: ProfileFragment, event: Event, at: int, context: StepContext
) -> Sequence[Outcome]:
    """Open a session if this event starts one; close and label the previous session first."""
    session = person.session
    about = event.context
    campaign = about.campaign if about is not None else None
    source_key = ("", "", "")
    if campaign is not None:
        source_key = (
            (campaign.source or "")[:MAX_TEXT_LENGTH],
            (campaign.medium or "")[:MAX_TEXT_LENGTH],
            (campaign.name or "")[:MAX_TEXT_LENGTH],
        )
    ended: Sequence[Outcome] = ()
    if session is not None:
        over = at >= session.last_at + SESSION_TIMEOUT
        if not over and (
            source_key == ("", "", "")
            or at < session.last_at
            or source_key == (session.source, session.medium, session.campaign)
        ):
            return ()
        ended = close_session(person, context, STEP_NAME)
    elif at + SESSION_TIMEOUT <= context.now:
        return ()
    session = open_session(person, fragment, at)
    session.source, session.medium, session.campaign = source_key
    session.device, session.country = fragment.device, fragment.country
    if source_key != ("", "", ""):
        source = Source(*source_key, at)
        if fragment.first_source is None or at < fragment.first_source.at:
            fragment.first_source = source
        if fragment.last_source is None or at >= fragment.last_source.at:
            fragment.last_source = source
    page = about.page if about is not None else None
    if page is not None:
        session.landing_page = (page.url or page.path or "")[:MAX_URL_LENGTH]
        session.referrer = (page.referrer or "")[:MAX_URL_LENGTH]
    return ended


def _label_ordered(person: Person, session: Session, context: StepContext) -> Sequence[Outcome]:
    """Label the session as ordered if its snapshot is older than the order; otherwise drop the snapshot."""
    if not session.snapshot:
        return ()
    if session.snapshot_at > session.ordered_at:
        session.snapshot, session.labelled = {}, True
        return ()
    return (label_session(person, session, True, context, STEP_NAME),)


def _tiebreak(event: Event) -> int:
    return crc32(event.message_id.encode()) if event.message_id else 0


def _update_consent(fragment: ProfileFragment, answers: list[tuple[str, bool]], event: Event, at: int) -> None:
    """Apply consent answers: the latest wins; at the same time, a refusal wins."""
    for purpose, answer in answers:
        current = fragment.consent.get(purpose)
        if current is not None and current.at == at and not current.value:
            continue
        if current is not None and current.at == at and not answer:
            fragment.consent[purpose] = Trait(at, answer, _tiebreak(event))
            continue
        set_trait(fragment.consent, purpose, Trait(at, answer, _tiebreak(event)), MAX_CONSENT)
