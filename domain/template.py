"""Templates: Liquid, made safe. Parsed and checked when the playbook is read, so that nothing is found out too late.

- What is inserted into HTML is escaped; the result is sanitised again where it is rendered (`operators/render.py`).
- Loops, output, memory and work are bounded (`domain/render_limits.py`, `domain/render_work.py`); files, dates and
  anything that would ask for the time are not there.
- A variable without a value is an error (`Missing`), unless the template says `default` or asks with `if`.

>>> Template("Hi {{ first_name }}", html=True).render({"first_name": "<b>Ann</b>"})
'Hi &lt;b&gt;Ann&lt;/b&gt;'
>>> Template("{{ cart.value | money }}").render({"cart": {"value": Price("9.50")}, "shop": {"currency": "EUR"}})
'€9.50'
>>> Template("{{ product.name }}").render({"product": {"id": "p1"}})
Traceback (most recent call last):
    ...
domain.template.Missing: product.name
"""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import liquid
from liquid import Markup
from liquid.exceptions import LiquidError
from liquid.filter import with_context
from liquid.static_analysis import TemplateAnalysis

from domain.money import DIGITS
from domain.pieces import Refused, pieces
from domain.render_limits import LARGEST, Bounded, For, bounded
from domain.render_work import LOOPS, put_tolls

VARIABLES: Final[dict[str, tuple[str, ...]]] = {
    "product": ("id", "name", "price", "category", "brand", "url", "image_url"),
    "products": (),
    "cart": ("items", "value", "count"),
    "order": ("id", "value", "items"),
    "first_name": (), "last_name": (), "traits": (), "country": (), "device": (), "search": (),
    "coupon": ("code", "percent", "amount", "min_value", "free_shipping", "expires", "products"),
    "shop": ("name", "url", "currency"),
}
"""What a template may ask for, and the fields where they are fixed. `products`, `cart.items` and `coupon.products` are
lists. `coupon` has fields where the campaign takes it from a pool; else it is the code that is the same for
everybody."""

ENTRIES: Final[dict[str, tuple[str, ...]]] = {
    "products": VARIABLES["product"], "coupon.products": VARIABLES["product"],
    "cart.items": ("id", "name", "price", "category", "quantity"),
}
"""The lists, and the fields of each of their entries."""

TAGS: Final[dict[str, set[str]]] = {
    "a": {"href", "title"}, "img": {"src", "alt", "width", "height"}, "ol": {"start"},
    **{tag: set() for tag in ("p", "br", "b", "strong", "i", "em", "u", "s", "small", "sub", "sup", "span", "div", "ul",
                              "li", "h2", "h3", "h4", "blockquote", "code", "hr", "table", "thead", "tbody", "tr",
                              "th", "td", "figure", "figcaption", "del", "ins", "mark")},
}
"""The HTML that content may use, with its attributes. No styles, scripts, forms, frames: the widget gives the look."""

TAGS_OF_LIQUID = frozenset(("assign", "break", "capture", "case", "comment", "content", "continue", "cycle", "echo",
                             "for", "if", "liquid", "output", "unless", "#"))
_NO_FILTERS = ("date", "safe", "base64_decode", "base64_encode", "base64_url_safe_decode", "base64_url_safe_encode",
               "escapejs")
_SYMBOLS = {"EUR": "€", "USD": "$", "GBP": "£", "JPY": "¥", "CAD": "CA$", "AUD": "A$", "BRL": "R$", "INR": "₹"}


class Missing(ValueError):
    """A template asked for something that is not known of this person; the text is the variable's name."""


class Unparsable(ValueError):
    """A template that is no Liquid: why, and at which place of it (-1: not known). `domain/unparsable.py` says more."""

    def __init__(self, wrong: LiquidError | RecursionError | Refused) -> None:
        if isinstance(wrong, Refused):
            self.index = wrong.index
            super().__init__(str(wrong))
            return
        token = wrong.token if isinstance(wrong, LiquidError) else None
        self.index = token.start_index if token is not None and token.source else -1
        super().__init__(str(wrong.message) if isinstance(wrong, LiquidError) else "nests too deep")


class _Unknown(liquid.Undefined):
    """Can be asked about (`if`, `default`), and never shown."""

    __slots__ = ()

    def _missing(self) -> Missing:
        hint = (self.hint or self.name).removesuffix(" is undefined")
        return Missing(hint.strip("'") if hint != "index out of range" else self.name)

    def __str__(self) -> str:
        raise self._missing()

    def items(self) -> Any:
        raise self._missing()

    def __int__(self) -> int:
        raise self._missing()


class Price(float):
    """An amount in major units: counts as a number, and prints with the digits it was made with.

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


class Voucher(dict[str, Any]):
    """A coupon: prints as its code, and has fields besides.

    >>> Template("{{ coupon }}: {{ coupon.percent }} %").render({"coupon": Voucher(code="A1", percent=10)})
    'A1: 10 %'
    """

    def __str__(self) -> str:
        return str(self["code"])


MOST_DIGITS = 30
"""Amounts with more digits are shown as they came."""


class _Environment(liquid.Environment):
    block_nesting_limit = 20
    context_depth_limit = 20
    loop_iteration_limit = LOOPS
    local_namespace_limit = 100_000
    output_stream_limit = LARGEST
    template_class = Bounded


def money(amount: Decimal | float | str, currency: str) -> str:
    """An amount with its currency, for people.

    >>> money(1234.5, "EUR"), money(Decimal(1500), "JPY"), money("20", "CHF")
    ('€1,234.50', '¥1,500', 'CHF 20.00')
    """
    shown = f"{Decimal(str(amount)):,.{DIGITS.get(currency, 2)}f}"
    return f"{_SYMBOLS[currency]}{shown}" if currency in _SYMBOLS else f"{currency} {shown}"


@with_context
def _money(value: Any, *, context: liquid.RenderContext) -> Any:
    if liquid.is_undefined(value):
        return str(value)
    shop = context.resolve("shop", default={})
    try:
        if Decimal(str(value)).adjusted() > MOST_DIGITS:  # "1e999999999" comes from outside, and is a long text
            return value
        return money(value, str(shop.get("currency", "EUR")) if isinstance(shop, Mapping) else "EUR")
    except (InvalidOperation, ValueError):
        return value


def _environment(*, html: bool) -> _Environment:
    environment = _Environment(autoescape=html, undefined=_Unknown)
    environment.add_filter("money", _money)
    for name in _NO_FILTERS:
        environment.filters.pop(name, None)
    environment.filters = {name: bounded(name, made) for name, made in environment.filters.items()}
    environment.add_tag(For)
    return environment


_HTML = _environment(html=True)
_PLAIN = _environment(html=False)
FILTERS: Final = frozenset(_PLAIN.filters)
"""What can be done with a value: `{{ cart.value | money }}`."""


class Template:
    """One parsed template. `roots` are the variables it asks for, `fields` the fields of them, as "coupon.products".

    Unparsable when it is no Liquid, or more of it than anybody would write (`domain/pieces.py`).
    """

    __slots__ = ("_parsed", "fields", "html", "roots", "source")

    def __init__(self, source: str, *, html: bool = False) -> None:
        self.source = source
        self.html = html
        self._parsed: liquid.BoundTemplate | None = None
        self.roots: tuple[str, ...] = ()
        self.fields: frozenset[str] = frozenset()
        if "{{" in source or "{%" in source:
            try:
                for _ in pieces(source):
                    pass
                self._parsed = (_HTML if html else _PLAIN).from_string(source)
                self.roots = tuple(sorted(map(str, self._parsed.global_variables())))
                self.fields = frozenset(f"{path[0]}.{path[1]}" for path in self._parsed.global_variable_segments()
                                        if len(path) > 1)
                put_tolls(self._parsed)
            except (LiquidError, RecursionError, Refused) as wrong:
                raise Unparsable(wrong) from wrong

    def render(self, variables: Mapping[str, object]) -> str:
        """The text for these variables. Missing when one that is shown has no value; ValueError at a limit."""
        if self._parsed is None:
            return self.source
        try:
            return self._parsed.render(**variables)
        except (LiquidError, ArithmeticError, RecursionError) as wrong:
            raise ValueError(_plain_error(wrong)) from wrong

    def analysis(self) -> TemplateAnalysis | None:
        """The variables, filters and tags that it uses; None when it is plain text."""
        return None if self._parsed is None else self._parsed.analyze()


def _plain_error(wrong: BaseException) -> str:
    if isinstance(wrong, LiquidError):
        context = wrong.context() if wrong.token is not None else None
        return f"{wrong.message}" + (f" (line {context[0]} of the template)" if context else "")
    return f"it cannot be rendered: {type(wrong).__name__}"


def is_safe_url(url: str) -> bool:
    """Whether this may stand behind a link: http, https, or a path of the shop itself.

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


def escaped(text: str) -> str:
    """Plain text as HTML.

    >>> escaped("a < b")
    'a &lt; b'
    """
    return str(Markup.escape(text))
