"""Names that a playbook may refer to, and country codes.

>>> [country_error(name) for name in ("GB", "uk", "UK")]
['', 'should be a two-letter code such as "CA", is "uk"', 'there is no country "UK"; did you mean "GB"?']
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from domain.diagnostics import FieldPath
from domain.event import EVENT_NAMES, did_you_mean, did_you_mean_or_list
from domain.playbook.campaign import OFFSITE_FORMATS
from domain.playbook.condition import RFM_GROUPS, SCORE_BANDS
from domain.playbook.playbook import Playbook
from domain.playbook.segment import Segment

_ISO_3166 = (
    "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY "
    "BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK "
    "FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR "
    "IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK "
    "ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM "
    "PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF "
    "TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS XK YE YT ZA ZM ZW "
)
COUNTRY_CODES: Final = frozenset(_ISO_3166.split())
"""Assigned codes of ISO 3166, and XK (Kosovo)."""

COUNTRY_ALIASES: Final = {
    "UK": "GB",
    "EN": "GB",
    "EL": "GR",
    "JA": "JP",
    "DA": "DK",
    "CS": "CZ",
    "SP": "ES",
    "KO": "KR",
}
"""Common mistakes, some of them language codes."""


def country_error(code: str) -> str:
    """Return the error of a country code; empty if it is valid."""
    if code in COUNTRY_CODES:
        return ""
    if not (len(code) == 2 and code.isascii() and code.isalpha() and code.isupper()):
        return f'should be a two-letter code such as "CA", is "{code}"'
    return f'there is no country "{code}"' + (
        f'; did you mean "{COUNTRY_ALIASES[code]}"?' if code in COUNTRY_ALIASES else ""
    )


Findings = Iterator[tuple[FieldPath, str]]
"""Errors or warnings: (path, message)."""


class UnresolvedName(str):
    """The message of an error that does not depend on other fields: an unknown name, an invalid value."""

    __slots__ = ()


class Finding(NamedTuple):
    """An error or warning: section ("shop", or the folder: "segments", …), name of the item, path, message."""

    section: str
    name: str
    path: FieldPath
    message: str

    @property
    def depends_on_shop(self) -> bool:
        """Return whether the error can be caused by a missing field of shop.toml."""
        return isinstance(self.message, UnresolvedName) or "shop.toml" in self.message


PURPOSES = ("marketing", "personalization", "analytics", "service")
"""Predefined consent purposes."""


class PlaybookNames:
    """The names of a playbook. References to `unreadable` names (by folder) are no errors."""

    def __init__(self, playbook: Playbook, unreadable: Mapping[str, Iterable[str]]) -> None:
        shop = playbook.shop
        self.playbook = playbook
        self.shop = shop
        self.event_names = EVENT_NAMES | set(shop.custom_events)
        self.stage_names = tuple(stage.name for stage in shop.funnel)
        self.unreadable = {part: frozenset(names) for part, names in unreadable.items()}
        self.segments_by_name = {one.name: one for one in playbook.segments}
        self.condition_segments = {
            **self.segments_by_name,
            **{f"funnel_{one.name}": Segment(f"funnel_{one.name}", one.when) for one in shop.funnel},
        }
        """Segments with conditions, including the funnel stages."""
        self.campaigns_by_name = {one.name: one for one in playbook.campaigns}
        self.pool_names = self._with_unreadable("coupons", (one.name for one in playbook.coupons))
        self.campaign_names = self._with_unreadable("campaigns", self.campaigns_by_name)
        self.static_segment_names = self._with_unreadable(
            "segments", (one.name for one in playbook.segments if one.static)
        )
        self.tagged_segments = {step.add_to_segment for flow in playbook.workflows for step in flow.steps}
        """Segments that a workflow adds people to; all static segments if a workflow is unreadable."""
        if self.unreadable.get("workflows"):
            self.tagged_segments |= set(self.static_segment_names)
        self.segment_names = (
            self._with_unreadable("segments", self.segments_by_name)
            | set(SCORE_BANDS)
            | {f"funnel_{one}" for one in self.stage_names}
        )
        if shop.rfm is not None:
            self.segment_names |= {f"rfm_{group}" for group in RFM_GROUPS}
        self.purposes = frozenset(
            (*PURPOSES, *(name for name in shop.consent.purposes if ":" not in name and name not in OFFSITE_FORMATS))
        )

    def _with_unreadable(self, section: str, names: Iterable[str]) -> frozenset[str]:
        return frozenset(names) | self.unreadable.get(section, frozenset())

    def check_event_name(self, path: FieldPath, event: str | None) -> Findings:
        """Check an event name."""
        if event is not None and event not in self.event_names:
            hint = (
                did_you_mean(event, self.event_names)
                or f'; if it is your own event, name it in shop.toml: custom_events = ["{event}"]'
            )
            yield path, UnresolvedName(f'there is no event "{event}"{hint}')

    def check_segment_name(self, path: FieldPath, name: str | None) -> Findings:
        """Check a segment name."""
        if name is None or name in self.segment_names:
            return
        if is_rfm_cell(name):
            if self.shop.rfm is None:
                yield path, UnresolvedName(f'there is no segment "{name}": shop.toml has no [rfm]')
            return
        yield (
            path,
            UnresolvedName(f'there is no segment "{name}"{did_you_mean_or_list(name, sorted(self.segment_names))}'),
        )

    def check_static_segment_name(self, path: FieldPath, name: str | None) -> Findings:
        """Check the name of a static segment."""
        if name is None or name in self.static_segment_names:
            return
        if name in self.segments_by_name:
            yield path, f'"{name}" is not static: its `when` decides who is in it'
        else:
            yield (
                path,
                UnresolvedName(
                    f"there is no static segment "
                    f'"{name}"{did_you_mean_or_list(name, sorted(self.static_segment_names))}'
                ),
            )

    def check_pool_name(self, path: FieldPath, name: str | None) -> Findings:
        """Check the name of a coupon pool."""
        if name is not None and name not in self.pool_names:
            yield (
                path,
                UnresolvedName(
                    f'there is no coupon pool "{name}"{did_you_mean_or_list(name, sorted(self.pool_names))}'
                ),
            )

    def check_consent_name(self, path: FieldPath, name: str) -> Findings:
        """Check a consent name: a purpose, a channel, or channel:purpose."""
        channel, colon, purpose = name.partition(":")
        if not colon:
            if name not in self.purposes and name not in OFFSITE_FORMATS:
                yield (
                    path,
                    UnresolvedName(
                        f"there is no purpose "
                        f'"{name}"{did_you_mean_or_list(name, (*sorted(self.purposes), *OFFSITE_FORMATS))}'
                    ),
                )
        elif channel in self.purposes and purpose in OFFSITE_FORMATS:
            yield path, f'"{name}" is the wrong way round; did you mean "{purpose}:{channel}"?'
        elif channel not in OFFSITE_FORMATS:
            yield (
                path,
                UnresolvedName(f'there is no channel "{channel}"{did_you_mean_or_list(channel, OFFSITE_FORMATS)}'),
            )
        elif purpose not in self.purposes:
            yield (
                path,
                UnresolvedName(
                    f'there is no purpose "{purpose}"{did_you_mean_or_list(purpose, sorted(self.purposes))}'
                ),
            )
        elif purpose == "service":
            yield path, "`service` needs no consent on any channel"

    def check_campaign_name(self, path: FieldPath, name: str | None) -> Findings:
        """Check a campaign name."""
        if name is not None and name not in self.campaign_names:
            yield (
                path,
                UnresolvedName(
                    f'there is no campaign "{name}"{did_you_mean_or_list(name, sorted(self.campaign_names))}'
                ),
            )


def is_rfm_cell(name: str) -> bool:
    """Return whether a segment name is an RFM cell.

    >>> is_rfm_cell("rfm_543"), is_rfm_cell("rfm_678"), is_rfm_cell("rfm_champions")
    (True, False, False)
    """
    return len(name) == 7 and name.startswith("rfm_") and all(digit in "12345" for digit in name[4:])


def as_tuple(value: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """Return a value, a tuple of values or None as a tuple."""
    return () if value is None else value if isinstance(value, tuple) else (value,)
