"""The streams of the log: their names, and which event belongs where.

>>> stream_of("track", "Product Added")
'carts'
>>> stream_of("identify", "")
'people'
"""

from typing import Final

CLICKS: Final = "clicks"
CARTS: Final = "carts"
PURCHASES: Final = "purchases"
PEOPLE: Final = "people"
LETTERS: Final = "letters"
ACTIONS: Final = "actions"
MESSAGES: Final = "messages"
OUTCOMES: Final = "outcomes"
MODELS: Final = "models"
REJECTS: Final = "rejects"

PUBLIC: Final = (CLICKS, CARTS, PURCHASES, PEOPLE)
"""Written by the shop's side, with any producer."""

INTERNAL: Final = (LETTERS, ACTIONS, MESSAGES, OUTCOMES, REJECTS)
"""Written by attimo for attimo (and for whoever wants to listen)."""

ALL: Final = (*PUBLIC, *INTERNAL, MODELS)

SHARD_INPUT: Final = (*PUBLIC, LETTERS)
"""What a shard reads, in the order that breaks a tie of log time."""

PARTITIONS: Final = 64
"""Partitions of every stream but `models`, fixed when the log is created."""

SINGLE: Final = (MODELS,)
"""Streams of one partition."""

_CART_EVENTS: Final = frozenset({
    "Product Added", "Product Removed", "Cart Viewed", "Cart Updated", "Cart Cleared", "Checkout Started",
    "Checkout Step Viewed", "Checkout Step Completed", "Payment Info Entered", "Coupon Entered",
    "Coupon Applied", "Coupon Denied", "Coupon Removed", "Cart Shared", "Wishlist Product Added to Cart",
})
_PURCHASE_EVENTS: Final = frozenset({
    "Order Completed", "Order Updated", "Order Cancelled", "Order Refunded",
})
_PEOPLE_EVENTS: Final = frozenset({
    "Consent Updated", "Message Delivered", "Message Opened", "Message Clicked", "Message Bounced",
    "Message Held", "Unsubscribed", "Offer Held", "Signed Out",
})
_PEOPLE_CALLS: Final = frozenset({"identify", "alias", "group"})


def partitions_of(stream: str, partitions: int = PARTITIONS) -> int:
    """How many partitions a stream has.

    >>> partitions_of("models"), partitions_of("clicks")
    (1, 64)
    """
    return 1 if stream in SINGLE else partitions


def stream_of(call: str, event: str) -> str:
    """The public stream that an event belongs to: by its call (`type`), then by its name."""
    if call in _PEOPLE_CALLS or event in _PEOPLE_EVENTS:
        return PEOPLE
    if event in _CART_EVENTS:
        return CARTS
    if event in _PURCHASE_EVENTS:
        return PURCHASES
    return CLICKS
