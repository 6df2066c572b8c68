"""Limits of rendering: what a template may do with values, however it was written and whatever the values are.

The library bounds nesting, the output, and what is kept in variables; but not what a filter makes of a value in one go
(`replace` a letter by a text: the square of it), nor a range nobody goes through to its end, nor loop after loop. What
all of it may cost together is in `domain/render_work.py`.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from liquid import BoundTemplate
from liquid.builtin.tags.for_tag import ForNode, ForTag
from liquid.exceptions import LiquidValueError
from liquid.filter import with_context

from domain.render_work import Context, steps_of, steps_to_write

LARGEST = 60_000
"""Characters of a value, those of the entries of a list together, and of all that a template writes."""
PAIRS = 30
"""Comparisons of two entries, or of two characters, that are worth a step."""
TAG = 8
"""Steps to take out a tag of HTML."""
DIGITS = 300
"""Digits of a whole number: as many as the largest amount has that is no whole number."""


class Bounded(BoundTemplate):
    """A template that is rendered within these limits."""

    context_class = Context


class _For(ForNode):
    def render_to_output(self, context: Context, buffer: Any) -> int:  # type: ignore[override]  # no other is made
        over = self.expression.iterable.evaluate(context)
        if isinstance(over, range):  # to go through it from its end, or from somewhere on, it is written out before
            context.pay(steps_of(over))
        return super().render_to_output(context, buffer)


class For(ForTag):
    """`for`, over ranges of at most `LOOPS`."""

    node_class = _For


def within(value: Any) -> Any:
    """The value, when it is not too large; LiquidValueError else.

    >>> within("a" * 60_001)
    Traceback (most recent call last):
        ...
    liquid.exceptions.LiquidValueError: a value is limited to 60,000 characters
    """
    if isinstance(value, range):
        steps_of(value)
    elif isinstance(value, int):
        if value.bit_length() > DIGITS * 10 // 3:
            raise LiquidValueError(f"a number is limited to {DIGITS} digits", token=None)
    elif isinstance(value, str):
        _fits(len(value))
    elif isinstance(value, (list, tuple)):
        _fits(sum(len(one) if isinstance(one, str) else 1 for one in value))
    return value


def bounded(name: str, made: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that neither takes nor gives what is too large, nor would on the way; and has it paid for."""
    asks = getattr(made, "with_context", False)

    @with_context
    @wraps(made)
    def within_limits(value: Any, *arguments: Any, context: Context, **words: Any) -> Any:
        for one in (value, *arguments):
            context.pay(steps_to_write(within(one)))
        if name == "replace" and arguments:
            text, old = str(value), str(arguments[0])
            _fits(len(text) + text.count(old) * len(str(arguments[1] if len(arguments) > 1 else "")))
        elif name == "join" and isinstance(value, (list, tuple)) and arguments:
            _fits(len(value) * len(str(arguments[0])))
        elif name == "uniq" and isinstance(value, (list, tuple)):  # each is compared with all before it
            context.pay(len(value) ** 2 // PAIRS)
        elif name == "strip_html":  # for the end of each tag all the rest may be looked through
            text = str(value)
            context.pay(text.count("<") * (TAG + len(text) // PAIRS))
        found = within(made(value, *arguments, **({**words, "context": context} if asks else words)))
        context.pay(steps_of(found))
        return found

    return within_limits


def _fits(size: int) -> None:
    if size > LARGEST:
        raise LiquidValueError(f"a value is limited to {LARGEST:,} characters", token=None)
