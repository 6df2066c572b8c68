"""Who may be whom: the binding cookie, the token for the event stream, the hash that vouches for a user id.

The write key is public, so knowing an anonymous id proves nothing. What proves it is the HttpOnly cookie that the
collector set when it first saw the id. A stream token is signed over the cookie's nonce as well: a token that leaks in
a URL is worthless without the cookie. All three are HMAC-SHA256 under the shop's secret, each with its own prefix.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from typing import Final, NamedTuple

COOKIE: Final = "attimo_bind"
COOKIE_SECONDS: Final = 400 * 86_400
"""As long as the log is kept, and the longest browsers allow."""

TOKEN_SECONDS: Final = 300
MAX_TOKEN: Final = 2_048
"""Characters; 256 characters of an id are at most 1,366 of base64."""


class Binding(NamedTuple):
    """A browser that owns an anonymous id, proven by its cookie."""

    anonymous_id: str
    nonce: str


def user_hash(secret: str, user_id: str) -> str:
    """What the shop's server computes for a user it has logged in.

    >>> user_hash("s", "ann")[:16]
    '3a96c6610ff1bf4e'
    """
    return hmac.new(secret.encode(), user_id.encode(), hashlib.sha256).hexdigest()


def vouched(secret: str, user_id: str, given: object) -> bool:
    """Whether `given` is the hash of this user id, in constant time.

    >>> vouched("s", "ann", user_hash("s", "ann")), vouched("s", "bob", user_hash("s", "ann")), vouched("s", "ann", 7)
    (True, False, False)
    """
    return isinstance(given, str) and same(given.lower(), user_hash(secret, user_id))


def same(given: str, wanted: str) -> bool:
    """Compare two secrets in constant time, whatever characters a caller sends."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())


def new_nonce() -> str:
    """A fresh nonce for a binding: 128 random bits."""
    return secrets.token_urlsafe(16)


def nonce_hash(nonce: str) -> str:
    """What Redis remembers of a nonce."""
    return hashlib.sha256(nonce.encode()).hexdigest()


def cookie_value(secret: str, shop: str, binding: Binding) -> str:
    """The value of the binding cookie."""
    body = f"v1.{_encode(binding.anonymous_id)}.{binding.nonce}"
    return f"{body}.{_sign(secret, 'bind', shop, body)}"


def read_cookie(secret: str, shop: str, value: str) -> Binding | None:
    """The binding that a cookie proves; None when the cookie is not ours.

    >>> ours = cookie_value("s", "demo", Binding("a1", "nonce"))
    >>> read_cookie("s", "demo", ours)
    Binding(anonymous_id='a1', nonce='nonce')
    >>> read_cookie("s", "demo", ours[:-1] + "x") is read_cookie("s", "other", ours) is None
    True
    """
    body, dot, signature = value.rpartition(".")
    parts = body.split(".")
    if not dot or len(value) > MAX_TOKEN or len(parts) != 3 or parts[0] != "v1":
        return None
    if not same(signature, _sign(secret, "bind", shop, body)):
        return None
    anonymous_id = _decode(parts[1])
    return Binding(anonymous_id, parts[2]) if anonymous_id else None


def stream_token(secret: str, shop: str, binding: Binding, now: int) -> str:
    """A token for the event stream of one browser, good for five minutes from `now` (ms)."""
    body = f"v1.{_encode(binding.anonymous_id)}.{now // 1000 + TOKEN_SECONDS}"
    return f"{body}.{_sign(secret, 'stream', shop, body, binding.nonce)}"


def read_token(secret: str, shop: str, token: str, binding: Binding | None, now: int) -> str | None:
    """The anonymous id that a token opens for the bearer of this binding at `now` (ms); None when it opens nothing.

    >>> owner = Binding("a1", "nonce")
    >>> token = stream_token("s", "demo", owner, now=0)
    >>> read_token("s", "demo", token, owner, now=299_000)
    'a1'
    >>> [read_token("s", "demo", token, who, now) for who, now in
    ...     ((None, 0), (owner, 300_000), (Binding("a1", "other"), 0), (Binding("b2", "nonce"), 0))]
    [None, None, None, None]
    """
    body, dot, signature = token.rpartition(".")
    parts = body.split(".")
    if binding is None or not dot or len(token) > MAX_TOKEN or len(parts) != 3 or parts[0] != "v1":
        return None
    if not same(signature, _sign(secret, "stream", shop, body, binding.nonce)):
        return None
    if _decode(parts[1]) != binding.anonymous_id or int(parts[2]) * 1000 <= now:
        return None
    return binding.anonymous_id


def _sign(secret: str, *parts: str) -> str:
    message = "\0".join(parts).encode("utf-8", "replace")
    return base64.urlsafe_b64encode(hmac.new(secret.encode(), message, hashlib.sha256).digest()).decode().rstrip("=")


def _encode(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode(text: str) -> str:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, ValueError):
        return ""
