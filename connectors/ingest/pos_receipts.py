"""Point-of-sale receipts as CSV: the rows of an order become one "Order Completed" event, marked offline.

    order_id,at,user_id,total,currency,sku,quantity,price
    1001,2026-05-02T10:15:00+02:00,ann,38.50,EUR,A-1,1,30.00
    1001,2026-05-02T10:15:00+02:00,ann,38.50,EUR,B-7,1,8.50

The person is identified by `user_id`, `anonymous_id`, `email` or `card`. Of the last two only a hash is stored, keyed
with the shop's secret, so that addresses cannot be guessed.

The rows of an order must be consecutive. An order with an invalid row is rejected as a whole; the error names line and
column.

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

from connectors.ingest.jsonl import InputLine

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
"""Field -> accepted column names."""

HASHED_COLUMNS: Final = frozenset({"email", "card"})
"""Columns that are stored as a hash only."""
MAX_ORDER_ROWS: Final = 1_000
"""Maximum rows of one order."""
MAX_AMOUNT: Final = Decimal(10) ** 12

ReceiptRow = dict[str, str]


class _InvalidCell(ValueError):
    """An invalid cell; the message names its column."""


def read_receipts(lines: Iterable[bytes], secret: str = "") -> Iterator[InputLine]:
    """Yield each order as a line of JSON or an error. Raise ValueError for an invalid header or a missing secret."""
    source = (line.decode("utf-8", "surrogateescape") for line in lines)
    header = next(source, "").removeprefix("\ufeff")
    delimiter = max(",;\t", key=header.count)
    columns = _column_indexes(next(csv.reader([header], delimiter=delimiter), []))
    if not secret and (hashed := sorted(columns.keys() & HASHED_COLUMNS)):
        raise ValueError(
            f"line 1: column {' and '.join(hashed)}: its hash needs the shop's secret; "
            "set ATTIMO_SECRET to the same value as for the edge, or remove the column"
        )
    reader = csv.reader(source, delimiter=delimiter)
    order: list[tuple[int, ReceiptRow]] = []
    seen: set[bytes] = set()
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield InputLine(reader.line_num + 1, b"-", str(error))
            continue
        number = reader.line_num + 1
        if cells is not None and not any(cell.strip() for cell in cells):
            continue
        row = {} if cells is None else {column: cells[at].strip() for column, at in columns.items() if at < len(cells)}
        if order and (cells is None or row.get("order_id") != order[0][1].get("order_id")):
            yield _order_line(order, seen, secret)
            order = []
        if cells is None:
            return
        if len(order) <= MAX_ORDER_ROWS:
            order.append((number, row))


def _column_indexes(header: Sequence[str]) -> dict[str, int]:
    """Return the index of each column."""
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
        raise ValueError("line 1: no column user_id, anonymous_id, email or card; one is needed to identify the person")
    return found


def _order_line(rows: Sequence[tuple[int, ReceiptRow]], seen_orders: set[bytes], secret: str) -> InputLine:
    """Convert the rows of an order to a line of JSON."""
    number = rows[0][0]
    raw = repr([{name: cell for name, cell in row.items() if name not in HASHED_COLUMNS} for _, row in rows]).encode(
        "utf-8", "replace"
    )
    try:
        first = rows[0][1]
        if not (order_id := _text(first, "order_id")):
            raise _InvalidCell("column order_id: empty")
        digest = sha256(order_id.encode()).digest()[:12]
        if digest in seen_orders:
            raise _InvalidCell(f"column order_id: {order_id} was used before; the rows of an order must be consecutive")
        seen_orders.add(digest)
        event = {
            "type": "track",
            "event": "Order Completed",
            "messageId": f"receipt-{digest.hex()}",
            **_person(first, secret),
            "timestamp": _timestamp(first),
            "context": {"attimo": {"offline": True}},
        }
        products: list[dict[str, Any]] = []
        row_total = Decimal(0)
        if len(rows) > MAX_ORDER_ROWS:
            raise _InvalidCell(f"column order_id: more than {MAX_ORDER_ROWS} rows of one order")
        for line, row in rows:
            number = line
            product, value = _product(row)
            row_total += value
            if product:
                products.append(product)
        number = rows[0][0]
        total = _number(first, "total")
        properties: dict[str, Any] = {"order_id": order_id, "total": float(row_total if total is None else total)}
        if currency := _text(first, "currency").upper():
            if len(currency) != 3 or not currency.isascii() or not currency.isalpha():
                raise _InvalidCell(f"column currency: expected three letters such as EUR, got {currency!r}")
            properties["currency"] = currency
        if coupon := _text(first, "coupon"):
            properties["coupon"] = coupon
        event["properties"] = {**properties, "products": products}
    except _InvalidCell as error:
        return InputLine(number, raw, str(error))
    return InputLine(number, json.dumps(event, ensure_ascii=False).encode())


def _text(row: ReceiptRow, column: str) -> str:
    text = row.get(column, "")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _InvalidCell(f"column {column}: is not UTF-8") from error
    if len(text) > 256:
        raise _InvalidCell(f"column {column}: has {len(text)} characters; the maximum is 256")
    return text


def _person(row: ReceiptRow, secret: str) -> dict[str, str]:
    """Return the id of the person."""
    if user := _text(row, "user_id"):
        return {"userId": user}
    if anonymous := _text(row, "anonymous_id"):
        return {"anonymousId": anonymous}
    for column in ("email", "card"):
        if found := _text(row, column).lower():
            digest = hmac.digest(secret.encode(), f"{column} {found}".encode(), "sha256")
            return {"anonymousId": f"{column}-{digest.hex()[:32]}"}
    raise _InvalidCell("column user_id: empty, and anonymous_id, email and card are empty too")


def _timestamp(row: ReceiptRow) -> str:
    """Return the time of the order; without a time zone it is UTC."""
    text = _text(row, "at")
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise _InvalidCell(f"column at: expected a time such as 2026-05-02T10:15:00+02:00, got {text!r}") from error
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).isoformat()


def _number(row: ReceiptRow, column: str) -> Decimal | None:
    """Parse a non-negative number; a single comma is a decimal point if there is no period."""
    if not (text := _text(row, column)):
        return None
    try:
        found = Decimal(text.replace(",", ".") if text.count(",") == 1 and "." not in text else text)
    except InvalidOperation:
        found = Decimal("nan")
    if not found.is_finite() or not 0 <= found < MAX_AMOUNT:
        raise _InvalidCell(f"column {column}: expected a number such as 12.50, 0 or above, got {text!r}")
    return found


def _product(row: ReceiptRow) -> tuple[dict[str, Any], Decimal]:
    """Return the product of a row, and its total price."""
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
