r"""Addresses of a person: parsed from traits, and suppressed after a permanent bounce.

An address is used only if it is well-formed. Text from outside may contain line breaks (mail header injection), quotes,
commas (a second recipient) or a leading dash (a program option); such text is not an address. After a permanent
bounce the address is suppressed; the other addresses of the person stay usable.

>>> from state.person.model import Trait
>>> profile = ProfileFragment(traits={"email": Trait(1, "ann@example.com"), "phone": Trait(1, "+39 333 123-4567")})
>>> reachable_addresses(Person("u:ann"), profile)
{'email': 'ann@example.com', 'phone': '+393331234567'}
>>> profile = ProfileFragment(traits={"email": Trait(1, "ann@example.com\r\nBcc: all@example.com")})
>>> reachable_address(Person("u:ann"), profile, "email")
''
"""

import re
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Final, NamedTuple

from state.person.model import Person, ProfileFragment

MAX_SUPPRESSED_ADDRESSES: Final = 20
"""Suppressed addresses stored per person; the oldest is evicted."""

ADDRESSLESS_CHANNELS: Final = frozenset(("file", "webhook"))
"""Channels without an address: the person key identifies the recipient."""

_EMAIL = re.compile(
    r"(?=[^@]{1,64}@)(?![-.])(?!.*\.[.@])[\w.+'&*/=?^~#-]+"
    r"@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+(?:[^\W\d_]{2,63}|xn--[A-Za-z0-9-]{2,59})"
)
_PHONE = re.compile(r"\+?[0-9]{6,15}")
_PUSH_TOKEN = re.compile(r"[A-Za-z0-9_:.+/=][A-Za-z0-9_:.+/=-]{15,254}")
_CHAT_ID = re.compile(r"[A-Za-z0-9_@+][A-Za-z0-9_@.:+-]{0,127}")
_PHONE_SEPARATORS = str.maketrans("", "", " -.()/")


def parse_email(text: str) -> str:
    """Return a well-formed email address, or "".

    >>> [parse_email(text) for text in (" Ann.O'Neil+shop@mail.example.com ", "ann@localhost", "a@x.it,b@x.it")]
    ["Ann.O'Neil+shop@mail.example.com", '', '']
    >>> parse_email("-x@x.it")
    ''
    """
    text = text.strip(" ")
    return text if len(text) <= 254 and _EMAIL.fullmatch(text) else ""


def parse_phone(text: str) -> str:
    """Return a phone number without separators, or "".

    >>> parse_phone("0039 (333) 123-4567"), parse_phone("call me"), parse_phone("+1;ext=5")
    ('+393331234567', '', '')
    """
    number = text.translate(_PHONE_SEPARATORS)
    if number.startswith("00"):
        number = "+" + number[2:]
    return number if len(text) <= 40 and _PHONE.fullmatch(number) else ""


def parse_push_token(text: str) -> str:
    """Return a push token, or "" if it is malformed or truncated.

    >>> parse_push_token("fcm:APA91bHun4MxP5egoKMwt2"), parse_push_token("short"), parse_push_token("x" * 256)
    ('fcm:APA91bHun4MxP5egoKMwt2', '', '')
    """
    return text if _PUSH_TOKEN.fullmatch(text) else ""


def parse_chat_id(text: str) -> str:
    """Return a chat id or phone number, or ""."""
    return text if _CHAT_ID.fullmatch(text) else ""


class _AddressType(NamedTuple):
    """The name of an address type in a message, the traits that hold it, and its parser."""

    name: str
    trait_names: tuple[str, ...]
    parse: Callable[[str], str]


ADDRESS_TYPES: Final[Mapping[str, _AddressType]] = {
    "email": _AddressType("email", ("email",), parse_email),
    "sms": _AddressType("phone", ("phone",), parse_phone),
    "push": _AddressType("push", ("push_token",), parse_push_token),
    "chat": _AddressType("chat", ("chat_id",), parse_chat_id),
}
"""Address types by channel."""


def address_of(profile: ProfileFragment, channel: str) -> str:
    """Return the address on a channel from the traits, suppressed or not; "" if unknown."""
    kind = ADDRESS_TYPES.get(channel)
    if kind is None:
        return ""
    for name in kind.trait_names:
        trait = profile.traits.get(name)
        if trait is not None and isinstance(trait.value, (str, int)) and not isinstance(trait.value, bool):
            return kind.parse(str(trait.value))
    return ""


def hash_address(address: str) -> str:
    """Return a short hash that identifies an address but cannot be used to write to it.

    >>> hash_address("Ann@example.com") == hash_address("ann@example.com"), hash_address("")
    (True, '')
    """
    return blake2b(address.lower().encode("utf-8", "replace"), digest_size=4).hexdigest() if address else ""


def is_suppressed(person: Person, channel: str, address_hash: str) -> bool:
    """Return whether this address is suppressed on this channel."""
    return bool(person.suppressed_addresses) and f"{channel}:{address_hash}" in person.suppressed_addresses


def suppress_address(person: Person, channel: str, address_hash: str, at: int) -> None:
    """Suppress an address that bounced permanently.

    >>> ann = Person("u:ann")
    >>> suppress_address(ann, "email", hash_address("ann@example.com"), 5)
    >>> is_suppressed(ann, "email", hash_address("ANN@example.com"))
    True
    """
    name = f"{channel}:{address_hash}"
    person.suppressed_addresses[name] = max(at, person.suppressed_addresses.get(name, 0))
    evict_oldest(person)


def evict_oldest(person: Person) -> None:
    """Evict the oldest suppressed addresses beyond the maximum."""
    suppressed = person.suppressed_addresses
    while len(suppressed) > MAX_SUPPRESSED_ADDRESSES:
        del suppressed[min(suppressed, key=lambda name: (suppressed[name], name))]


def reachable_address(person: Person, profile: ProfileFragment, channel: str) -> str:
    """Return the address to use on a channel; "" if there is none.

    Channels without an address return the person key.

    >>> [reachable_address(Person("u:ann"), ProfileFragment(), channel) for channel in ("webhook", "email")]
    ['u:ann', '']
    """
    if channel in ADDRESSLESS_CHANNELS:
        return person.id
    address = address_of(profile, channel)
    return "" if address and is_suppressed(person, channel, hash_address(address)) else address


def unreachable_reason(person: Person, profile: ProfileFragment, channel: str) -> tuple[str, str]:
    """Return (reason, detail) if the person cannot be reached on a channel, else ("", "").

    >>> unreachable_reason(Person("u:ann"), ProfileFragment(), "email")
    ('no_address', 'no valid email is known')
    """
    if reachable_address(person, profile, channel):
        return "", ""
    if address_of(profile, channel):
        return "suppressed_address", f"the {ADDRESS_TYPES[channel].name} bounced permanently"
    return "no_address", f"no valid {ADDRESS_TYPES[channel].name if channel in ADDRESS_TYPES else channel} is known"


def reachable_addresses(person: Person, profile: ProfileFragment) -> dict[str, str]:
    """Return every usable address, by its name in a message."""
    found = {kind.name: reachable_address(person, profile, channel) for channel, kind in ADDRESS_TYPES.items()}
    return {name: address for name, address in found.items() if address}
