"""What a rehearsal found: counts that add up, however the people were dealt to processes. No person is named in it.

>>> both = Sum()
>>> both.add(Found(people=1, coupons={"a": {"reserved": 2}})); both.add(Found(people=2, coupons={"b": {"expired": 1}}))
>>> both.found().people, both.found().coupons
(3, {'a': {'reserved': 2}, 'b': {'expired': 1}})
"""

from typing import Any

import msgspec

Counts = dict[str, int]


class Holds(msgspec.Struct, frozen=True, omit_defaults=True):
    """How often something was held back for one reason, and from how many people."""

    times: int = 0
    people: int = 0


class Live(msgspec.Struct, frozen=True, omit_defaults=True):
    """What really happened in the same time: people and times decided for, people it was shown to.

    `both` got it live and get it now, `new` only now, `gone` only live.
    """

    people: int = 0
    times: int = 0
    shown_people: int = 0
    both: int = 0
    new: int = 0
    gone: int = 0


class Told(msgspec.Struct, frozen=True, omit_defaults=True):
    """One campaign. `people` got it at least once, `per_day` says how often by channel and day.

    `armed` is how often it was made ready to be shown on exit, for how many people; `also` is how many of its people
    got another campaign too; `lost_to` which campaign took its place at the same moment; `closed` how often people
    closed it by hand, `clicked` how often they followed it, as far as that is recorded of the same decision.
    """

    people: int = 0
    per_day: dict[str, Counts] = {}
    variants: Counts = {}
    armed: int = 0
    armed_people: int = 0
    taken_back: int = 0
    holds: dict[str, Holds] = {}
    also: Counts = {}
    lost_to: Counts = {}
    closed: int = 0
    clicked: int = 0
    goals: dict[str, "Goals"] = {}
    live: Live = Live()


class Goals(msgspec.Struct, frozen=True, omit_defaults=True):
    """How often the goal was reached and missed, and may still be reached at the end; of one variant.

    `worth` is what those that were reached were worth: hundredths of a number, or of the smallest unit of an amount.
    """

    reached: int = 0
    missed: int = 0
    worth: int = 0
    open: int = 0


class Belong(msgspec.Struct, frozen=True, omit_defaults=True):
    """A segment: how often people entered and left it, how many different ones entered, how many are in it at last."""

    entered: int = 0
    left: int = 0
    people: int = 0
    size: int = 0


class Chance(msgspec.Struct, frozen=True, omit_defaults=True):
    """How often a campaign's occasion came, how often its conditions held then, which statement failed how often."""

    came: int = 0
    fitted: int = 0
    failed: Counts = {}


class Leads(msgspec.Struct, frozen=True, omit_defaults=True):
    """What brings a campaign about: its occasion in words; the workflows that send it, and what lets people in."""

    occasion: str = ""
    workflows: tuple[str, ...] = ()
    segments: tuple[str, ...] = ()
    events: tuple[str, ...] = ()


class Found(msgspec.Struct, frozen=True, omit_defaults=True):
    """All that a rehearsal counted.

    `people` were there in the time that is reported; `everybody` are those and whoever was told something, or annoyed,
    without being there: shares are of them. `reached` of them were told something, `things` is how often.
    `by_things` is how many people were told how many things; `annoyed` how many for which reason (see `ANNOYED`),
    `annoyed_people` for any. `busiest` has the number of things for the one person who was told most, the most of a
    day, and how often each campaign. `decided_live` is how many decisions are recorded of the same time. `kept_out` is,
    by segment, how many people which statement kept out, of those who never entered it.
    """

    events: int = 0
    warm_up: int = 0
    people: int = 0
    everybody: int = 0
    reached: int = 0
    things: int = 0
    timers: int = 0
    by_things: Counts = {}
    busiest: tuple[int, int, tuple[tuple[str, int], ...]] = (0, 0, ())
    annoyed: Counts = {}
    annoyed_people: int = 0
    campaigns: dict[str, Told] = {}
    segments: dict[str, Belong] = {}
    workflows: dict[str, Counts] = {}
    coupons: dict[str, Counts] = {}
    rejects: Counts = {}
    passed_over: int = 0
    decided_live: int = 0
    live_reached: int = 0
    live_things: int = 0
    chances: dict[str, Chance] = {}
    kept_out: dict[str, Counts] = {}


class Heading(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was rehearsed: times in ms since 1970. `model` is "recorded", "none" or a hash; `models` are all of them.

    `leads` says what brings each campaign about; it is empty where there are too many campaigns to follow. `values` has
    the property that says what the goal of a campaign is worth.
    """

    playbook: str
    version: str
    begin: int
    end: int
    timezone: str
    currency: str
    models: tuple[str, ...] = ()
    model: str = ""
    reactions: str = "assumed"
    warm: bool = True
    campaigns: tuple[str, ...] = ()
    segments: tuple[str, ...] = ()
    workflows: tuple[str, ...] = ()
    leads: dict[str, Leads] = {}
    values: dict[str, str] = {}


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """A rehearsal, whole: what `--json` writes."""

    about: Heading
    found: Found
    v: int = 1


ANNOYED = {
    "limit": "a limit of the shop, the group or the pressure budget stopped us from saying still more",
    "day": "they were told at least {many} things within one day (slots, webhooks and files apart)",
    "closed": "they had closed an offer by hand earlier in the same visit, and were told something again",
}
"""Whom it would have annoyed: what each word means."""

MANY = 4
"""Things within one day of the shop's time zone that are too many."""

PRESSURE = frozenset({"shop_limit", "group_limit", "pressure"})
"""Reasons of holds that say: this person has been told enough."""

encode = msgspec.json.Encoder(order="sorted").encode
"""A report as canonical bytes: the same rehearsal gives the same bytes."""

decode = msgspec.json.Decoder(Report).decode


class Sum:
    """Adds up what was found: numbers add up, tables by their keys; of the busiest people the busier one stays.

    In whatever order, and however often in between, the sum is the same.
    """

    def __init__(self) -> None:
        self._total: dict[str, Any] = {}

    def add(self, found: Found) -> None:
        """Add one more."""
        _add(self._total, msgspec.to_builtins(found))

    def found(self) -> Found:
        """All of it together."""
        return msgspec.convert(self._total, Found)


def _add(total: dict[str, Any], more: dict[str, Any]) -> None:
    for name, value in more.items():
        if isinstance(value, dict):
            _add(total.setdefault(name, {}), value)
        elif isinstance(value, int):
            total[name] = total.get(name, 0) + value
        else:
            total[name] = max(total.get(name, value), value)
