"""Limits of rendering: what a template may do with values, however it was written and whatever the values are.

The library bounds nesting, the output, and what is kept in variables; but not what a filter makes of a value in one go
(`replace` a letter by a text: the square of it), nor a range nobody goes through to its end, nor loop after loop.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from liquid import BoundTemplate, RenderContext
from liquid.builtin.tags.for_tag import ForNode, ForTag
from liquid.exceptions import LiquidValueError, LoopIterationLimitError

LOOPS = 2_000
"""Times that all loops of a template go round together."""
LARGEST = 60_000
"""Characters of a value, those of the entries of a list together, and of all that a template writes."""
DIGITS = 300
"""Digits of a whole number: as many as the largest amount has that is no whole number."""


class Context(RenderContext):
    """Counts how often loops go round, all of them together."""

    __slots__ = ("rounds",)

    def __init__(self, *args: Any, **words: Any) -> None:
        super().__init__(*args, **words)
        self.rounds = 0

    def raise_for_loop_limit(self, length: int = 1) -> None:
        """LoopIterationLimitError when it would be more than `LOOPS`."""
        self.rounds += length
        if self.rounds > LOOPS:
            raise LoopIterationLimitError("loop iteration limit reached", token=None)


class Bounded(BoundTemplate):
    """A template that is rendered within these limits."""

    context_class = Context


class _For(ForNode):
    def render_to_output(self, context: RenderContext, buffer: Any) -> int:
        over = self.expression.iterable.evaluate(context)
        if isinstance(over, range):  # to go through it from its end, or from somewhere on, it is written out before
            within(over)
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
        if value.stop - value.start > LOOPS:
            raise LiquidValueError(f"a range is limited to {LOOPS:,} numbers", token=None)
    elif isinstance(value, int):
        if value.bit_length() > DIGITS * 10 // 3:
            raise LiquidValueError(f"a number is limited to {DIGITS} digits", token=None)
    elif isinstance(value, str):
        _fits(len(value))
    elif isinstance(value, (list, tuple)):
        _fits(sum(len(one) if isinstance(one, str) else 1 for one in value))
    return value


def bounded(name: str, made: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that neither takes nor gives what is too large, nor would on the way."""

    @wraps(made)
    def within_limits(value: Any, *arguments: Any, **words: Any) -> Any:
        within(value)
        for argument in arguments:
            within(argument)
        if name == "replace" and arguments:
            text, old = str(value), str(arguments[0])
            _fits(len(text) + text.count(old) * len(str(arguments[1] if len(arguments) > 1 else "")))
        elif name == "join" and isinstance(value, (list, tuple)) and arguments:
            _fits(len(value) * len(str(arguments[0])))
        return within(made(value, *arguments, **words))

    return within_limits


def _fits(size: int) -> None:
    if size > LARGEST:
        raise LiquidValueError(f"a value is limited to {LARGEST:,} characters", token=None)
