"""Known names: what the parts of a playbook may refer to."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from domain.campaign import OFF_SITE
from domain.condition import BANDS, RFM_GROUPS
from domain.event_names import EVENTS, meant, offered
from domain.playbook import Playbook
from domain.problem import Path
from domain.segment import Segment

Found = Iterator[tuple[Path, str]]
"""Mistakes: (field, what is wrong)."""


class NoSuch(str):
    """What is wrong, and is wrong whatever else its file says: a name that nobody declares, a value that is none."""

    __slots__ = ()


class Finding(NamedTuple):
    """What was found: in which part ("shop" or the folder: "segments", …), of what name, in which field."""

    part: str
    name: str
    path: Path
    text: str

    @property
    def asks_the_shop(self) -> bool:
        """Whether it is about something that shop.toml does not say."""
        return isinstance(self.text, NoSuch) or "shop.toml" in self.text


PURPOSES = ("marketing", "personalization", "analytics", "service")
"""Purposes that need no declaration."""


class Known:
    """The names of one playbook. `broken` (by folder) names what cannot be read: who refers to it is not to blame."""

    def __init__(self, playbook: Playbook, broken: Mapping[str, Iterable[str]]) -> None:
        shop = playbook.shop
        self.playbook = playbook
        self.shop = shop
        self.events = EVENTS | set(shop.events)
        self.stages = tuple(stage.name for stage in shop.funnel)
        self.broken = {part: frozenset(names) for part, names in broken.items()}
        self.segment = {one.name: one for one in playbook.segments}
        self.conditions = {**self.segment, **{f"funnel_{one.name}": Segment(f"funnel_{one.name}", one.when)
                                              for one in shop.funnel}}
        """Segments whose conditions are declared, the stages of the funnel among them."""
        self.campaign = {one.name: one for one in playbook.campaigns}
        self.pools = self._with("coupons", (one.name for one in playbook.coupons))
        self.campaigns = self._with("campaigns", self.campaign)
        self.static = self._with("segments", (one.name for one in playbook.segments if one.static))
        self.tagged = {step.tag for flow in playbook.workflows for step in flow.steps}
        """Segments that a workflow puts people into; all, where a workflow cannot be read."""
        if self.broken.get("workflows"):
            self.tagged |= set(self.static)
        self.segments = self._with("segments", self.segment) | set(BANDS) | {f"funnel_{one}" for one in self.stages}
        if shop.rfm is not None:
            self.segments |= {f"rfm_{group}" for group in RFM_GROUPS}
        self.purposes = frozenset((*PURPOSES, *(
            name for name in shop.consent.purposes if ":" not in name and name not in OFF_SITE)))

    def _with(self, part: str, names: Iterable[str]) -> frozenset[str]:
        return frozenset(names) | self.broken.get(part, frozenset())

    def event_at(self, path: Path, event: str | None) -> Found:
        """That there is such an event."""
        if event is not None and event not in self.events:
            hint = meant(event, self.events) or f'; if it is your own, shop.toml names it: events = ["{event}"]'
            yield path, NoSuch(f'there is no event "{event}"{hint}')

    def segment_at(self, path: Path, name: str | None) -> Found:
        """That there is such a segment."""
        if name is None or name in self.segments:
            return
        if is_cell(name):
            if self.shop.rfm is None:
                yield path, NoSuch(f'there is no segment "{name}": shop.toml has no [rfm]')
            return
        yield path, NoSuch(f'there is no segment "{name}"{offered(name, sorted(self.segments))}')

    def static_at(self, path: Path, name: str | None) -> Found:
        """That there is such a static segment."""
        if name is None or name in self.static:
            return
        if name in self.segment:
            yield path, f'"{name}" is not static: who belongs to it follows from its `when`'
        else:
            yield path, NoSuch(f'there is no static segment "{name}"{offered(name, sorted(self.static))}')

    def pool_at(self, path: Path, name: str | None) -> Found:
        """That there is such a pool of coupons."""
        if name is not None and name not in self.pools:
            yield path, NoSuch(f'there are no coupons "{name}" in coupons/{offered(name, sorted(self.pools))}')

    def consent_at(self, path: Path, name: str) -> Found:
        """That this is something people can agree to: a purpose, a channel, or a purpose on a channel."""
        channel, colon, purpose = name.partition(":")
        if not colon:
            if name not in self.purposes and name not in OFF_SITE:
                yield path, NoSuch(f'there is no purpose "{name}"{offered(name, (*sorted(self.purposes), *OFF_SITE))}')
        elif channel in self.purposes and purpose in OFF_SITE:
            yield path, f'"{name}" is the wrong way round; did you mean "{purpose}:{channel}"?'
        elif channel not in OFF_SITE:
            yield path, NoSuch(f'there is no channel "{channel}"{offered(channel, OFF_SITE)}')
        elif purpose not in self.purposes:
            yield path, NoSuch(f'there is no purpose "{purpose}"{offered(purpose, sorted(self.purposes))}')
        elif purpose == "service":
            yield path, "`service` never needs consent, on no channel"

    def campaign_at(self, path: Path, name: str | None) -> Found:
        """That there is such a campaign."""
        if name is not None and name not in self.campaigns:
            yield path, NoSuch(f'there is no campaign "{name}"{offered(name, sorted(self.campaigns))}')


def is_cell(name: str) -> bool:
    """Whether this is the name of an RFM cell.

    >>> is_cell("rfm_543"), is_cell("rfm_678"), is_cell("rfm_champions")
    (True, False, False)
    """
    return len(name) == 7 and name.startswith("rfm_") and all(digit in "12345" for digit in name[4:])


def several(value: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """One name, several, or none, as several."""
    return () if value is None else value if isinstance(value, tuple) else (value,)
