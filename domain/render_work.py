"""Work of rendering: what a template may cost, counted in steps, so that the same words come out everywhere and always.

A clock would decide otherwise on a busy machine, and a re-run otherwise than the run. So each block of a template pays
for what stands in it, each time it is gone through; and each value for its size, each time it is looked up, kept, given
to a filter or made by one. It adds up whatever the ways are: loops in loops, or `when` with what it has said before
(Liquid does it once for each).

>>> from domain.template import Template
>>> Template("{% for i in (1..2000) %}{% if i > 1 %}{{ i }}{% endif %}{% endfor %}").render({})
Traceback (most recent call last):
    ...
ValueError: it takes more than 5,000 steps to make: loops, filters and long values together (line 1 of the template)
"""

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from liquid import BoundTemplate, RenderContext
from liquid.ast import BlockNode, Node
from liquid.builtin.content import ContentNode
from liquid.builtin.expressions import Path
from liquid.builtin.expressions.logical import ContainsExpression
from liquid.builtin.expressions.primitive import RangeLiteral
from liquid.builtin.tags.capture_tag import CaptureNode
from liquid.builtin.tags.case_tag import MultiExpressionBlockNode
from liquid.exceptions import LiquidValueError, LocalNamespaceLimitError, LoopIterationLimitError, ResourceLimitError
from liquid.expression import Expression
from liquid.token import TOKEN_CONTENT, Token

LOOPS = 2_000
"""Times that all loops of a template go round together."""
STEPS = 30_000
LINE = 5_000
"""What a template may cost; and one of a line, such as a title or a link. A step takes a microsecond, and at the very
worst two: some tens of ms in all. A hundred lines of a cart, each with five things said of it, are 7,000."""
CHARACTERS = 16
"""Characters of a text that are worth a step."""
NODE, CAPTURE, CHOICE, FILTER = 2, 4, 2, 6
"""Steps of a tag or an output, of a `capture` besides, of a value behind `when`, of a filter, whatever it is given."""


class Context(RenderContext):
    """Counts what is done, over all of a template."""

    __slots__ = ("most", "rounds", "size", "steps")

    def __init__(self, *args: Any, **words: Any) -> None:
        super().__init__(*args, **words)
        self.steps = self.rounds = self.size = 0
        self.most = STEPS if self.autoescape else LINE

    def pay(self, steps: int) -> None:
        """ResourceLimitError when it is more than it may cost."""
        self.steps += steps
        if self.steps > self.most:
            raise ResourceLimitError(
                f"it takes more than {self.most:,} steps to make: loops, filters and long values together", token=None)

    def get(self, *args: Any, **words: Any) -> object:
        """A value that is looked up is paid for: it may be compared, searched, or written."""
        value = super().get(*args, **words)
        self.pay(steps_of(value))
        return value

    def assign(self, key: str, val: Any) -> None:
        """Keep a value. LocalNamespaceLimitError when it is too much with all that are kept."""
        self.pay(steps_of(val))
        before = self.locals.get(key)
        self.size += sys.getsizeof(val) - (sys.getsizeof(before) if key in self.locals else 0)
        self.locals[key] = val
        limit = self.env.local_namespace_limit
        if limit is not None and self.size > limit:
            raise LocalNamespaceLimitError("local namespace limit reached", token=None)

    def raise_for_loop_limit(self, length: int = 1) -> None:
        """LoopIterationLimitError when it would be more than `LOOPS`."""
        self.rounds += length
        if self.rounds > LOOPS:
            raise LoopIterationLimitError("loop iteration limit reached", token=None)


def steps_of(value: Any) -> int:
    """What it may cost to do something with a value once. LiquidValueError for a range of more than `LOOPS`.

    >>> steps_of("a" * 160), steps_of(["a", "b" * 16]), steps_of(range(2_000)), steps_of(1)
    (10, 3, 125, 0)
    """
    if isinstance(value, str):
        return len(value) // CHARACTERS
    if isinstance(value, (list, tuple)):
        return len(value) + sum(len(one) if isinstance(one, str) else 1 for one in value) // CHARACTERS
    if isinstance(value, range):
        if value.stop - value.start > LOOPS:
            raise LiquidValueError(f"a range is limited to {LOOPS:,} numbers", token=None)
        return len(value) // CHARACTERS
    return 0


def steps_to_write(value: Any) -> int:
    """The same, where all that is in it may be written out.

    >>> steps_to_write([{"name": "a" * 160}]), steps_of([{"name": "a" * 160}])
    (12, 1)
    """
    if isinstance(value, (list, tuple)):
        return len(value) + sum(map(steps_to_write, value))
    if isinstance(value, Mapping):
        return len(value) + sum(map(steps_to_write, value.values()))
    return steps_of(value)


class _Toll(Node):
    """Stands at the head of a block, and has it paid for."""

    __slots__ = ("steps",)

    def __init__(self, steps: int) -> None:
        super().__init__(Token(TOKEN_CONTENT, "", 0, ""))
        self.steps = steps

    def render_to_output(self, context: Context, buffer: Any) -> int:  # type: ignore[override]  # no other is made
        context.pay(self.steps)
        return 0


class _Paid(Expression):
    """A range that is searched from one end to the other, when what is looked for is no number."""

    __slots__ = ("range",)

    def __init__(self, range: RangeLiteral) -> None:
        super().__init__(range.token)
        self.range = range

    def evaluate(self, context: Context) -> object:  # type: ignore[override]  # no other is made
        found = self.range.evaluate(context)
        context.pay(steps_of(found))
        return found

    def children(self) -> Iterable[Expression]:
        return self.range.children()


def put_tolls(template: BoundTemplate) -> None:
    """Have all blocks of a template paid for whenever they are gone through."""
    _put(template.nodes, Context(template))


def _put(nodes: list[Node], context: Context) -> None:
    steps, todo = 0, list(nodes)
    while todo:
        node = todo.pop()
        steps += NODE + sum(map(_weight, node.expressions()))
        if isinstance(node, CaptureNode):
            steps += CAPTURE
        elif isinstance(node, MultiExpressionBlockNode):
            steps += CHOICE * sum(1 for one in node.expressions() for _ in one.children())
        elif isinstance(node, ContentNode):
            steps += len(node.text) // CHARACTERS
        for child in node.children(context):
            if isinstance(child, BlockNode):
                _put(child.nodes, context)
            else:
                todo.append(child)
    nodes.insert(0, _Toll(steps))


def _weight(expression: Expression) -> int:
    steps, todo = 0, [expression]
    while todo:
        one = todo.pop()
        steps += 2 + len(one.path) if isinstance(one, Path) else 1
        steps += FILTER * sum(len(getattr(one, name, None) or ()) for name in ("filters", "tail_filters"))
        if isinstance(one, ContainsExpression) and isinstance(one.left, RangeLiteral):
            one.left = _Paid(one.left)
        todo += one.children()
    return steps
