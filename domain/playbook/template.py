"""Templates: sandboxed Liquid, parsed and checked when the playbook is loaded.

- Values inserted into HTML are escaped; the rendered HTML is sanitized (`operators/render.py`).
- Loops, output, memory and cost are bounded (`domain/playbook/template_sandbox.py`). Files, dates and the current time
are not available.
- An unknown variable raises `MissingVariable`, unless the template uses `default` or `if`.

>>> Template("Hi {{ first_name }}", html=True).render({"first_name": "<b>Ann</b>"})
'Hi &lt;b&gt;Ann&lt;/b&gt;'
>>> Template("{{ cart.value | money }}").render({"cart": {"value": Price("9.50")}, "shop": {"currency": "EUR"}})
'€9.50'
>>> Template("{{ product.name }}").render({"product": {"id": "p1"}})
Traceback (most recent call last):
    ...
domain.playbook.template.MissingVariable: product.name
"""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import liquid
from liquid import Markup
from liquid.exceptions import LiquidError
from liquid.filter import with_context
from liquid.static_analysis import TemplateAnalysis

from domain.money import MINOR_UNIT_DIGITS
from domain.playbook.template_sandbox import (
    MAX_LOOP_ITERATIONS,
    MAX_VALUE_LENGTH,
    BoundedForTag,
    BoundedTemplate,
    TokenError,
    bounded_filter,
    instrument,
    tokens,
)

VARIABLES: Final[dict[str, tuple[str, ...]]] = {
    "product": ("id", "name", "price", "category", "brand", "url", "image_url"),
    "products": (),
    "cart": ("items", "value", "count"),
    "order": ("id", "value", "items"),
    "first_name": (),
    "last_name": (),
    "traits": (),
    "country": (),
    "device": (),
    "search": (),
    "coupon": ("code", "percent", "amount", "min_value", "free_shipping", "expires", "products"),
    "shop": ("name", "url", "currency"),
}
"""Variables of a template, with their fields if these are fixed. `products`, `cart.items` and `coupon.products` are
lists. `coupon` has fields if it comes from a pool; otherwise it is one code for everyone."""

LIST_ITEM_FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "products": VARIABLES["product"],
    "coupon.products": VARIABLES["product"],
    "cart.items": ("id", "name", "price", "category", "quantity"),
}
"""The fields of the entries of each list."""

HTML_TAGS: Final[dict[str, set[str]]] = {
    "a": {"href", "title"},
    "img": {"src", "alt", "width", "height"},
    "ol": {"start"},
    **{
        tag: set()
        for tag in (
            "p",
            "br",
            "b",
            "strong",
            "i",
            "em",
            "u",
            "s",
            "small",
            "sub",
            "sup",
            "span",
            "div",
            "ul",
            "li",
            "h2",
            "h3",
            "h4",
            "blockquote",
            "code",
            "hr",
            "table",
            "thead",
            "tbody",
            "tr",
            "th",
            "td",
            "figure",
            "figcaption",
            "del",
            "ins",
            "mark",
        )
    },
}
"""Allowed HTML tags with their attributes. Styles, scripts, forms and frames are not allowed."""

LIQUID_TAGS = frozenset(
    (
        "assign",
        "break",
        "capture",
        "case",
        "comment",
        "content",
        "continue",
        "cycle",
        "echo",
        "for",
        "if",
        "liquid",
        "output",
        "unless",
        "#",
    )
)
_DISABLED_FILTERS = (
    "date",
    "safe",
    "base64_decode",
    "base64_encode",
    "base64_url_safe_decode",
    "base64_url_safe_encode",
    "escapejs",
)
_CURRENCY_SYMBOLS = {"EUR": "€", "USD": "$", "GBP": "£", "JPY": "¥", "CAD": "CA$", "AUD": "A$", "BRL": "R$", "INR": "₹"}


class MissingVariable(ValueError):
    """A template used an unknown variable; the message is the name of the variable."""


class TemplateSyntaxError(ValueError):
    """A syntax error in a template, with its offset (-1: unknown)."""

    def __init__(self, error: LiquidError | RecursionError | TokenError) -> None:
        if isinstance(error, TokenError):
            self.offset = error.offset
            super().__init__(str(error))
            return
        token = error.token if isinstance(error, LiquidError) else None
        self.offset = token.start_index if token is not None and token.source else -1
        super().__init__(str(error.message) if isinstance(error, LiquidError) else "nests too deep")


class _UndefinedVariable(liquid.Undefined):
    """An unknown variable: allowed in `if` and `default`, an error in output."""

    __slots__ = ()

    def _missing_variable(self) -> MissingVariable:
        hint = (self.hint or self.name).removesuffix(" is undefined")
        return MissingVariable(hint.strip("'") if hint != "index out of range" else self.name)

    def __str__(self) -> str:
        raise self._missing_variable()

    def items(self) -> Any:
        raise self._missing_variable()

    def __int__(self) -> int:
        raise self._missing_variable()


class Price(float):
    """An amount in major units: a number that prints with its original digits.

    >>> price = Price("19.90")
    >>> price > 15, str(price), price + 1
    (True, '19.90', 20.9)
    """

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> "Price":
        price = super().__new__(cls, text)
        price.text = text
        return price

    def __str__(self) -> str:
        return self.text


class CouponValue(dict[str, Any]):
    """A coupon with fields; it prints as its code.

    >>> Template("{{ coupon }}: {{ coupon.percent }} %").render({"coupon": CouponValue(code="A1", percent=10)})
    'A1: 10 %'
    """

    def __str__(self) -> str:
        return str(self["code"])


MAX_AMOUNT_DIGITS = 30
"""Amounts with more digits are not formatted."""


class _Environment(liquid.Environment):
    block_nesting_limit = 20
    context_depth_limit = 20
    loop_iteration_limit = MAX_LOOP_ITERATIONS
    local_namespace_limit = 100_000
    output_stream_limit = MAX_VALUE_LENGTH
    template_class = BoundedTemplate


def format_money(amount: Decimal | float | str, currency: str) -> str:
    """Format an amount with its currency.

    >>> format_money(1234.5, "EUR"), format_money(Decimal(1500), "JPY"), format_money("20", "CHF")
    ('€1,234.50', '¥1,500', 'CHF 20.00')
    """
    shown = f"{Decimal(str(amount)):,.{MINOR_UNIT_DIGITS.get(currency, 2)}f}"
    return f"{_CURRENCY_SYMBOLS[currency]}{shown}" if currency in _CURRENCY_SYMBOLS else f"{currency} {shown}"


@with_context
def _money_filter(value: Any, *, context: liquid.RenderContext) -> Any:
    if liquid.is_undefined(value):
        return str(value)
    shop = context.resolve("shop", default={})
    try:
        if Decimal(str(value)).adjusted() > MAX_AMOUNT_DIGITS:  # "1e999999999" would become a very long text
            return value
        return format_money(value, str(shop.get("currency", "EUR")) if isinstance(shop, Mapping) else "EUR")
    except (InvalidOperation, ValueError):
        return value


def _build_environment(*, html: bool) -> _Environment:
    environment = _Environment(autoescape=html, undefined=_UndefinedVariable)
    environment.add_filter("money", _money_filter)
    for name in _DISABLED_FILTERS:
        environment.filters.pop(name, None)
    environment.filters = {name: bounded_filter(name, made) for name, made in environment.filters.items()}
    environment.add_tag(BoundedForTag)
    return environment


_HTML_ENVIRONMENT = _build_environment(html=True)
_TEXT_ENVIRONMENT = _build_environment(html=False)
LIQUID_FILTERS: Final = frozenset(_TEXT_ENVIRONMENT.filters)
"""Names of the available filters."""


class Template:
    """A parsed template. `variables` are its variables; `variable_fields` their fields, such as "coupon.products".

    Raises TemplateSyntaxError if it is not valid Liquid, or too large (`domain/playbook/template_sandbox.py`).
    """

    __slots__ = ("_parsed", "html", "source", "variable_fields", "variables")

    def __init__(self, source: str, *, html: bool = False) -> None:
        self.source = source
        self.html = html
        self._parsed: liquid.BoundTemplate | None = None
        self.variables: tuple[str, ...] = ()
        self.variable_fields: frozenset[str] = frozenset()
        if "{{" in source or "{%" in source:
            try:
                for _ in tokens(source):
                    pass
                self._parsed = (_HTML_ENVIRONMENT if html else _TEXT_ENVIRONMENT).from_string(source)
                self.variables = tuple(sorted(map(str, self._parsed.global_variables())))
                self.variable_fields = frozenset(
                    f"{path[0]}.{path[1]}" for path in self._parsed.global_variable_segments() if len(path) > 1
                )
                instrument(self._parsed)
            except (LiquidError, RecursionError, TokenError) as error:
                raise TemplateSyntaxError(error) from error

    def render(self, variables: Mapping[str, object]) -> str:
        """Render the template. Raises MissingVariable for an unknown variable, and ValueError at a limit."""
        if self._parsed is None:
            return self.source
        try:
            return self._parsed.render(**variables)
        except (LiquidError, ArithmeticError, RecursionError) as error:
            raise ValueError(_describe_error(error)) from error

    def analysis(self) -> TemplateAnalysis | None:
        """Return the variables, filters and tags of the template; None if it is plain text."""
        return None if self._parsed is None else self._parsed.analyze()


def _describe_error(error: BaseException) -> str:
    if isinstance(error, LiquidError):
        context = error.context() if error.token is not None else None
        return f"{error.message}" + (f" (line {context[0]} of the template)" if context else "")
    return f"it cannot be rendered: {type(error).__name__}"


def is_safe_url(url: str) -> bool:
    """Return whether a URL is allowed in a link: http, https, or a path.

    >>> [is_safe_url(u) for u in ("/cart?x=1", "https://a.example/b", "javascript:alert(1)", "//evil.example")]
    [True, True, False, False]
    """
    if not url or len(url) > 2_048 or any(c <= " " or c == "\\" or c == "\x7f" for c in url):
        return False
    if url.startswith(("https://", "http://")):
        return len(url) > len("https://")
    if url.startswith("//"):
        return False
    return url[0] in "/?#" or ":" not in url.split("/", 1)[0]


def escape_html(text: str) -> str:
    """Escape plain text as HTML.

    >>> escape_html("a < b")
    'a &lt; b'
    """
    return str(Markup.escape(text))
