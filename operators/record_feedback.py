"""record_feedback: update offers, messages, goals and coupons, before segments are matched.

    "Offer Shown" …      ── shown, dismissed, suppressed by the browser
    "Message Opened" …   ── delivered, opened, clicked, bounced, unsubscribed
    "Order Completed" …  ── goals reached, coupons redeemed (coupon, coupons, discount_codes, products[].coupon)
    "Order Cancelled"    ── coupons restored, until they expire
    timer `coupon:<code>` ── coupon expired

Feedback comes from browsers and is not trusted. "Coupon Applied" and "Order Refunded" do not change coupons.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from domain.action import Cancel, Effect, Explanation
from domain.event import Event, Track, normalize_id
from state.context import StepContext
from state.coupons.wallet import reconcile, undo_redemption
from state.coupons.wallet import redeem_codes as redeem_codes
from state.decisions import exposures, goals, messages
from state.person.model import Person

STEP_NAME = "offers"
MAX_ACTION_ID_LENGTH = 1_024
"""Maximum characters of an action id; longer ids are ignored."""

MAX_DISMISSED = 50


def on_offer_shown(person: Person, event: Event, context: StepContext) -> Sequence[Effect]:
    """Count an exposure, and cancel what the browser still has preloaded of the campaign.

    Slots are not cancelled, because a cancel restores the original content of the slot.
    """
    offer = _offer_ids(event)
    if offer is None or not exposures.confirm(person, *offer, context):
        return ()
    rule = context.rules.campaigns.get(offer[1])
    if rule is not None and rule.format == "slot":
        return ()
    return _cancel_offer(person, offer[1], context, "shown")


def on_offer_dismissed(person: Person, event: Event, context: StepContext) -> Sequence[Effect]:
    """Exclude a dismissed campaign for the rest of the session.

    >>> import msgspec
    >>> from domain.playbook.playbook import Playbook
    >>> from state.person.model import Session
    >>> from state.playbook.compiled import compile_rules
    >>> hello = {"name": "hello", "format": "bar", "trigger": {"event": "Quiz Finished"},
    ...          "content": {"default": {"title": "Hello"}}}
    >>> context = StepContext(0, compile_rules(msgspec.convert({"campaigns": [hello]}, Playbook)))
    >>> ann = Person(id="a:ann", session=Session("s", 0, 0))
    >>> event = Track(event="Offer Dismissed", properties={"action_id": "x", "campaign": "hello"})
    >>> on_offer_dismissed(ann, event, context)
    ()
    >>> ann.session.dismissed
    ['hello']
    """
    offer, session = _offer_ids(event), person.session
    if offer is None or session is None or offer[1] not in context.rules.campaigns:
        return ()
    campaign = offer[1]
    if campaign not in session.dismissed and len(session.dismissed) < MAX_DISMISSED:
        session.dismissed.append(campaign)
    if any(preloaded.campaign == campaign for preloaded in person.preloaded.values()):
        return _cancel_offer(person, campaign, context, "dismissed")
    return ()


def on_offer_suppressed(person: Person, event: Event, context: StepContext) -> Sequence[Effect]:
    """Release the place of an offer that the browser did not show."""
    offer = _offer_ids(event)
    if offer is None:
        return ()
    exposures.release(person, offer[0])
    for slot in [slot for slot, preloaded in person.preloaded.items() if preloaded.action_id == offer[0]]:
        del person.preloaded[slot]
    return ()


def _offer_ids(event: Event) -> tuple[str, str] | None:
    """Return the action id and the campaign of an offer event, or None."""
    if type(event) is not Track:
        return None
    action_id: Any = event.properties.get("action_id")
    campaign: Any = event.properties.get("campaign")
    if not isinstance(action_id, str) or not isinstance(campaign, str) or len(action_id) > MAX_ACTION_ID_LENGTH:
        return None
    return action_id, campaign


def _cancel_offer(person: Person, campaign: str, context: StepContext, reason: str) -> list[Effect]:
    """Cancel the preloaded offers of a campaign; an offer on the screen stays."""
    for slot in [slot for slot, preloaded in person.preloaded.items() if preloaded.campaign == campaign]:
        del person.preloaded[slot]
    session = person.session
    if session is None or not session.anonymous_id:
        return []
    return [
        Cancel(
            id=context.next_effect_id(STEP_NAME),
            at=context.now,
            person=person.id,
            anonymous_id=session.anonymous_id,
            campaign=campaign,
            because=Explanation(reason=reason, playbook=context.rules.short_hash),
        )
    ]


MAX_ORDER_CODES = 50
"""Maximum codes read from one order."""

MAX_CODE_LENGTH = 64


def on_order_completed(person: Person, event: Event, context: StepContext) -> Sequence[Effect]:
    """Redeem the codes of an order, and drop coupons that are only for a first order."""
    if not isinstance(event, Track) or not (person.coupons or context.rules.pools):
        return ()
    codes = list(dict.fromkeys(order_codes(event.properties)))
    effects = redeem_codes(person, codes, _order_id(event), context) if codes else []
    return [*effects, *reconcile(person, context)] if person.coupons else effects


def on_order_cancelled(person: Person, event: Event, context: StepContext) -> Sequence[Effect]:
    """Restore the coupons that a cancelled order had redeemed."""
    if not person.coupons or not isinstance(event, Track):
        return ()
    return undo_redemption(person, _order_id(event), context)


def order_codes(properties: Any) -> Iterator[str]:
    """Yield the codes of an order, at most `MAX_ORDER_CODES`; other values are skipped.

    >>> list(order_codes({"coupon": "A", "discount_codes": [{"code": "B"}, "C"], "products": [{"coupon": "D"}, 7]}))
    ['A', 'B', 'C', 'D']
    """
    found = 0
    candidates: list[Any] = []
    for name in ("coupon", "coupons", "discount_code", "discount_codes"):
        value = properties.get(name)
        candidates += value if isinstance(value, list) else [value]
    products = properties.get("products")
    if isinstance(products, list):
        candidates += [one.get("coupon") for one in products if isinstance(one, dict)]
    for one in candidates:
        code = one.get("code") if isinstance(one, dict) else one
        if isinstance(code, str) and 0 < len(code.strip()) <= MAX_CODE_LENGTH and found < MAX_ORDER_CODES:
            found += 1
            yield code


def _order_id(event: Track) -> str:
    """Return the order id as `state/profile/ecommerce.py` derives it."""
    return normalize_id(event.properties.get("order_id")) or (event.message_id and "m:" + event.message_id) or ""


FeedbackHandler = Callable[[Person, Event, StepContext], Sequence[Effect]]

HANDLERS: Mapping[str, tuple[FeedbackHandler, ...]] = {
    "Offer Shown": (on_offer_shown,),
    "Offer Dismissed": (on_offer_dismissed,),
    "Offer Suppressed": (on_offer_suppressed,),
    "Message Delivered": (messages.on_delivered,),
    "Message Opened": (messages.on_opened,),
    "Message Clicked": (messages.on_clicked,),
    "Message Bounced": (messages.on_bounced,),
    "Message Suppressed": (messages.on_suppressed,),
    "Unsubscribed": (messages.on_unsubscribed,),
    "Consent Updated": (messages.consent_refused,),
    "Identified": (messages.consent_refused,),
    "Order Completed": (on_order_completed,),
    "Order Cancelled": (on_order_cancelled,),
}
"""Handlers by event name."""

GENERAL_HANDLERS: tuple[FeedbackHandler, ...] = ()
"""Handlers that run on every event; each must return quickly for events it does not use."""


def handle(person: Person, event: Event, context: StepContext) -> Sequence[Effect]:
    """Run the handlers of this event.

    >>> from domain.event import Track
    >>> from domain.playbook.playbook import Playbook
    >>> from state.person.model import PendingSend
    >>> from state.playbook.compiled import compile_rules
    >>> ann = Person(id="a:ann", pending_sends=[PendingSend("an-action", "hello", 1_000, 9_000)])
    >>> event = Track(event="Offer Suppressed", properties={"action_id": "an-action", "campaign": "hello"})
    >>> handle(ann, event, StepContext(0, compile_rules(Playbook()))), ann.pending_sends
    ([], [])
    """
    effects: list[Effect] = []
    for handler in HANDLERS.get(event.name, ()):
        effects += handler(person, event, context)
    if person.pending_goals:
        effects += goals.goal_reached(person, event, context)
    for handler in GENERAL_HANDLERS:
        effects += handler(person, event, context)
    return effects
