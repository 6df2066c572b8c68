"""Scenario words: the words that somebody was told, as a story can speak of them.

    title, body, button, url, image, coupon ─▶ what was rendered for this person
    discount ─▶ what the page is told that their coupon is worth: "15 percent, for arco-lamp, sole-candle"
"""

from domain.action import Arm, Discount, Send
from domain.effect import Effect
from domain.message import Message

_FIELDS = {"body": "html", "image": "image_url"}


def words_of(effect: Effect | None, part: str) -> str:
    """One part of what was said; empty where nothing was.

    >>> from domain.action import Content
    >>> words_of(Message(id="i", at=1, person="u:ann", channel="sms", campaign="c", content_key="k", not_before=1,
    ...                  not_after=2, content=Content(title="Hello", url="/lamp")), "url")
    '/lamp'
    """
    if not isinstance(effect, (Send, Arm, Message)):
        return ""
    if part == "discount":
        return "" if isinstance(effect, Message) or effect.discount is None else worth(effect.discount)
    return str(getattr(effect.content, _FIELDS.get(part, part)))


def worth(discount: Discount) -> str:
    """What a coupon is worth, in words.

    >>> worth(Discount("A", percent=15, products=("lamp", "candle"))), worth(Discount("B", 0, 5, "EUR", min_value=40))
    ('15 percent, for lamp, candle', '5 EUR, from 40 EUR')
    """
    found = [f"{discount.percent:g} percent" if discount.percent else
             f"{discount.amount:g} {discount.currency}" if discount.amount else "free shipping"]
    if discount.min_value:
        found.append(f"from {discount.min_value:g} {discount.currency}")
    if discount.products:
        found.append("for " + ", ".join(discount.products))
    return ", ".join(found)
