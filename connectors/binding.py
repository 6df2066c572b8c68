"""Binding: the first browser that is seen with an anonymous id gets the cookie that proves it. Nobody gets it later.
Who withdraws consent to analytics loses it, and the id is bound to nobody.

Redis remembers which ids are bound (`bound:{shop}:{anonymous_id}` -> hash of the nonce). Without Redis nobody is bound
and events are accepted all the same.
"""

import time
from collections import OrderedDict
from collections.abc import Awaitable, Collection, Sequence
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Final, cast

from redis.exceptions import RedisError

from connectors import bots, identity_tokens
from connectors.answers import header
from connectors.identity_tokens import COOKIE, COOKIE_SECONDS, Binding
from connectors.metrics import EDGE_BINDINGS
from domain.settings import Settings

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from starlette.types import Scope

REMEMBERED: Final = 100_000
FEW: Final = 3
REST: Final = 1.0
"""Seconds without asking after Redis could not be reached, so that a dead Redis costs nobody's events time."""

_FORGET: Final = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
"""Who holds an old cookie does not unbind who was bound since."""


def bound_key(shop: str, anonymous_id: str) -> str:
    """Where Redis keeps who is bound.

    >>> bound_key("demo", "a1")
    'bound:demo:a1'
    """
    return f"bound:{shop}:{anonymous_id}"


def is_https(scope: "Scope", settings: Settings) -> bool:
    """Whether the browser spoke TLS, to us or to our proxy."""
    if settings.trust_proxy and (forwarded := header(scope, b"x-forwarded-proto")):
        return forwarded.rpartition(",")[2].strip().lower() == "https"
    return scope["scheme"] == "https" or settings.public_url.startswith("https://")


class Binder:
    """Sets and reads binding cookies."""

    def __init__(self, settings: Settings, redis: "Redis") -> None:
        self._settings, self._redis = settings, redis
        self._taken: OrderedDict[str, None] = OrderedDict()
        self._rest_until = 0.0

    def read(self, scope: "Scope") -> Binding | None:
        """The binding this browser proves with its cookie."""
        for name, text in scope["headers"]:
            if name == b"cookie" and b"attimo_bind" in text:
                for value in _values(text.decode("latin-1")):
                    found = identity_tokens.read_cookie(self._settings.secret, self._settings.shop, value)
                    if found is not None:
                        return found
        return None

    async def bind(self, scope: "Scope", anonymous_ids: Sequence[str | None]) -> str | None:
        """The Set-Cookie header for a browser that is the first with its anonymous id; None where nothing is to set.

        Of the ids in one call the last one counts (the visitor may have signed out in between); a call that names
        many is no browser's. Nor is one of a program, and a cross-site page could not keep the cookie.
        """
        found = [one for one in anonymous_ids if one]
        if not found or len(set(found)) > FEW or not _is_browser(scope):
            return None
        anonymous_id = found[-1]
        proven = self.read(scope)
        if (proven is not None and proven.anonymous_id == anonymous_id) or anonymous_id in self._taken:
            return None
        now = time.monotonic()
        if now < self._rest_until:
            return None
        nonce = identity_tokens.new_nonce()
        try:
            first = await self._redis.set(
                bound_key(self._settings.shop, anonymous_id), identity_tokens.nonce_hash(nonce), nx=True,
                ex=COOKIE_SECONDS,
            )
        except (RedisError, OSError, TimeoutError):
            self._rest_until = now + REST
            EDGE_BINDINGS.labels("unreachable").inc()
            return None
        self._taken[anonymous_id] = None
        if len(self._taken) > REMEMBERED:
            self._taken.popitem(last=False)
        EDGE_BINDINGS.labels("bound" if first else "taken").inc()
        if not first:
            return None
        value = identity_tokens.cookie_value(self._settings.secret, self._settings.shop, Binding(anonymous_id, nonce))
        return self._cookie(scope, value, COOKIE_SECONDS)

    async def unbind(self, scope: "Scope", anonymous_ids: Collection[str | None]) -> str:
        """The Set-Cookie header that ends this browser's binding; the id is forgotten too where the cookie proves it.

        A Redis that is away keeps the id, bound to a cookie that nobody has any more, until it expires.
        """
        proven = self.read(scope)
        if proven is not None and proven.anonymous_id in anonymous_ids:
            self._taken.pop(proven.anonymous_id, None)
            key = bound_key(self._settings.shop, proven.anonymous_id)
            try:
                await cast("Awaitable[int]", self._redis.eval(
                    _FORGET, 1, key, identity_tokens.nonce_hash(proven.nonce)))
            except (RedisError, OSError, TimeoutError):
                self._rest_until = time.monotonic() + REST
                EDGE_BINDINGS.labels("unreachable").inc()
            else:
                EDGE_BINDINGS.labels("withdrawn").inc()
        return self._cookie(scope, "", 0)

    def _cookie(self, scope: "Scope", value: str, seconds: int) -> str:
        secure = "; Secure" if is_https(scope, self._settings) else ""
        return f"{COOKIE}={value}; Max-Age={seconds}; Path=/; HttpOnly; SameSite=Lax{secure}"

    async def foreign(self, scope: "Scope", anonymous_ids: Sequence[str]) -> frozenset[str]:
        """Which of these ids are bound to another browser than this one. All that it cannot prove, while Redis is away.

        A cross-site shop, whose visitors are never bound, is not touched by this.
        """
        proven = self.read(scope)
        asked = [one for one in dict.fromkeys(anonymous_ids) if proven is None or proven.anonymous_id != one]
        if not asked:
            return frozenset()
        try:
            found = await self._redis.mget([bound_key(self._settings.shop, one) for one in asked])
        except (RedisError, OSError, TimeoutError):
            EDGE_BINDINGS.labels("unreachable").inc()
            return frozenset(asked)
        return frozenset(one for one, bound in zip(asked, found, strict=True) if bound is not None)

    async def renew(self, binding: Binding) -> None:
        """Tell a Redis that forgot (or nearly) that this id is bound; a Redis that is away is told next time."""
        key, kept = bound_key(self._settings.shop, binding.anonymous_id), identity_tokens.nonce_hash(binding.nonce)
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.set(key, kept, nx=True)
                pipe.expire(key, COOKIE_SECONDS)
                await pipe.execute()
        except (RedisError, OSError, TimeoutError):
            self._rest_until = time.monotonic() + REST


def _is_browser(scope: "Scope") -> bool:
    """Whether a browser is calling that would keep a first-party cookie. Older ones say nothing about the site."""
    site = header(scope, b"sec-fetch-site")
    if site:
        return site != "cross-site"
    return not bots.judge(header(scope, b"user-agent"))[0]


def _values(text: str) -> list[str]:
    try:
        jar: SimpleCookie = SimpleCookie(text)
    except CookieError:
        jar = SimpleCookie()
    if COOKIE in jar:
        return [jar[COOKIE].value]
    # another cookie on the same line may be one the standard library cannot read
    parts = (part.strip().partition("=") for part in text.split(";"))
    return [value for name, _, value in parts if name == COOKIE]
