r"""Addresses: where a person can be written to, as their traits say it, and as nobody can abuse it.

An address is used only if it looks like one: text from outside may carry line breaks (another header of the mail),
quotes, commas (another recipient), a leading dash (an option of some program). What does not look like an address is
none. An address that bounced for good is given up; another one of the same person is not.

>>> from state.person import Trait
>>> facts = Facts(traits={"email": Trait(1, "ann@example.com"), "phone": Trait(1, "+39 333 123-4567")})
>>> addresses(Person("u:ann"), facts)
{'email': 'ann@example.com', 'phone': '+393331234567'}
>>> reachable(Person("u:ann"), Facts(traits={"email": Trait(1, "ann@example.com\r\nBcc: all@example.com")}), "email")
''
"""

import re
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Final, NamedTuple

from state.person import Facts, Person

MAX_UNREACHABLE: Final = 20
"""Addresses of one person that are remembered as given up; the one given up longest ago gives way."""

NEEDS_NONE: Final = frozenset(("file", "webhook"))
"""Channels that need no address: who it is about is enough."""

_EMAIL = re.compile(
    r"(?=[^@]{1,64}@)(?![-.])(?!.*\.[.@])[\w.+'&*/=?^~#-]+"
    r"@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+(?:[^\W\d_]{2,63}|xn--[A-Za-z0-9-]{2,59})")
_PHONE = re.compile(r"\+?[0-9]{6,15}")
_TOKEN = re.compile(r"[A-Za-z0-9_:.+/=-]{16,255}")
_CHAT = re.compile(r"[A-Za-z0-9_@+][A-Za-z0-9_@.:+-]{0,127}")
_BETWEEN = str.maketrans("", "", " -.()/")


def email(text: str) -> str:
    """An e-mail address, or nothing.

    >>> email(" Ann.O'Neil+shop@mail.example.com "), email("ann@localhost"), email("a@x.it,b@x.it"), email("-x@x.it")
    ("Ann.O'Neil+shop@mail.example.com", '', '', '')
    """
    text = text.strip(" ")
    return text if len(text) <= 254 and _EMAIL.fullmatch(text) else ""


def phone(text: str) -> str:
    """A telephone number without what people put between its digits, or nothing.

    >>> phone("0039 (333) 123-4567"), phone("call me"), phone("+1;ext=5")
    ('+393331234567', '', '')
    """
    number = text.translate(_BETWEEN)
    if number.startswith("00"):
        number = "+" + number[2:]
    return number if len(text) <= 40 and _PHONE.fullmatch(number) else ""


def token(text: str) -> str:
    """What a push service gave the app to be reached by, or nothing. One that was cut off is none.

    >>> token("fcm:APA91bHun4MxP5egoKMwt2"), token("short"), token("x" * 256)
    ('fcm:APA91bHun4MxP5egoKMwt2', '', '')
    """
    return text if _TOKEN.fullmatch(text) else ""


def chat(text: str) -> str:
    """An id or a number in a chat, or nothing."""
    return text if _CHAT.fullmatch(text) else ""


class _Kind(NamedTuple):
    """How an address is called in a message, which traits hold it, and what it looks like."""

    name: str
    traits: tuple[str, ...]
    read: Callable[[str], str]


KINDS: Final[Mapping[str, _Kind]] = {
    "email": _Kind("email", ("email",), email),
    "sms": _Kind("phone", ("phone",), phone),
    "push": _Kind("push", ("push_token",), token),
    "chat": _Kind("chat", ("chat_id",), chat),
}
"""By channel."""


def address_of(facts: Facts, channel: str) -> str:
    """The address on a channel as the traits have it, whether or not it was given up; "" when there is none."""
    kind = KINDS.get(channel)
    if kind is None:
        return ""
    for name in kind.traits:
        trait = facts.traits.get(name)
        if trait is not None and isinstance(trait.value, (str, int)) and not isinstance(trait.value, bool):
            return kind.read(str(trait.value))
    return ""


def mark(address: str) -> str:
    """A short hash of an address: enough to know it again, too little to write to.

    >>> mark("Ann@example.com") == mark("ann@example.com"), len(mark("ann@example.com")), mark("")
    (True, 8, '')
    """
    return blake2b(address.lower().encode("utf-8", "replace"), digest_size=4).hexdigest() if address else ""


def gone(person: Person, channel: str, marked: str) -> bool:
    """Whether this address was given up."""
    return bool(person.unreachable) and f"{channel}:{marked}" in person.unreachable


def give_up(person: Person, channel: str, marked: str, at: int) -> None:
    """An address that does not exist (any more): nobody writes to it again.

    >>> ann = Person("u:ann")
    >>> give_up(ann, "email", mark("ann@example.com"), 5); gone(ann, "email", mark("ANN@example.com"))
    True
    """
    name = f"{channel}:{marked}"
    person.unreachable[name] = max(at, person.unreachable.get(name, 0))
    trim(person)


def trim(person: Person) -> None:
    """Forget the addresses that were given up longest ago, when there are too many."""
    given_up = person.unreachable
    while len(given_up) > MAX_UNREACHABLE:
        del given_up[min(given_up, key=lambda name: (given_up[name], name))]


def reachable(person: Person, facts: Facts, channel: str) -> str:
    """Where the person can be reached on a channel now; "" when nowhere.

    A channel that needs no address answers with the person's key.

    >>> reachable(Person("u:ann"), Facts(), "webhook"), reachable(Person("u:ann"), Facts(), "email")
    ('u:ann', '')
    """
    if channel in NEEDS_NONE:
        return person.id
    address = address_of(facts, channel)
    return "" if address and gone(person, channel, mark(address)) else address


def why_not(person: Person, facts: Facts, channel: str) -> tuple[str, str]:
    """Why a person cannot be reached on a channel, as (reason, detail); ("", "") when they can.

    >>> why_not(Person("u:ann"), Facts(), "email")
    ('no_address', 'no email is known, or it is not one')
    """
    if reachable(person, facts, channel):
        return "", ""
    if address_of(facts, channel):
        return "unreachable", f"messages to their {KINDS[channel].name} come back"
    return "no_address", f"no {KINDS[channel].name if channel in KINDS else channel} is known, or it is not one"


def addresses(person: Person, facts: Facts) -> dict[str, str]:
    """Every address that may be used, by its name in a message."""
    found = {kind.name: reachable(person, facts, channel) for channel, kind in KINDS.items()}
    return {name: address for name, address in found.items() if address}
