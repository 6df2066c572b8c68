"""Names of events: the e-commerce names of the Segment spec, and ours in the same style.

>>> "Product Added" in EVENTS, suggest("Product Aded", EVENTS)
(True, 'Product Added')
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

SHOP_EVENTS: Final = (
    "Products Searched", "Product List Viewed", "Product List Filtered", "Promotion Viewed", "Promotion Clicked",
    "Product Clicked", "Product Viewed", "Product Added", "Product Removed", "Cart Viewed", "Cart Updated",
    "Cart Cleared", "Checkout Started", "Checkout Step Viewed", "Checkout Step Completed", "Payment Info Entered",
    "Order Completed", "Order Updated", "Order Cancelled", "Order Refunded", "Coupon Entered", "Coupon Applied",
    "Coupon Denied", "Coupon Removed", "Product Added to Wishlist", "Product Removed from Wishlist",
    "Wishlist Product Added to Cart", "Product Shared", "Cart Shared", "Product Reviewed",
)
"""What happens in a shop."""

CALL_EVENTS: Final = ("Page Viewed", "Screen Viewed", "Identified", "Grouped", "Aliased")
"""What the other calls of the spec are called in conditions."""

OUR_EVENTS: Final = (
    "Exit Intent", "Offer Shown", "Offer Clicked", "Offer Dismissed", "Offer Held", "Consent Updated", "Signed Out",
    "Message Delivered", "Message Opened", "Message Clicked", "Message Bounced", "Message Held", "Unsubscribed",
)
"""What attimo adds."""

EVENTS: Final = frozenset((*SHOP_EVENTS, *CALL_EVENTS, *OUR_EVENTS))


def suggest(word: str, known: Iterable[str]) -> str:
    """The known word that was probably meant; empty when none is near.

    >>> suggest("pages_atleast", ["pages_at_least", "seconds_at_least"]), suggest("order completed", EVENTS)
    ('pages_at_least', 'Order Completed')
    >>> suggest("pages", ["pages_at_least", "seconds_at_least"]), suggest("xyz", EVENTS)
    ('pages_at_least', '')
    """
    by_lower = {name.lower(): name for name in sorted(known)}
    word = word.lower()[:100]
    found = get_close_matches(word, by_lower, n=1, cutoff=0.7)
    if not found and len(word) >= 3:
        found = [name for name in by_lower if name.startswith(word)][:1]
    return by_lower[found[0]] if found else ""


def meant(word: str, known: Iterable[str]) -> str:
    """A question to add to an error.

    >>> meant("Ordr Completed", EVENTS)
    '; did you mean "Order Completed"?'
    """
    found = suggest(word, known)
    return f'; did you mean "{found}"?' if found else ""


MOST_OFFERED = 12
"""Names that are listed where none is near."""


def offered(word: str, known: Iterable[str]) -> str:
    """The name that was probably meant, else what there is, to add to an error.

    >>> offered("quantiy", ["name", "quantity"]), offered("colour", ["name", "quantity"]), offered("x", [])
    ('; did you mean "quantity"?', '; there are name and quantity', '; there are none')
    """
    names = list(known)
    if hint := meant(word, names):
        return hint
    if not names:
        return "; there are none"
    more = [f"{len(names) - MOST_OFFERED} more"] if len(names) > MOST_OFFERED else []
    *first, last = names[:MOST_OFFERED] + more
    return f"; there {'are' if first else 'is only'} {', '.join(first)}{' and ' if first else ''}{last}"
