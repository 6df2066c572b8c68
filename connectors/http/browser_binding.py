"""Browser binding: a cookie that proves an anonymous id, stream tokens, and the hash that verifies a user id.

The write key is public, so an anonymous id alone proves nothing. The collector sets an HttpOnly cookie for the first
browser that sends an id; later browsers get none. Withdrawing consent to analytics removes the cookie and the binding.
Redis stores the bound ids (`bound:{shop}:{anonymous_id}` -> hash of the nonce). Without Redis no new ids are bound, and
events are still accepted.

A stream token is signed together with the nonce of the cookie: a token leaked in a URL is useless without the cookie.
Cookie, token and user hash are HMAC-SHA256 with the shop's secret; cookie and token have distinct prefixes.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Collection, Sequence
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from redis.exceptions import RedisError

from connectors.http import client
from connectors.http.responses import header
from connectors.metrics import EDGE_BINDINGS
from domain.settings import Settings

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from starlette.types import Scope


COOKIE_NAME: Final = "attimo_bind"
COOKIE_MAX_AGE: Final = 400 * 86_400
"""Seconds; the default retention of the log, and the maximum that browsers allow."""

TOKEN_TTL: Final = 300
MAX_TOKEN_LENGTH: Final = 2_048
"""Characters; an id of 256 characters has at most 1,366 in base64."""


class Binding(NamedTuple):
    """An anonymous id and the nonce of the cookie that proves it."""

    anonymous_id: str
    nonce: str


def user_hash(secret: str, user_id: str) -> str:
    """Return the hash that the shop's server computes for a signed-in user.

    >>> user_hash("s", "ann")[:16]
    '3a96c6610ff1bf4e'
    """
    return hmac.new(secret.encode(), user_id.encode(), hashlib.sha256).hexdigest()


def verify_user_hash(secret: str, user_id: str, candidate: object) -> bool:
    """Return True if `candidate` is the hash of this user id; compare in constant time.

    >>> ann = user_hash("s", "ann")
    >>> verify_user_hash("s", "ann", ann), verify_user_hash("s", "bob", ann), verify_user_hash("s", "ann", 7)
    (True, False, False)
    """
    return isinstance(candidate, str) and constant_time_equal(candidate.lower(), user_hash(secret, user_id))


def constant_time_equal(candidate: str, expected: str) -> bool:
    """Compare two secrets in constant time; `candidate` may contain any characters."""
    return hmac.compare_digest(candidate.encode("utf-8", "replace"), expected.encode())


def new_nonce() -> str:
    """Return a new nonce of 128 random bits."""
    return secrets.token_urlsafe(16)


def nonce_hash(nonce: str) -> str:
    """Return the hash of a nonce that Redis stores."""
    return hashlib.sha256(nonce.encode()).hexdigest()


def cookie_value(secret: str, shop: str, binding: Binding) -> str:
    """Return the value of the binding cookie."""
    body = f"v1.{_encode(binding.anonymous_id)}.{binding.nonce}"
    return f"{body}.{_sign(secret, 'bind', shop, body)}"


def read_cookie(secret: str, shop: str, value: str) -> Binding | None:
    """Return the binding that a cookie proves; None if the cookie is invalid.

    >>> cookie = cookie_value("s", "demo", Binding("a1", "nonce"))
    >>> read_cookie("s", "demo", cookie)
    Binding(anonymous_id='a1', nonce='nonce')
    >>> read_cookie("s", "demo", cookie[:-1] + "x") is read_cookie("s", "other", cookie) is None
    True
    """
    body, dot, signature = value.rpartition(".")
    parts = body.split(".")
    if not dot or len(value) > MAX_TOKEN_LENGTH or len(parts) != 3 or parts[0] != "v1":
        return None
    if not constant_time_equal(signature, _sign(secret, "bind", shop, body)):
        return None
    anonymous_id = _decode(parts[1])
    return Binding(anonymous_id, parts[2]) if anonymous_id else None


def stream_token(secret: str, shop: str, binding: Binding, now: int) -> str:
    """Return a token for the event stream of one browser, valid for five minutes from `now` (ms)."""
    body = f"v1.{_encode(binding.anonymous_id)}.{now // 1000 + TOKEN_TTL}"
    return f"{body}.{_sign(secret, 'stream', shop, body, binding.nonce)}"


def read_token(secret: str, shop: str, token: str, binding: Binding | None, now: int) -> str | None:
    """Return the anonymous id of a token; None if it is invalid, expired (`now` in ms) or for another binding.

    >>> owner = Binding("a1", "nonce")
    >>> token = stream_token("s", "demo", owner, now=0)
    >>> read_token("s", "demo", token, owner, now=299_000)
    'a1'
    >>> [read_token("s", "demo", token, binding, now) for binding, now in
    ...     ((None, 0), (owner, 300_000), (Binding("a1", "other"), 0), (Binding("b2", "nonce"), 0))]
    [None, None, None, None]
    """
    body, dot, signature = token.rpartition(".")
    parts = body.split(".")
    if binding is None or not dot or len(token) > MAX_TOKEN_LENGTH or len(parts) != 3 or parts[0] != "v1":
        return None
    if not constant_time_equal(signature, _sign(secret, "stream", shop, body, binding.nonce)):
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


MAX_CACHED_IDS: Final = 100_000
MAX_IDS_PER_REQUEST: Final = 3
RETRY_DELAY: Final = 1.0
"""Seconds without requests after Redis was unreachable, so that events are not delayed."""

_UNBIND_SCRIPT: Final = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
"""Deletes the binding only if the nonce matches: an old cookie must not remove a newer binding."""


def bound_key(shop: str, anonymous_id: str) -> str:
    """Return the Redis key of a binding.

    >>> bound_key("demo", "a1")
    'bound:demo:a1'
    """
    return f"bound:{shop}:{anonymous_id}"


def is_https(scope: "Scope", settings: Settings) -> bool:
    """Return True if the browser used TLS, to the edge or to its proxy."""
    if settings.trust_proxy and (forwarded := header(scope, b"x-forwarded-proto")):
        return forwarded.rpartition(",")[2].strip().lower() == "https"
    return scope["scheme"] == "https" or settings.public_url.startswith("https://")


class Binder:
    """Sets and reads binding cookies."""

    def __init__(self, settings: Settings, redis: "Redis") -> None:
        self._settings, self._redis = settings, redis
        self._bound_ids: OrderedDict[str, None] = OrderedDict()
        self._retry_at = 0.0

    def read_binding(self, scope: "Scope") -> Binding | None:
        """Return the binding that the cookie of this browser proves."""
        for name, text in scope["headers"]:
            if name == b"cookie" and b"attimo_bind" in text:
                for value in _cookie_values(text.decode("latin-1")):
                    found = read_cookie(self._settings.secret, self._settings.shop, value)
                    if found is not None:
                        return found
        return None

    async def bind(self, scope: "Scope", anonymous_ids: Sequence[str | None]) -> str | None:
        """Bind the browser to an anonymous id; return its Set-Cookie header, or None if no cookie is to be set.

        Of several ids the last one counts, because a visitor may sign out in between. Calls with more than
        `MAX_IDS_PER_REQUEST` ids, from bots or from cross-site pages are not bound.
        """
        found = [candidate for candidate in anonymous_ids if candidate]
        if not found or len(set(found)) > MAX_IDS_PER_REQUEST or not _is_browser(scope):
            return None
        anonymous_id = found[-1]
        proven = self.read_binding(scope)
        if (proven is not None and proven.anonymous_id == anonymous_id) or anonymous_id in self._bound_ids:
            return None
        now = time.monotonic()
        if now < self._retry_at:
            return None
        nonce = new_nonce()
        try:
            first = await self._redis.set(
                bound_key(self._settings.shop, anonymous_id), nonce_hash(nonce), nx=True, ex=COOKIE_MAX_AGE
            )
        except (RedisError, OSError, TimeoutError):
            self._retry_at = now + RETRY_DELAY
            EDGE_BINDINGS.labels("redis_unavailable").inc()
            return None
        self._bound_ids[anonymous_id] = None
        if len(self._bound_ids) > MAX_CACHED_IDS:
            self._bound_ids.popitem(last=False)
        EDGE_BINDINGS.labels("bound" if first else "already_bound").inc()
        if not first:
            return None
        value = cookie_value(self._settings.secret, self._settings.shop, Binding(anonymous_id, nonce))
        return self._set_cookie_header(scope, value, COOKIE_MAX_AGE)

    async def unbind(self, scope: "Scope", anonymous_ids: Collection[str | None]) -> str:
        """Return the Set-Cookie header that deletes the cookie; delete the binding if the cookie proves the id.

        If Redis is unavailable, the binding stays there until it expires.
        """
        proven = self.read_binding(scope)
        if proven is not None and proven.anonymous_id in anonymous_ids:
            self._bound_ids.pop(proven.anonymous_id, None)
            key = bound_key(self._settings.shop, proven.anonymous_id)
            try:
                await cast("Awaitable[int]", self._redis.eval(_UNBIND_SCRIPT, 1, key, nonce_hash(proven.nonce)))
            except (RedisError, OSError, TimeoutError):
                self._retry_at = time.monotonic() + RETRY_DELAY
                EDGE_BINDINGS.labels("redis_unavailable").inc()
            else:
                EDGE_BINDINGS.labels("withdrawn").inc()
        return self._set_cookie_header(scope, "", 0)

    def _set_cookie_header(self, scope: "Scope", value: str, max_age: int) -> str:
        secure = "; Secure" if is_https(scope, self._settings) else ""
        return f"{COOKIE_NAME}={value}; Max-Age={max_age}; Path=/; HttpOnly; SameSite=Lax{secure}"

    async def find_foreign_ids(self, scope: "Scope", anonymous_ids: Sequence[str]) -> frozenset[str]:
        """Return the ids that are bound to another browser; all unproven ids while Redis is unavailable.

        Visitors of a cross-site shop are never bound, so their ids are not affected.
        """
        proven = self.read_binding(scope)
        unproven = [name for name in dict.fromkeys(anonymous_ids) if proven is None or proven.anonymous_id != name]
        if not unproven:
            return frozenset()
        try:
            found = await self._redis.mget([bound_key(self._settings.shop, name) for name in unproven])
        except (RedisError, OSError, TimeoutError):
            EDGE_BINDINGS.labels("redis_unavailable").inc()
            return frozenset(unproven)
        return frozenset(name for name, bound in zip(unproven, found, strict=True) if bound is not None)

    async def renew(self, binding: Binding) -> None:
        """Restore or extend the binding in Redis; do nothing while Redis is unavailable."""
        key, hashed = bound_key(self._settings.shop, binding.anonymous_id), nonce_hash(binding.nonce)
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.set(key, hashed, nx=True)
                pipe.expire(key, COOKIE_MAX_AGE)
                await pipe.execute()
        except (RedisError, OSError, TimeoutError):
            self._retry_at = time.monotonic() + RETRY_DELAY


def _is_browser(scope: "Scope") -> bool:
    """Return True for a browser that keeps a first-party cookie. Older browsers send no Sec-Fetch-Site header."""
    site = header(scope, b"sec-fetch-site")
    if site:
        return site != "cross-site"
    return not client.classify_user_agent(header(scope, b"user-agent"))[0]


def _cookie_values(cookie_header: str) -> list[str]:
    try:
        jar: SimpleCookie = SimpleCookie(cookie_header)
    except CookieError:
        jar = SimpleCookie()
    if COOKIE_NAME in jar:
        return [jar[COOKIE_NAME].value]
    # the standard library rejects the whole header if another cookie is invalid
    parts = (part.strip().partition("=") for part in cookie_header.split(";"))
    return [value for name, _, value in parts if name == COOKIE_NAME]
