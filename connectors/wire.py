"""The wire: what Segment-compatible clients send, made into canonical events.

Everything that arrives is hostile until it went through `canonical`: shape, sizes, ids, times, who may speak for whom.
What leaves is JSON that `domain.event.decode` reads, with its keys in one fixed order, so that the same call makes the
same bytes.

>>> who = Caller(received_at=1_760_000_000_000)
>>> found = canonical({"event": "Product Viewed", "anonymousId": "a1", "userId": "ann"}, "track", who)
>>> found.stream, found.key
('clicks', b'a1')
>>> orjson.loads(found.value)["context"]["attimo"]["claimedUserId"]
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

from connectors import bots, geo
from connectors.identity_tokens import vouched
from domain.event import MAX_ID, decode, milliseconds, text_id
from domain.streams import stream_of

MAX_CALL: Final = 32_768
MAX_BATCH: Final = 512_000
"""Bytes, inflated. Clients stop their batches at 475,000."""

MAX_EVENTS: Final = 2_500
MAX_DEPTH: Final = 16
MAX_PROPERTIES: Final = 500
FUTURE: Final = 24 * 3_600_000
"""Milliseconds a corrected time may lie ahead: less is a clock's error (and becomes now), more is a mistake."""

ANCIENT: Final = 946_684_800_000
"""2000-01-01, in ms: nothing was bought before."""

CALLS: Final = {
    "t": "track", "p": "page", "s": "screen", "i": "identify", "g": "group", "a": "alias", "b": "batch",
    "track": "track", "page": "page", "screen": "screen", "identify": "identify", "group": "group", "alias": "alias",
    "batch": "batch", "import": "batch",
}
"""The last part of a path -> the call."""

KINDS: Final = frozenset({"track", "page", "screen", "identify", "group", "alias"})
_MASKED: Final = re.compile(r"\*+")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_FIELD: Final = re.compile(r" - at `\$\.?([^`]*)`$")


class Refused(ValueError):
    """An event that is not accepted: a word for counting, the field, and what is wrong with it.

    >>> str(Refused("too_long", "userId", "is longer than 256 characters"))
    'userId: is longer than 256 characters'
    """

    def __init__(self, kind: str, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.kind, self.field = kind, field


class Caller(NamedTuple):
    """Who sends, as far as the connection tells. `trusted` means the secret server key.

    `foreign` are the anonymous ids in this request that are another browser's; `image` means that the GIF was loaded.
    """

    received_at: int
    trusted: bool = False
    secret: str = ""
    address: str = ""
    user_agent: str = ""
    demo: bool = False
    foreign: frozenset[str] = frozenset()
    image: bool = False


class Canonical(NamedTuple):
    """An event on its way into the log."""

    stream: str
    key: bytes
    value: bytes
    anonymous_id: str | None


def inflate(body: bytes, cap: int) -> bytes:
    """Gunzip, and stop at the cap: a bomb costs no more memory than an honest call. Refused when it is too large."""
    machine = zlib.decompressobj(wbits=31)
    try:
        plain = machine.decompress(body, cap + 1)
    except zlib.error as wrong:
        raise Refused("unreadable", "body", f"is not gzip ({wrong})") from wrong
    if len(plain) > cap:
        raise Refused("too_large", "body", f"is larger than {cap} bytes when inflated")
    if not machine.eof:
        raise Refused("unreadable", "body", "the gzip data ends too early")
    if machine.unused_data:
        raise Refused("unreadable", "body", "something follows the gzip data")
    return plain


def read(body: bytes) -> dict[str, Any]:
    """The JSON object of a request, whatever its content type said."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as wrong:
        raise Refused("unreadable", "body", f"is not JSON ({wrong})") from wrong
    if not isinstance(found, dict):
        raise Refused("unreadable", "body", "should be a JSON object")
    return found


def check_shape(item: dict[str, Any]) -> None:
    """Refused when an event is nested too deep, carries NUL characters, or too many properties."""
    stack: list[tuple[Any, int]] = [(item, 1)]
    while stack:
        value, depth = stack.pop()
        if type(value) is dict:
            for name, inner in value.items():
                if "\0" in name or (type(inner) is str and "\0" in inner):
                    raise Refused("nul", name.replace("\0", "")[:64] or "body", "contains a NUL character")
                if type(inner) is dict or type(inner) is list:
                    stack.append((inner, depth + 1))
        else:
            for inner in value:
                if type(inner) is str:
                    if "\0" in inner:
                        raise Refused("nul", "body", "contains a NUL character")
                elif type(inner) is dict or type(inner) is list:
                    stack.append((inner, depth + 1))
        if depth > MAX_DEPTH:
            raise Refused("too_deep", "body", f"is nested deeper than {MAX_DEPTH}")


def kind_of(item: dict[str, Any], call: str) -> str:
    """What call an item is: the path says it; in a batch the item does."""
    if call != "batch":
        return call
    kind = item.get("type")
    if isinstance(kind, str) and kind in KINDS:
        return kind
    if kind is None and isinstance(item.get("event"), str):
        return "track"
    raise Refused("unreadable", "type", "should be one of track, page, screen, identify, group, alias")


def canonical(item: dict[str, Any], call: str, caller: Caller, sent_at: Any = None) -> Canonical:
    """One item as the log keeps it. `sent_at` is the batch's. Refused names the field and what is wrong with it."""
    kind = kind_of(item, call)
    context = dict(_object(item, "context"))
    anonymous_id, user_id = _id(item, "anonymousId"), _id(item, "userId")
    given = context.pop("user_hash", None), context.pop("userHash", None)
    claimed = None
    if user_id and not caller.trusted and not any(vouched(caller.secret, user_id, one) for one in given):
        claimed, user_id = user_id, None
    if user_id and anonymous_id in caller.foreign:
        anonymous_id = None  # a login merges one's own history only; the event itself is the user's
    if not user_id and not anonymous_id:
        if claimed:
            raise Refused("no_person", "userId", "nobody vouches for it (send context.user_hash, or use the server "
                                                 "key) and there is no anonymousId")
        raise Refused("no_person", "anonymousId", "there is neither an anonymousId nor a userId")
    name = _name(item) if kind == "track" else ""
    event: dict[str, Any] = {"type": kind}
    if kind == "track":
        event["event"] = name
    event["messageId"] = _message_id(item, kind)
    event["anonymousId"] = anonymous_id
    event["userId"] = user_id
    if kind == "alias":
        event["previousId"] = _previous_id(item, caller, user_id, anonymous_id)
    elif kind == "group":
        event["groupId"] = _id(item, "groupId")
    elif kind in ("page", "screen"):
        event["name"], event["category"] = item.get("name"), item.get("category")
    _times(event, item, caller.received_at, sent_at)
    traits = context.pop("traits", None)
    if kind in ("identify", "group"):
        # RudderStack's clients put them into the context
        event["traits"] = _object(item, "traits") or _object({"context.traits": traits}, "context.traits")
        _few(event["traits"], "traits")
    else:
        event["properties"] = _object(item, "properties")
        _few(event["properties"], "properties")
    event["context"] = context
    context["attimo"] = _seen(context, caller, claimed)
    context.pop("ip", None)
    value = orjson.dumps(event)
    if len(value) > MAX_CALL + 1_024:  # what the collector adds is not the sender's fault
        raise Refused("too_large", "body", f"an event is larger than {MAX_CALL} bytes")
    try:
        decode(value)
    except msgspec.DecodeError as wrong:
        raise _refused(wrong) from wrong
    return Canonical(stream_of(kind, name), (user_id or anonymous_id or "").encode(), value, anonymous_id)


def write_key(*candidates: Any) -> str:
    """The first candidate that is a key; clients that mask it send asterisks.

    >>> write_key("", "***", None, "WK")
    'WK'
    """
    for candidate in candidates:
        if isinstance(candidate, str) and candidate and not _MASKED.fullmatch(candidate):
            return candidate
    return ""


def basic(authorization: str) -> str:
    """The user of a Basic `Authorization` header: clients put the write key there.

    >>> basic("Basic V0s6")
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
        raise Refused("unreadable", field, f"should be text or a whole number, is {type(value).__name__}")
    found = text_id(value)
    if found is None:
        return None
    if len(found) > MAX_ID:
        raise Refused("too_long", field, f"is longer than {MAX_ID} characters")
    if _CONTROL.search(found):
        raise Refused("nul" if "\0" in found else "unreadable", field, "contains a control character")
    return found


def _name(item: dict[str, Any]) -> str:
    name = item.get("event")
    if not isinstance(name, str) or not name.strip():
        raise Refused("unreadable", "event", "should be the name of the event")
    if len(name) > MAX_ID:
        raise Refused("too_long", "event", f"is longer than {MAX_ID} characters")
    if _CONTROL.search(name):
        raise Refused("nul" if "\0" in name else "unreadable", "event", "contains a control character")
    return name


def _previous_id(item: dict[str, Any], caller: Caller, user_id: str | None, anonymous_id: str | None) -> str | None:
    """A browser may only hand over its own anonymous id, and only to a user somebody vouches for."""
    found = _id(item, "previousId")
    if caller.trusted or (user_id and found == anonymous_id):
        return found
    return None


def _object(item: dict[str, Any], field: str) -> dict[str, Any]:
    value = item.get(field)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Refused("unreadable", field, "should be an object")
    return value


def _few(found: dict[str, Any], field: str) -> None:
    if len(found) > MAX_PROPERTIES:
        raise Refused("too_large", field, f"has more than {MAX_PROPERTIES} entries")


def _message_id(item: dict[str, Any], kind: str) -> str:
    found = _id(item, "messageId")
    if found:
        return found
    payload = {name: value for name, value in item.items() if name not in ("sentAt", "writeKey", "type")}
    plain = orjson.dumps([kind, payload], option=orjson.OPT_SORT_KEYS)
    return "auto-" + hashlib.blake2b(plain, digest_size=16).hexdigest()


def _times(event: dict[str, Any], item: dict[str, Any], received_at: int, batch_sent_at: Any) -> None:
    """The Segment spec's correction: what the client's clock said, plus how wrong it was when it sent."""
    stamp = moment(item.get("timestamp"), "timestamp")
    original = moment(item.get("originalTimestamp"), "originalTimestamp")
    if original is None:
        original = stamp
    sent_at = moment(item.get("sentAt") if batch_sent_at is None else batch_sent_at, "sentAt")
    at = received_at
    if original is not None:
        at = original if sent_at is None else original + received_at - sent_at
        field = "timestamp" if item.get("originalTimestamp") is None else "originalTimestamp"
        if at > received_at + FUTURE:
            raise Refused("future", field, "lies more than a day in the future")
        if at < ANCIENT:
            raise Refused("ancient", field, "lies before the year 2000")
    event["timestamp"] = _text(min(at, received_at))
    if original is not None:
        event["originalTimestamp"] = _text(original)
    event["receivedAt"] = _text(received_at)


def moment(value: Any, field: str) -> int | None:
    """A time as clients write it, in ms; None for none.

    >>> moment("1970-01-01T00:00:01Z", "timestamp")
    1000
    """
    if value is None:
        return None
    if isinstance(value, str) and len(value) <= 64:
        try:
            found = milliseconds(datetime.fromisoformat(value))
            if -62_135_596_800_000 <= found < 253_402_300_800_000:  # years 1 to 9999, also after moving to UTC
                return found
        except (ValueError, OverflowError):
            pass
    raise Refused("unreadable", field, "should be a time as ISO 8601 writes it, like 2026-11-22T14:39:19.887Z")


def _text(moment: int) -> str:
    return datetime.fromtimestamp(moment / 1000, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def _seen(context: dict[str, Any], caller: Caller, claimed: str | None) -> dict[str, Any]:
    """What the collector found out (`context.attimo`). A browser's own word on it counts for nothing."""
    said = context.get("attimo")
    said = said if isinstance(said, dict) else {}
    if caller.trusted:
        agent, address = context.get("userAgent"), context.get("ip")
    else:
        agent, address = context.get("userAgent") or _own_agent(context, caller), caller.address
    found: dict[str, Any] = {}
    country = geo.country(address) if isinstance(address, str) and address else None
    if (caller.trusted or caller.demo) and isinstance(said.get("country"), str):
        country = said["country"]
        if not re.fullmatch(r"[A-Z]{2}", country):
            raise Refused("unreadable", "context.attimo.country", "should be two capital letters")
    if country:
        found["country"] = country
    bot, device = bots.judge(agent[:bots.MAX_USER_AGENT]) if isinstance(agent, str) and agent else (False, "")
    hints = context.get("userAgentData")
    mobile = hints.get("mobile") if isinstance(hints, dict) else None
    if mobile is True and device == "desktop":
        device = "mobile"
    elif mobile is False and device == "mobile":
        device = "desktop"
    if caller.trusted:
        if said.get("device") in ("desktop", "mobile", "tablet", "bot"):
            device = said["device"]
        bot = bot or said.get("bot") is True
        if said.get("offline") is True:
            found["offline"] = True
    if device:
        found["device"] = device
    if bot:
        found.update({"bot": True, "image": True} if caller.image else {"bot": True})
    if claimed:
        found["claimedUserId"] = claimed
    return found


def _own_agent(context: dict[str, Any], caller: Caller) -> str:
    """The caller's own user agent, unless a library of a server or an app speaks for somebody it does not describe."""
    library = context.get("library")
    name = library.get("name") if isinstance(library, dict) else None
    if isinstance(name, str) and not any(word in name.lower() for word in (".js", "javascript", "attimo", "jitsu")):
        return ""
    return caller.user_agent


def _refused(wrong: msgspec.DecodeError) -> Refused:
    text = str(wrong)
    place = _FIELD.search(text)
    field = (place[1] if place else "")[:128] or "body"
    return Refused("unreadable", field, _FIELD.sub("", text)[:256])
