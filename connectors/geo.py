"""Geography: from an address to a country, and to the network that shares a rate limit. The address goes no further."""

import ipaddress
from functools import lru_cache

import iptocc


@lru_cache(maxsize=16_384)
def country(address: str) -> str | None:
    """The ISO code of the country an address was given to by its registry; None for private and unreadable ones.

    >>> country("8.8.8.8"), country("192.168.0.1"), country("nonsense")
    ('US', None, None)
    """
    found: str | None = iptocc.country_code(address)
    return found


@lru_cache(maxsize=16_384)
def network(address: str) -> str:
    """Whom a limit per address counts together: an IPv4 address, or the /64 an IPv6 subscriber owns.

    >>> network("192.0.2.7"), network("2001:db8::7"), network("::ffff:192.0.2.7"), network("x")
    ('192.0.2.7', '2001:db8::', '192.0.2.7', '')
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Address(int(found) >> 64 << 64))


def client(peer: str, forwarded: str, trust_proxy: bool) -> str:
    """The caller's address: what our own proxy appended last to X-Forwarded-For, else the other end of the socket.

    >>> client("10.0.0.2", "6.6.6.6, 8.8.8.8", True), client("10.0.0.2", "6.6.6.6", False)
    ('8.8.8.8', '10.0.0.2')
    """
    if trust_proxy and forwarded:
        return forwarded.rpartition(",")[2].strip()
    return peer


def is_loopback(address: str) -> bool:
    """Whether the caller sits on this machine.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("10.0.0.1"), is_loopback("")
    (True, True, False, False)
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback
