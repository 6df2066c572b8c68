"""Scenario events: a row of a story as the record that a shop would have sent.

>>> teller = Teller("Ann", {"country": "CA"}, {})
>>> import json
>>> event = json.loads(teller.record(Row(1, "does", "Page Viewed", 0, values={"url": "/shop/"}), 5_000, 64).value)
>>> event["type"], event["anonymousId"], event["context"]["attimo"]["country"], event["context"]["page"]
('page', 'ann', 'CA', {'url': '/shop/'})
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from domain.partition import partition_of
from domain.record import Record
from domain.scenario import Row, Value
from domain.streams import stream_of
from state.person import person_key

DEVICES = {"phone": "mobile", "computer": "desktop"}
_GOODS = ("product_id", "sku", "name", "price", "quantity", "category", "brand", "url", "image_url")
_PAGE = ("url", "path", "title", "referrer")
_CAMPAIGN = {"source": "source", "medium": "medium", "campaign": "name"}
BEFORE = ("Identified", "Consent Updated")
"""What is told of somebody who need not be on the site."""
_encode = msgspec.json.Encoder().encode


class Teller:
    """One person's browser in a story: what is given of it, and the records that its rows become.

    `given` are country, device, language, timezone, source; `traits` what is known from the beginning.
    """

    def __init__(self, who: str, given: Mapping[str, Value], traits: Mapping[str, Value]) -> None:
        self.who = who
        self.anonymous_id = re.sub(r"[^a-z0-9]+", "-", who.lower()).strip("-") or "somebody"
        self.user_id = str(given.get("customer", ""))
        self.traits = dict(traits)
        self._given = given
        self._n = 0
        self._came = False

    @property
    def person(self) -> str:
        """The key under which the next record is written."""
        return person_key(self.user_id or None, self.anonymous_id)

    def record(self, row: Row, at: int, partitions: int) -> Record:
        """The record of a `does` row at `at` (ms since 1970)."""
        values = dict(row.values)
        if row.which == "logs in":
            self.user_id = str(values.pop("customer", values.pop("user", "")) or self.anonymous_id)
        return self._made(row.which, values, at, partitions)

    def _made(self, name: str, values: dict[str, Any], at: int, partitions: int) -> Record:
        self._n += 1
        about = self._context(name, values)
        event: dict[str, Any] = {
            "messageId": f"{self.anonymous_id}-{self._n}", "anonymousId": self.anonymous_id, "context": about}
        if self.user_id:
            event["userId"] = self.user_id
        call = "track"
        if name in ("Page Viewed", "Screen Viewed"):
            call = "page" if name == "Page Viewed" else "screen"
            event["properties"] = values
        elif name in ("Identified", "logs in"):
            call = "identify"
            event["traits"] = values
        else:
            event.update(event=name, properties=_goods(values) if name.startswith("Order") else values)
        event["type"] = call
        key = (self.user_id or self.anonymous_id).encode()
        stream = stream_of(call, name if call == "track" else "")
        return Record(stream, partition_of(key, partitions), 0, at, key, _encode(event))

    def beginning(self, consent: Mapping[str, Value], at: int, partitions: int) -> list[Record]:
        """What is known of them before the story begins: traits and answers."""
        found = []
        if self.traits:
            found.append(self._made("Identified", dict(self.traits), at, partitions))
        if consent:
            found.append(self._made("Consent Updated", dict(consent), at, partitions))
        return found

    def _context(self, name: str, values: dict[str, Any]) -> dict[str, Any]:
        given = self._given
        device = str(given.get("device", "desktop"))
        about: dict[str, Any] = {"attimo": {"country": given.get("country", ""),
                                            "device": DEVICES.get(device, device)}}
        if "language" in given:
            about["locale"] = given["language"]
        if "timezone" in given:
            about["timezone"] = given["timezone"]
        page = {field: values[field] for field in _PAGE if field in values and name == "Page Viewed"}
        if page:
            about["page"] = page
        campaign = {_CAMPAIGN[field]: values.pop(field) for field in _CAMPAIGN
                    if field in values and name == "Page Viewed"}
        if not campaign and "source" in given and not self._came:
            campaign = {"source": given["source"]}
        self._came = self._came or name not in BEFORE
        if campaign:
            about["campaign"] = campaign
        return about


def _goods(values: dict[str, Any]) -> dict[str, Any]:
    """An order whose one product is written beside it."""
    if "product_id" not in values or "products" in values:
        return values
    product = {field: values.pop(field) for field in _GOODS if field in values}
    return {**values, "products": [product]}
