"""Former names of playbook fields, values and scenario words, so that an error can name the current one.

>>> current_name(Step, "patience"), current_name(Step, "send")
('timeout', '')
"""

from typing import Any, Final

import msgspec

from domain.playbook.campaign import Campaign, FrequencyCaps, Variant
from domain.playbook.condition import Condition, Has, HoldsCoupon, InSession, PropertyFilter, Rfm
from domain.playbook.coupon import CouponPool
from domain.playbook.segment import Segment
from domain.playbook.shop import QuietHours, RfmSettings, Shop
from domain.playbook.trigger import EntryTrigger, Trigger
from domain.playbook.workflow import Branch, Step, WaitFor, Workflow

RENAMED_FIELDS: Final[dict[type[msgspec.Struct], dict[str, str]]] = {
    Shop: {
        "rates": "exchange_rates",
        "limits": "frequency_caps",
        "pressure": "contact_pressure",
        "events": "custom_events",
    },
    QuietHours: {"begin": "start"},
    RfmSettings: {"learned": "quintiles", "money": "monetary"},
    Campaign: {"disarm_on": "cancel_on", "limits": "frequency_caps", "urgent": "ignore_quiet_hours"},
    FrequencyCaps: {"every": "min_interval"},
    Variant: {"share": "weight"},
    Trigger: {"left_segment": "exited_segment"},
    EntryTrigger: {"left_segment": "exited_segment"},
    Segment: {"leave_on": "exit_on", "stays": "expires_after"},
    Condition: {"was_said": "was_shown"},
    Has: {"known": "identified", "visits_at_least": "sessions_at_least"},
    InSession: {"first_visit": "first_session"},
    HoldsCoupon: {"ends_within": "expires_within"},
    Rfm: {"money_at_least": "monetary_at_least", "money_at_most": "monetary_at_most"},
    PropertyFilter: {"begins_with": "starts_with", "known": "exists"},
    Workflow: {
        "enters": "enter_on",
        "leaves": "exit_when",
        "leaves_on": "exit_on",
        "again": "reentry",
        "again_after": "reentry_after",
        "at_once": "max_concurrent_runs",
        "when_changed": "on_change",
    },
    Step: {
        "patience": "timeout",
        "otherwise": "else",
        "go": "goto",
        "tag": "add_to_segment",
        "untag": "remove_from_segment",
        "set": "set_traits",
    },
    WaitFor: {"within": "timeout", "otherwise": "else"},
    Branch: {"go": "goto"},
    CouponPool: {"once": "once_per_person", "not_with": "not_combinable_with"},
}
"""Former field name to current field name, by the table that has the field."""

RENAMED_VALUES: Final = {"leave": "exit"}
"""Former value of `on_change` to the current one."""

RENAMED_COLUMNS: Final = {"who": "person", "what": "step", "which": "name"}
RENAMED_STEPS: Final = {"held": "suppressed", "armed": "preloaded", "taken back": "cancelled", "leaves": "exits"}
RENAMED_PRECONDITIONS: Final = {"starts": "start"}
RENAMED_RUN_STATES: Final = {"left": "exited"}
"""Former words of scenario tables: column headings, steps, names in a `given` row, details of a `workflow` row."""


def current_name(struct: Any, field: str) -> str:
    """The current name of a former field of a table; empty if the field has no former name."""
    return RENAMED_FIELDS.get(struct, {}).get(field, "")
