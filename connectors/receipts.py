"""Receipts from a till, as CSV: the rows of one order become one "Order Completed", marked offline.

    order_id,at,user_id,total,currency,sku,quantity,price
    1001,2026-05-02T10:15:00+02:00,ann,38.50,EUR,A-1,1,30.00
    1001,2026-05-02T10:15:00+02:00,ann,38.50,EUR,B-7,1,8.50

The person is `user_id`, or `anonymous_id`, or else `email` or `card`: of those two only a hash goes into the log, keyed
with the shop's secret, so that nobody can try addresses on it.

Rows of one order stand together. An order with a row that cannot be read is left out as a whole, with line and column.

>>> rows = [b"order_id,at,card,sku,price", b"7,2026-05-02,4711,A-1,9.50"]
>>> [json.loads(line.raw)["properties"]["total"] for line in read_receipts(rows, "the shop's secret")]
[9.5]
"""

import csv
import hmac
import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from hashlib import sha256
from typing import Any, Final

from connectors.ingest import Line

COLUMNS: Final = {
    "order_id": ("order_id", "order", "receipt_id", "receipt"),
    "at": ("at", "date", "time", "timestamp", "datetime"),
    "user_id": ("user_id", "customer_id"),
    "anonymous_id": ("anonymous_id",),
    "email": ("email", "e_mail"),
    "card": ("card", "loyalty_card", "card_id"),
    "total": ("total",),
    "currency": ("currency",),
    "product_id": ("product_id", "sku"),
    "name": ("name", "product"),
    "category": ("category",),
    "brand": ("brand",),
    "quantity": ("quantity", "qty"),
    "price": ("price", "unit_price"),
    "coupon": ("coupon",),
}
"""What is read, and the names of the column it may be in."""

SECRET: Final = frozenset({"email", "card"})
"""Columns of which nothing is written as it stands."""
MOST_ROWS: Final = 1_000
"""Rows of one order."""
LARGEST: Final = Decimal(10) ** 12

Row = dict[str, str]


class _Wrong(ValueError):
    """A cell that cannot be read; the message names its column."""


def read_receipts(lines: Iterable[bytes], secret: str = "") -> Iterator[Line]:
    """Each order as a line of JSON, or why it is left out. ValueError when the header is none, or needs a secret."""
    source = (line.decode("utf-8", "surrogateescape") for line in lines)
    head = next(source, "").removeprefix("\ufeff")
    delimiter = max(",;\t", key=head.count)
    columns = _columns(next(csv.reader([head], delimiter=delimiter), []))
    if not secret and (named := sorted(columns.keys() & SECRET)):
        raise ValueError(f"line 1: column {' and '.join(named)}: of it a hash is kept, made with the shop's secret, "
                         "and there is none: set ATTIMO_SECRET, the same as for the edge, or leave the column out")
    reader = csv.reader(source, delimiter=delimiter)
    order: list[tuple[int, Row]] = []
    seen: set[bytes] = set()
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as wrong:
            yield Line(reader.line_num + 1, b"-", str(wrong))
            continue
        number = reader.line_num + 1
        if cells is not None and not any(cell.strip() for cell in cells):
            continue
        row = {} if cells is None else {column: cells[at].strip() for column, at in columns.items() if at < len(cells)}
        if order and (cells is None or row.get("order_id") != order[0][1].get("order_id")):
            yield _order(order, seen, secret)
            order = []
        if cells is None:
            return
        if len(order) <= MOST_ROWS:
            order.append((number, row))


def _columns(header: Sequence[str]) -> dict[str, int]:
    """Which column is where."""
    names = [name.strip().lower().replace(" ", "_").replace("-", "_") for name in header]
    found = {
        column: names.index(alias)
        for column, aliases in COLUMNS.items()
        for alias in reversed(aliases)
        if alias in names
    }
    for column in ("order_id", "at"):
        if column not in found:
            raise ValueError(f"line 1: no column {' or '.join(COLUMNS[column])}; found {', '.join(names) or 'nothing'}")
    if not found.keys() & {"user_id", "anonymous_id", "email", "card"}:
        raise ValueError("line 1: no column user_id, anonymous_id, email or card: whose receipts are these?")
    return found


def _order(rows: Sequence[tuple[int, Row]], seen: set[bytes], secret: str) -> Line:
    """One order as a line of JSON."""
    number = rows[0][0]
    raw = repr([{name: cell for name, cell in row.items() if name not in SECRET} for _, row in rows]).encode(
        "utf-8", "replace")
    try:
        first = rows[0][1]
        if not (order_id := _text(first, "order_id")):
            raise _Wrong("column order_id: empty")
        digest = sha256(order_id.encode()).digest()[:12]
        if digest in seen:
            raise _Wrong(f"column order_id: {order_id} again; the rows of one order stand together")
        seen.add(digest)
        event = {
            "type": "track",
            "event": "Order Completed",
            "messageId": f"receipt-{digest.hex()}",
            **_person(first, secret),
            "timestamp": _moment(first),
            "context": {"attimo": {"offline": True}},
        }
        products: list[dict[str, Any]] = []
        worth = Decimal(0)
        if len(rows) > MOST_ROWS:
            raise _Wrong(f"column order_id: more than {MOST_ROWS} rows of one order")
        for line, row in rows:
            number = line
            product, value = _product(row)
            worth += value
            if product:
                products.append(product)
        number = rows[0][0]
        total = _number(first, "total")
        properties: dict[str, Any] = {"order_id": order_id, "total": float(worth if total is None else total)}
        if currency := _text(first, "currency").upper():
            if len(currency) != 3 or not currency.isascii() or not currency.isalpha():
                raise _Wrong(f"column currency: expected three letters such as EUR, got {currency!r}")
            properties["currency"] = currency
        if coupon := _text(first, "coupon"):
            properties["coupon"] = coupon
        event["properties"] = {**properties, "products": products}
    except _Wrong as wrong:
        return Line(number, raw, str(wrong))
    return Line(number, json.dumps(event, ensure_ascii=False).encode())


def _text(row: Row, column: str) -> str:
    text = row.get(column, "")
    try:
        text.encode()
    except UnicodeEncodeError as wrong:
        raise _Wrong(f"column {column}: is not UTF-8") from wrong
    if len(text) > 256:
        raise _Wrong(f"column {column}: {len(text)} characters, at most 256 are read")
    return text


def _person(row: Row, secret: str) -> dict[str, str]:
    """Whose order it is."""
    if user := _text(row, "user_id"):
        return {"userId": user}
    if anonymous := _text(row, "anonymous_id"):
        return {"anonymousId": anonymous}
    for column in ("email", "card"):
        if found := _text(row, column).lower():
            digest = hmac.digest(secret.encode(), f"{column} {found}".encode(), "sha256")
            return {"anonymousId": f"{column}-{digest.hex()[:32]}"}
    raise _Wrong("column user_id: empty, and so are anonymous_id, email and card")


def _moment(row: Row) -> str:
    """When it was; without a zone it is read as UTC."""
    text = _text(row, "at")
    try:
        found = datetime.fromisoformat(text)
    except ValueError as wrong:
        raise _Wrong(f"column at: expected a time such as 2026-05-02T10:15:00+02:00, got {text!r}") from wrong
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).isoformat()


def _number(row: Row, column: str) -> Decimal | None:
    """A number that is not negative; a comma is its point when there is no other."""
    if not (text := _text(row, column)):
        return None
    try:
        found = Decimal(text.replace(",", ".") if text.count(",") == 1 and "." not in text else text)
    except InvalidOperation:
        found = Decimal("nan")
    if not found.is_finite() or not 0 <= found < LARGEST:
        raise _Wrong(f"column {column}: expected a number such as 12.50, not below 0, got {text!r}")
    return found


def _product(row: Row) -> tuple[dict[str, Any], Decimal]:
    """What was bought, and what it cost."""
    quantity, price = _number(row, "quantity"), _number(row, "price")
    product: dict[str, Any] = {
        column: found for column in ("product_id", "name", "category", "brand") if (found := _text(row, column))
    }
    if not product:
        return {}, Decimal(0)
    quantity = Decimal(1) if quantity is None else quantity
    product["quantity"] = int(quantity) if quantity == int(quantity) else float(quantity)
    if price is not None:
        product["price"] = float(price)
    return product, (price or Decimal(0)) * quantity
