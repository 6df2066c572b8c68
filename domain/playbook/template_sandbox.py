"""Limits of templates: size of the source, cost of rendering, and size of values.

The Liquid parser is quadratic in unclosed tags, so the source is tokenized first, in linear time, and rejected if a tag
is not closed or too long.

>>> list(tokens("<p>{{ first_name }}{% raw %}{{{% endraw %}"))
[(3, 19), (19, 28), (30, 42)]
>>> list(tokens("{{ first_name }} {{ last_name"))
Traceback (most recent call last):
    ...
domain.playbook.template_sandbox.TokenError: expected '}}', found end of file

The cost of rendering is counted in steps, not in time, so that a replay gives the same result on any machine. Each
block costs steps each time it runs, and each value costs steps by its size, each time it is read, stored or filtered.

>>> from domain.playbook.template import Template
>>> Template("{% for i in (1..2000) %}{% if i > 1 %}{{ i }}{% endif %}{% endfor %}").render({})
Traceback (most recent call last):
    ...
ValueError: it takes more than 5,000 steps to make: loops, filters and long values together (line 1 of the template)

The library bounds nesting, output and local variables. Filters, ranges and loops are bounded here.
"""

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from typing import Any

from liquid import BoundTemplate, RenderContext
from liquid.ast import BlockNode, Node
from liquid.builtin.content import ContentNode
from liquid.builtin.expressions import Path
from liquid.builtin.expressions.logical import ContainsExpression
from liquid.builtin.expressions.primitive import RangeLiteral
from liquid.builtin.tags.capture_tag import CaptureNode
from liquid.builtin.tags.case_tag import MultiExpressionBlockNode
from liquid.builtin.tags.for_tag import ForNode, ForTag
from liquid.exceptions import LiquidValueError, LocalNamespaceLimitError, LoopIterationLimitError, ResourceLimitError
from liquid.expression import Expression
from liquid.filter import with_context
from liquid.token import TOKEN_CONTENT, Token

MAX_TOKEN_LENGTH = 2_000
MAX_BLANKS = 200
MAX_BRACKETS = 20
"""Limits per tag: characters, consecutive blanks, and opening brackets. The parser is quadratic in the first two (2.3 s
for 8,000 blanks), and worse in the last (2 s for 600 brackets)."""
MAX_TOKENS_LENGTH = 32_000
"""Maximum characters of all tags of a template, which bounds the time of parsing (one second at worst)."""

_TOKEN_START = re.compile(r"\{\{|\{%")
_TOO_MANY_BLANKS = re.compile(rf"\s{{{MAX_BLANKS + 1}}}")
_VERBATIM_START = re.compile(r"\{%-?\s*(raw|doc)\s*-?%\}")
_VERBATIM_END = {name: re.compile(rf"\{{%-?\s*end{name}\s*-?%\}}") for name in ("raw", "doc")}
"""Blocks whose content is not Liquid."""


class TokenError(ValueError):
    """A template that exceeds a limit of the tokenizer, with the offset."""

    def __init__(self, message: str, offset: int) -> None:
        self.offset = offset
        super().__init__(message)


def tokens(source: str) -> Iterator[tuple[int, int]]:
    """Yield the start and end of each tag and output, in linear time.

    Raises TokenError if a tag is not closed or too long, or if all tags together are too long.
    """
    at = taken = 0
    while (opening := _TOKEN_START.search(source, at)) is not None:
        start, verbatim = opening.start(), _VERBATIM_START.match(source, opening.start())
        at = _token_end(source, start, "}}" if opening[0] == "{{" else "%}")
        if at - start > MAX_TOKEN_LENGTH:
            raise TokenError(f"longer than {MAX_TOKEN_LENGTH:,} characters", start)
        if _TOO_MANY_BLANKS.search(source, start, at) is not None:
            raise TokenError(f"more than {MAX_BLANKS} blanks in a row", start)
        if source.count("[", start, at) > MAX_BRACKETS:
            raise TokenError(f"more than {MAX_BRACKETS} brackets", start)
        taken += at - start
        if taken > MAX_TOKENS_LENGTH:
            raise TokenError(
                f"the tags and variables up to here have more than {MAX_TOKENS_LENGTH:,} characters", start
            )
        yield start, at
        if verbatim is not None:
            end = _VERBATIM_END[verbatim[1]].search(source, at)
            if end is None:
                raise TokenError(f"expected '{{% end{verbatim[1]} %}}', found end of file", start)
            yield end.span()
            at = end.end()


def _token_end(source: str, start: int, delimiter: str) -> int:
    end = source.find(delimiter, start + 2)
    if end < 0:
        raise TokenError(f"expected '{delimiter}', found end of file", start)
    return end + 2


MAX_LOOP_ITERATIONS = 2_000
"""Maximum iterations of all loops of a template."""
MAX_BODY_COST = 30_000
MAX_LINE_COST = 5_000
"""Maximum cost of a body, and of a line such as a title or a link. A step takes 1 to 2 µs. A list of 100 cart items
with five fields each costs about 7,000 steps."""
CHARACTERS_PER_STEP = 16
"""Characters of text per step."""
NODE_COST, CAPTURE_COST, WHEN_COST, FILTER_COST = 2, 4, 2, 6
"""Steps of a tag or an output, extra steps of a `capture`, of a value of `when`, and of a filter."""


class CostContext(RenderContext):
    """A render context that counts the cost of a template."""

    __slots__ = ("cost", "iterations", "locals_size", "max_cost")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cost = self.iterations = self.locals_size = 0
        self.max_cost = MAX_BODY_COST if self.autoescape else MAX_LINE_COST

    def charge(self, cost: int) -> None:
        """Add to the cost. Raises ResourceLimitError above the maximum."""
        self.cost += cost
        if self.cost > self.max_cost:
            raise ResourceLimitError(
                f"it takes more than {self.max_cost:,} steps to make: loops, filters and long values together",
                token=None,
            )

    def get(self, *args: Any, **kwargs: Any) -> object:
        """Look up a value and charge its cost."""
        value = super().get(*args, **kwargs)
        self.charge(cost_of(value))
        return value

    def assign(self, key: str, val: Any) -> None:
        """Assign a variable. Raises LocalNamespaceLimitError if all variables together are too large."""
        self.charge(cost_of(val))
        before = self.locals.get(key)
        self.locals_size += sys.getsizeof(val) - (sys.getsizeof(before) if key in self.locals else 0)
        self.locals[key] = val
        limit = self.env.local_namespace_limit
        if limit is not None and self.locals_size > limit:
            raise LocalNamespaceLimitError("local namespace limit reached", token=None)

    def raise_for_loop_limit(self, length: int = 1) -> None:
        """Count iterations. Raises LoopIterationLimitError above MAX_LOOP_ITERATIONS."""
        self.iterations += length
        if self.iterations > MAX_LOOP_ITERATIONS:
            raise LoopIterationLimitError("loop iteration limit reached", token=None)


def cost_of(value: Any) -> int:
    """Return the cost of one use of a value. Raises LiquidValueError for a range above MAX_LOOP_ITERATIONS.

    >>> cost_of("a" * 160), cost_of(["a", "b" * 16]), cost_of(range(2_000)), cost_of(1)
    (10, 3, 125, 0)
    """
    if isinstance(value, str):
        return len(value) // CHARACTERS_PER_STEP
    if isinstance(value, (list, tuple)):
        return len(value) + sum(len(one) if isinstance(one, str) else 1 for one in value) // CHARACTERS_PER_STEP
    if isinstance(value, range):
        if value.stop - value.start > MAX_LOOP_ITERATIONS:
            raise LiquidValueError(f"a range is limited to {MAX_LOOP_ITERATIONS:,} numbers", token=None)
        return len(value) // CHARACTERS_PER_STEP
    return 0


def output_cost(value: Any) -> int:
    """Return the cost of a value including its nested values.

    >>> output_cost([{"name": "a" * 160}]), cost_of([{"name": "a" * 160}])
    (12, 1)
    """
    if isinstance(value, (list, tuple)):
        return len(value) + sum(map(output_cost, value))
    if isinstance(value, Mapping):
        return len(value) + sum(map(output_cost, value.values()))
    return cost_of(value)


class CostNode(Node):
    """The first node of a block, which charges the cost of the block."""

    __slots__ = ("cost",)

    def __init__(self, cost: int) -> None:
        super().__init__(Token(TOKEN_CONTENT, "", 0, ""))
        self.cost = cost

    def render_to_output(self, context: CostContext, buffer: Any) -> int:  # type: ignore[override]  # always a CostContext
        context.charge(self.cost)
        return 0


class _ChargedRange(Expression):
    """A range whose search with `contains` is charged."""

    __slots__ = ("expression",)

    def __init__(self, expression: RangeLiteral) -> None:
        super().__init__(expression.token)
        self.expression = expression

    def evaluate(self, context: CostContext) -> object:  # type: ignore[override]  # always a CostContext
        found = self.expression.evaluate(context)
        context.charge(cost_of(found))
        return found

    def children(self) -> Iterable[Expression]:
        return self.expression.children()


def instrument(template: BoundTemplate) -> None:
    """Insert a CostNode into each block of a template."""
    _instrument_block(template.nodes, CostContext(template))


def _instrument_block(nodes: list[Node], context: CostContext) -> None:
    steps, todo = 0, list(nodes)
    while todo:
        node = todo.pop()
        steps += NODE_COST + sum(map(_expression_cost, node.expressions()))
        if isinstance(node, CaptureNode):
            steps += CAPTURE_COST
        elif isinstance(node, MultiExpressionBlockNode):
            steps += WHEN_COST * sum(1 for one in node.expressions() for _ in one.children())
        elif isinstance(node, ContentNode):
            steps += len(node.text) // CHARACTERS_PER_STEP
        for child in node.children(context):
            if isinstance(child, BlockNode):
                _instrument_block(child.nodes, context)
            else:
                todo.append(child)
    nodes.insert(0, CostNode(steps))


def _expression_cost(expression: Expression) -> int:
    steps, todo = 0, [expression]
    while todo:
        one = todo.pop()
        steps += 2 + len(one.path) if isinstance(one, Path) else 1
        steps += FILTER_COST * sum(len(getattr(one, name, None) or ()) for name in ("filters", "tail_filters"))
        if isinstance(one, ContainsExpression) and isinstance(one.left, RangeLiteral):
            one.left = _ChargedRange(one.left)
        todo += one.children()
    return steps


MAX_VALUE_LENGTH = 60_000
"""Maximum characters of a value, of all entries of a list, and of the output."""
COMPARISONS_PER_STEP = 30
"""Comparisons of two entries or characters per step."""
STRIP_TAG_COST = 8
"""Steps to strip one HTML tag."""
MAX_INTEGER_DIGITS = 300
"""Maximum digits of an integer."""


class BoundedTemplate(BoundTemplate):
    """A template that renders with a CostContext."""

    context_class = CostContext


class _BoundedForNode(ForNode):
    def render_to_output(self, context: CostContext, buffer: Any) -> int:  # type: ignore[override]  # always a CostContext
        over = self.expression.iterable.evaluate(context)
        if isinstance(over, range):  # the library expands the range first
            context.charge(cost_of(over))
        return super().render_to_output(context, buffer)


class BoundedForTag(ForTag):
    """`for`, over ranges of at most MAX_LOOP_ITERATIONS."""

    node_class = _BoundedForNode


def check_size(value: Any) -> Any:
    """Return the value. Raises LiquidValueError if it is too large.

    >>> check_size("a" * 60_001)
    Traceback (most recent call last):
        ...
    liquid.exceptions.LiquidValueError: a value is limited to 60,000 characters
    """
    if isinstance(value, range):
        cost_of(value)
    elif isinstance(value, int):
        if value.bit_length() > MAX_INTEGER_DIGITS * 10 // 3:
            raise LiquidValueError(f"a number is limited to {MAX_INTEGER_DIGITS} digits", token=None)
    elif isinstance(value, str):
        _check_length(len(value))
    elif isinstance(value, (list, tuple)):
        _check_length(sum(len(one) if isinstance(one, str) else 1 for one in value))
    return value


def bounded_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a filter: check the size of its input and output, and charge its cost."""
    needs_context = getattr(function, "with_context", False)

    @with_context
    @wraps(function)
    def within_limits(value: Any, *arguments: Any, context: CostContext, **kwargs: Any) -> Any:
        for one in (value, *arguments):
            context.charge(output_cost(check_size(one)))
        if name == "replace" and arguments:
            text, old = str(value), str(arguments[0])
            _check_length(len(text) + text.count(old) * len(str(arguments[1] if len(arguments) > 1 else "")))
        elif name == "join" and isinstance(value, (list, tuple)) and arguments:
            _check_length(len(value) * len(str(arguments[0])))
        elif name == "uniq" and isinstance(value, (list, tuple)):  # quadratic
            context.charge(len(value) ** 2 // COMPARISONS_PER_STEP)
        elif name == "strip_html":  # each tag may search the rest of the text
            text = str(value)
            context.charge(text.count("<") * (STRIP_TAG_COST + len(text) // COMPARISONS_PER_STEP))
        found = check_size(function(value, *arguments, **({**kwargs, "context": context} if needs_context else kwargs)))
        context.charge(cost_of(found))
        return found

    return within_limits


def _check_length(length: int) -> None:
    if length > MAX_VALUE_LENGTH:
        raise LiquidValueError(f"a value is limited to {MAX_VALUE_LENGTH:,} characters", token=None)
