"""The Segment protocol: validates calls of Segment-compatible clients and converts them to canonical events.

Input is untrusted until `normalize` has checked its structure, sizes, ids, times and identities. The result is JSON for
`domain.event.decode`, with keys in a fixed order, so that equal calls give equal bytes.

>>> request = RequestContext(received_at=1_760_000_000_000)
>>> event = normalize({"event": "Product Viewed", "anonymousId": "a1", "userId": "ann"}, "track", request)
>>> event.stream, event.key
('clicks', b'a1')
>>> orjson.loads(event.value)["context"]["attimo"]["claimedUserId"]
'ann'
"""

import base64
import binascii
import hashlib
import re
import zlib
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import msgspec
import orjson

from connectors.http import client
from connectors.http.browser_binding import verify_user_hash
from domain.event import MAX_ID_LENGTH, decode, epoch_ms, normalize_id
from domain.record import event_stream

MAX_CALL_BYTES: Final = 32_768
MAX_BATCH_BYTES: Final = 512_000
"""Bytes after decompression. Segment clients limit their batches to 475,000 bytes."""

MAX_BATCH_EVENTS: Final = 2_500
MAX_DEPTH: Final = 16
MAX_PROPERTIES: Final = 500
MAX_CLOCK_SKEW: Final = 24 * 3_600_000
"""Maximum ms that a corrected time may be in the future; it is replaced by the current time. Later is invalid."""

MIN_TIMESTAMP: Final = 946_684_800_000
"""2000-01-01 in epoch ms."""

CALL_OF_ENDPOINT: Final = {
    "t": "track",
    "p": "page",
    "s": "screen",
    "i": "identify",
    "g": "group",
    "a": "alias",
    "b": "batch",
    "track": "track",
    "page": "page",
    "screen": "screen",
    "identify": "identify",
    "group": "group",
    "alias": "alias",
    "batch": "batch",
    "import": "batch",
}
"""Last part of a path -> call."""

EVENT_TYPES: Final = frozenset({"track", "page", "screen", "identify", "group", "alias"})
_MASKED: Final = re.compile(r"\*+")
_CONTROL_CHARACTER: Final = re.compile(r"[\x00-\x1f\x7f]")
_FIELD_IN_ERROR: Final = re.compile(r" - at `\$\.?([^`]*)`$")


class InvalidCall(ValueError):
    """An event that is rejected, with a code, the field and the reason.

    >>> str(InvalidCall("too_long", "userId", "is longer than 256 characters"))
    'userId: is longer than 256 characters'
    """

    def __init__(self, code: str, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.code, self.field = code, field


class RequestContext(NamedTuple):
    """Properties of the request. `trusted` means that it used the secret server key.

    `foreign_ids` are the anonymous ids in the request that are bound to another browser. `is_image` marks the GIF.
    """

    received_at: int
    trusted: bool = False
    secret: str = ""
    address: str = ""
    user_agent: str = ""
    demo: bool = False
    foreign_ids: frozenset[str] = frozenset()
    is_image: bool = False


class NormalizedEvent(NamedTuple):
    """A canonical event with its stream and key."""

    stream: str
    key: bytes
    value: bytes
    anonymous_id: str | None


def inflate(body: bytes, max_bytes: int) -> bytes:
    """Decompress gzip data, up to `max_bytes` to stop decompression bombs. Raise InvalidCall if it is larger."""
    decompressor = zlib.decompressobj(wbits=31)
    try:
        plain = decompressor.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise InvalidCall("invalid", "body", f"is not gzip ({error})") from error
    if len(plain) > max_bytes:
        raise InvalidCall("too_large", "body", f"is larger than {max_bytes} bytes when inflated")
    if not decompressor.eof:
        raise InvalidCall("invalid", "body", "the gzip data is incomplete")
    if decompressor.unused_data:
        raise InvalidCall("invalid", "body", "has extra data after the gzip data")
    return plain


def parse_body(body: bytes) -> dict[str, Any]:
    """Parse the JSON object of a request, for any content type."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidCall("invalid", "body", f"is not JSON ({error})") from error
    if not isinstance(found, dict):
        raise InvalidCall("invalid", "body", "should be a JSON object")
    return found


def check_shape(item: dict[str, Any]) -> None:
    """Raise InvalidCall if an event is nested too deep or contains NUL characters."""
    stack: list[tuple[Any, int]] = [(item, 1)]
    while stack:
        value, depth = stack.pop()
        if type(value) is dict:
            for name, inner in value.items():
                if "\0" in name or (type(inner) is str and "\0" in inner):
                    raise InvalidCall(
                        "nul_character", name.replace("\0", "")[:64] or "body", "contains a NUL character"
                    )
                if type(inner) is dict or type(inner) is list:
                    stack.append((inner, depth + 1))
        else:
            for inner in value:
                if type(inner) is str:
                    if "\0" in inner:
                        raise InvalidCall("nul_character", "body", "contains a NUL character")
                elif type(inner) is dict or type(inner) is list:
                    stack.append((inner, depth + 1))
        if depth > MAX_DEPTH:
            raise InvalidCall("too_deep", "body", f"is nested deeper than {MAX_DEPTH}")


def event_type(item: dict[str, Any], call: str) -> str:
    """Return the type of an event: from the path, in a batch from the item."""
    if call != "batch":
        return call
    kind = item.get("type")
    if isinstance(kind, str) and kind in EVENT_TYPES:
        return kind
    if kind is None and isinstance(item.get("event"), str):
        return "track"
    raise InvalidCall("invalid", "type", "should be one of track, page, screen, identify, group, alias")


def normalize(item: dict[str, Any], call: str, request: RequestContext, sent_at: Any = None) -> NormalizedEvent:
    """Convert an item to a canonical event. `sent_at` is that of the batch. Raise InvalidCall for invalid fields."""
    kind = event_type(item, call)
    context = dict(_object(item, "context"))
    anonymous_id, user_id = _id(item, "anonymousId"), _id(item, "userId")
    hashes = context.pop("user_hash", None), context.pop("userHash", None)
    claimed = None
    if (
        user_id
        and not request.trusted
        and not any(verify_user_hash(request.secret, user_id, value) for value in hashes)
    ):
        claimed, user_id = user_id, None
    if user_id and anonymous_id in request.foreign_ids:
        anonymous_id = None  # do not merge the history of another browser; the event belongs to the user
    if not user_id and not anonymous_id:
        if claimed:
            raise InvalidCall(
                "missing_id",
                "userId",
                "not verified; send context.user_hash, use the server key, or add an anonymousId",
            )
        raise InvalidCall("missing_id", "anonymousId", "userId or anonymousId is required")
    name = _event_name(item) if kind == "track" else ""
    event: dict[str, Any] = {"type": kind}
    if kind == "track":
        event["event"] = name
    event["messageId"] = _message_id(item, kind)
    event["anonymousId"] = anonymous_id
    event["userId"] = user_id
    if kind == "alias":
        event["previousId"] = _previous_id(item, request, user_id, anonymous_id)
    elif kind == "group":
        event["groupId"] = _id(item, "groupId")
    elif kind in ("page", "screen"):
        event["name"], event["category"] = item.get("name"), item.get("category")
    _set_timestamps(event, item, request.received_at, sent_at)
    traits = context.pop("traits", None)
    if kind in ("identify", "group"):
        # RudderStack clients send them in the context
        event["traits"] = _object(item, "traits") or _object({"context.traits": traits}, "context.traits")
        _check_size(event["traits"], "traits")
    else:
        event["properties"] = _object(item, "properties")
        _check_size(event["properties"], "properties")
    event["context"] = context
    context["attimo"] = _server_context(context, request, claimed)
    context.pop("ip", None)
    value = orjson.dumps(event)
    if len(value) > MAX_CALL_BYTES + 1_024:  # 1 KB for the fields that the collector adds
        raise InvalidCall("too_large", "body", f"an event is larger than {MAX_CALL_BYTES} bytes")
    try:
        decode(value)
    except msgspec.DecodeError as error:
        raise _from_decode_error(error) from error
    return NormalizedEvent(event_stream(kind, name), (user_id or anonymous_id or "").encode(), value, anonymous_id)


def first_write_key(*candidates: Any) -> str:
    """Return the first candidate that is a key; skip masked ones (asterisks).

    >>> first_write_key("", "***", None, "WK")
    'WK'
    """
    for candidate in candidates:
        if isinstance(candidate, str) and candidate and not _MASKED.fullmatch(candidate):
            return candidate
    return ""


def basic_user(authorization: str) -> str:
    """Return the user of a Basic `Authorization` header, which contains the write key.

    >>> basic_user("Basic V0s6")
    'WK'
    """
    scheme, _, coded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(coded.strip(), validate=True).decode().partition(":")[0]
    except (binascii.Error, ValueError):
        return ""


def _id(item: dict[str, Any], field: str) -> str | None:
    value = item.get(field)
    if value is None:
        return None
    if type(value) is not str and type(value) is not int:
        raise InvalidCall("invalid", field, f"should be text or a whole number, got {type(value).__name__}")
    found = normalize_id(value)
    if found is None:
        return None
    if len(found) > MAX_ID_LENGTH:
        raise InvalidCall("too_long", field, f"is longer than {MAX_ID_LENGTH} characters")
    if _CONTROL_CHARACTER.search(found):
        raise InvalidCall("nul_character" if "\0" in found else "invalid", field, "contains a control character")
    return found


def _event_name(item: dict[str, Any]) -> str:
    name = item.get("event")
    if not isinstance(name, str) or not name.strip():
        raise InvalidCall("invalid", "event", "should be the name of the event")
    if len(name) > MAX_ID_LENGTH:
        raise InvalidCall("too_long", "event", f"is longer than {MAX_ID_LENGTH} characters")
    if _CONTROL_CHARACTER.search(name):
        raise InvalidCall("nul_character" if "\0" in name else "invalid", "event", "contains a control character")
    return name


def _previous_id(
    item: dict[str, Any], request: RequestContext, user_id: str | None, anonymous_id: str | None
) -> str | None:
    """Return the previous id; a browser may only link its own anonymous id, and only to a verified user."""
    found = _id(item, "previousId")
    if request.trusted or (user_id and found == anonymous_id):
        return found
    return None


def _object(item: dict[str, Any], field: str) -> dict[str, Any]:
    value = item.get(field)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidCall("invalid", field, "should be an object")
    return value


def _check_size(value: dict[str, Any], field: str) -> None:
    if len(value) > MAX_PROPERTIES:
        raise InvalidCall("too_large", field, f"has more than {MAX_PROPERTIES} entries")


def _message_id(item: dict[str, Any], call: str) -> str:
    found = _id(item, "messageId")
    if found:
        return found
    payload = {name: value for name, value in item.items() if name not in ("sentAt", "writeKey", "type")}
    plain = orjson.dumps([call, payload], option=orjson.OPT_SORT_KEYS)
    return "auto-" + hashlib.blake2b(plain, digest_size=16).hexdigest()


def _set_timestamps(event: dict[str, Any], item: dict[str, Any], received_at: int, batch_sent_at: Any) -> None:
    """Correct the timestamp by the clock error of the client, as the Segment spec defines it."""
    stamp = parse_timestamp(item.get("timestamp"), "timestamp")
    original = parse_timestamp(item.get("originalTimestamp"), "originalTimestamp")
    if original is None:
        original = stamp
    sent_at = parse_timestamp(item.get("sentAt") if batch_sent_at is None else batch_sent_at, "sentAt")
    at = received_at
    if original is not None:
        at = original if sent_at is None else original + received_at - sent_at
        field = "timestamp" if item.get("originalTimestamp") is None else "originalTimestamp"
        if at > received_at + MAX_CLOCK_SKEW:
            raise InvalidCall("timestamp_in_future", field, "is more than 24 hours in the future")
        if at < MIN_TIMESTAMP:
            raise InvalidCall("timestamp_too_old", field, "is before 2000-01-01")
    event["timestamp"] = _format_timestamp(min(at, received_at))
    if original is not None:
        event["originalTimestamp"] = _format_timestamp(original)
    event["receivedAt"] = _format_timestamp(received_at)


def parse_timestamp(value: Any, field: str) -> int | None:
    """Parse a time to epoch ms; return None for None.

    >>> parse_timestamp("1970-01-01T00:00:01Z", "timestamp")
    1000
    """
    if value is None:
        return None
    if isinstance(value, str) and len(value) <= 64:
        try:
            found = epoch_ms(datetime.fromisoformat(value))
            if -62_135_596_800_000 <= found < 253_402_300_800_000:  # years 1 to 9999 in UTC
                return found
        except (ValueError, OverflowError):
            pass
    raise InvalidCall("invalid", field, "should be an ISO 8601 time such as 2026-11-22T14:39:19.887Z")


def _format_timestamp(timestamp: int) -> str:
    return datetime.fromtimestamp(timestamp / 1000, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def _server_context(context: dict[str, Any], request: RequestContext, claimed_user_id: str | None) -> dict[str, Any]:
    """Return `context.attimo`. Values sent by browsers are ignored."""
    sent = context.get("attimo")
    sent = sent if isinstance(sent, dict) else {}
    if request.trusted:
        agent, address = context.get("userAgent"), context.get("ip")
    else:
        agent, address = context.get("userAgent") or _own_user_agent(context, request), request.address
    found: dict[str, Any] = {}
    country = client.country(address) if isinstance(address, str) and address else None
    if (request.trusted or request.demo) and isinstance(sent.get("country"), str):
        country = sent["country"]
        if not re.fullmatch(r"[A-Z]{2}", country):
            raise InvalidCall("invalid", "context.attimo.country", "should be two capital letters")
    if country:
        found["country"] = country
    bot, device = (
        client.classify_user_agent(agent[: client.MAX_USER_AGENT]) if isinstance(agent, str) and agent else (False, "")
    )
    hints = context.get("userAgentData")
    mobile = hints.get("mobile") if isinstance(hints, dict) else None
    if mobile is True and device == "desktop":
        device = "mobile"
    elif mobile is False and device == "mobile":
        device = "desktop"
    if request.trusted:
        if sent.get("device") in ("desktop", "mobile", "tablet", "bot"):
            device = sent["device"]
        bot = bot or sent.get("bot") is True
        if sent.get("offline") is True:
            found["offline"] = True
    if device:
        found["device"] = device
    if bot:
        found.update({"bot": True, "trackingImage": True} if request.is_image else {"bot": True})
    if claimed_user_id:
        found["claimedUserId"] = claimed_user_id
    return found


def _own_user_agent(context: dict[str, Any], request: RequestContext) -> str:
    """Return the user agent of the request; empty if the library of a server or an app sent the event."""
    library = context.get("library")
    name = library.get("name") if isinstance(library, dict) else None
    if isinstance(name, str) and not any(word in name.lower() for word in (".js", "javascript", "attimo", "jitsu")):
        return ""
    return request.user_agent


def _from_decode_error(error: msgspec.DecodeError) -> InvalidCall:
    text = str(error)
    place = _FIELD_IN_ERROR.search(text)
    field = (place[1] if place else "")[:128] or "body"
    return InvalidCall("invalid", field, _FIELD_IN_ERROR.sub("", text)[:256])
