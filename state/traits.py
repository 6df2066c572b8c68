"""Traits and consent as events carry them: plain values under plain names.

>>> read_traits({"plan": "gold", "address": {"city": "Roma"}, "tags": ["a"], "consent": {"marketing": "granted"}})
([('plan', 'gold'), ('address.city', 'Roma')], [('marketing', True)])
"""

from collections.abc import Mapping
from typing import Any

from domain.product import WrongField
from state.person import MAX_TEXT

Value = str | int | float | bool | None

MAX_NAME = 128
MAX_IN_ONE = 256
"""Traits in one call."""

_ANSWERS: Mapping[Any, bool] = {
    "true": True, "granted": True, "yes": True, "1": True, "false": False, "denied": False, "no": False, "0": False,
}


def read_traits(traits: Mapping[str, Any]) -> tuple[list[tuple[str, Value]], list[tuple[str, bool]]]:
    """(traits, answers about consent). A structure is read one level deep ("address.city"); lists are passed over.

    WrongField for absurd sizes, or for an answer that is neither yes nor no.
    """
    found: list[tuple[str, Value]] = []
    answers: list[tuple[str, bool]] = []
    for name, value in traits.items():
        if name == "consent" and isinstance(value, dict):
            answers = read_answers(value, "traits.consent")
        elif isinstance(value, dict):
            _name(name)
            for part, inner in value.items():
                _plain(found, f"{name}.{_name(part)}", inner)
        else:
            _plain(found, _name(name), value)
        if len(found) > MAX_IN_ONE:
            raise WrongField("traits", f"holds more than {MAX_IN_ONE} traits", "too_long")
    return found, answers


def read_answers(values: Mapping[str, Any], where: str) -> list[tuple[str, bool]]:
    """What somebody agreed to: each purpose with yes (true, "granted") or no (false, "denied").

    >>> read_answers({"marketing": False, "analytics": "granted"}, "properties")
    [('marketing', False), ('analytics', True)]
    """
    if len(values) > MAX_IN_ONE:
        raise WrongField(where, f"holds more than {MAX_IN_ONE} purposes", "too_long")
    found = []
    for purpose, answer in values.items():
        _name(purpose, where)
        yes = answer if isinstance(answer, bool) else _ANSWERS.get(str(answer)[:8].lower())
        if yes is None:
            raise WrongField(f"{where}.{purpose}", "should be true or false")
        found.append((purpose, yes))
    return found


def _name(name: str, where: str = "traits") -> str:
    if not 0 < len(name) <= MAX_NAME:
        raise WrongField(f"{where}.{name[:40]}", f"a name should have between 1 and {MAX_NAME} characters", "too_long")
    return name


def _plain(found: list[tuple[str, Value]], name: str, value: Any) -> None:
    if isinstance(value, str):
        found.append((name, value[:MAX_TEXT]))
    elif isinstance(value, bool) or value is None or isinstance(value, float):
        found.append((name, value))
    elif isinstance(value, int):
        found.append((name, value if -(1 << 63) <= value < 1 << 63 else str(value)[:MAX_TEXT]))
