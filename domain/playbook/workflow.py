"""Workflows: a sequence of steps over days. A person enters, runs through the steps, and exits.

    enter_on = { segment = "cart_left_behind" }
    exit_when = { did = { event = "Order Completed", within = "1h" } }

    [[steps]]
    send = "cart_mail"
    [[steps]]
    wait_for = { event = "Message Opened", timeout = "2d", else = "text" }
    ...

The steps run in order; `goto` and the branches name the `id` of another step.
"""

from hashlib import sha256
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, field

from domain.duration import Duration
from domain.playbook.condition import Condition, PropertyMatch, Text, Value
from domain.playbook.trigger import EntryTrigger, Name

TimeOfDay = Annotated[str, Meta(pattern=r"^([01]\d|2[0-3]):[0-5]\d$", description='a time of day, "09:30"')]
Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
SplitWeight = Annotated[float, Meta(gt=0, le=1_000)]
MAX_STEPS = 200


class WaitUntil(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Wait until a time of day, a day of the week, or both, in the person's time zone."""

    time: Annotated[TimeOfDay | None, Meta(description='the time of day, "09:30"; default: midnight')] = None
    weekday: Annotated[
        Weekday | tuple[Weekday, ...] | None, Meta(description="the day of the week (list: the next one of them)")
    ] = None


class WaitFor(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Wait for an event or a condition (exactly one of `event`, `when`), at most until the timeout."""

    event: Annotated[Text | None, Meta(description="this event happens after the step is reached")] = None
    where: Annotated[PropertyMatch, Meta(description="the event has these properties (only with `event`)")] = {}
    when: Annotated[Condition | None, Meta(description="this becomes true of the person, or is true already")] = None
    timeout: Annotated[Duration, Meta(description="the maximum time to wait")] = "30d"
    then: Annotated[Name | None, Meta(description="the step that follows when it happens; default: the next step")] = (
        None
    )
    else_: "Annotated[Name | None, Meta(description='the step that follows the timeout; default: the next step')]" = (
        field(default=None, name="else")
    )


class Branch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One branch. The first branch whose condition is true is taken."""

    when: Annotated[Condition, Meta(description="who takes this branch")]
    goto: Annotated[Name, Meta(description="the step that follows")]


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One step with exactly one action. `goto` names the step that follows; default: the next step."""

    id: Annotated[Name | None, Meta(description="its name, unique in the workflow; default: `step_1`, `step_2`, …")] = (
        None
    )
    wait: Annotated[Duration | None, Meta(description="wait this long")] = None
    wait_until: Annotated[WaitUntil | None, Meta(description="wait for a time of day or a day of the week")] = None
    wait_for: Annotated[WaitFor | None, Meta(description="wait for something to happen")] = None
    branch: Annotated[
        tuple[Branch, ...],
        Meta(max_length=20, description="paths by condition; if none is true, the next step follows"),
    ] = ()
    split: Annotated[
        dict[Name, SplitWeight],
        Meta(max_length=20, description="random paths, always the same for a person: { step_id = weight }"),
    ] = {}
    send: Annotated[Name | None, Meta(description="send this campaign (its trigger is { workflow = true })")] = None
    timeout: Annotated[
        Duration | None,
        Meta(
            description="with `send`: how long to retry while the campaign is suppressed (not on the site, quiet "
            "hours, caps)"
        ),
    ] = None
    else_: "Annotated[Name | None, Meta(description='with `send`: the step that follows if nothing was sent')]" = field(
        default=None, name="else"
    )
    add_to_segment: Annotated[Name | None, Meta(description="add the person to this static segment")] = None
    remove_from_segment: Annotated[Name | None, Meta(description="remove the person from this static segment")] = None
    set_traits: Annotated[dict[Text, Value], Meta(max_length=20, description="set traits of the person")] = {}
    coupon: Annotated[Name | None, Meta(description="reserve a coupon of this pool for the person")] = None
    goal: Annotated[Name | None, Meta(description="record that a goal of this name was reached")] = None
    exit: Annotated[bool, Meta(description="end the run")] = False
    goto: Annotated[Name | None, Meta(description="the step that follows")] = None

    @property
    def kind(self) -> str:
        """The action of the step; empty unless there is exactly one. A step with only `goto` is a `goto`."""
        given = [name for name in STEP_KINDS if getattr(self, name)]
        if not given and self.goto:
            return "goto"
        return given[0] if len(given) == 1 else ""


STEP_KINDS = (
    "wait",
    "wait_until",
    "wait_for",
    "branch",
    "split",
    "send",
    "add_to_segment",
    "remove_from_segment",
    "set_traits",
    "coupon",
    "goal",
    "exit",
)


class Workflow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Who enters, the steps, and what ends a run."""

    name: Name
    enter_on: Annotated[
        EntryTrigger | tuple[EntryTrigger, ...], Meta(description="what makes a person enter (list: any of them)")
    ]
    steps: Annotated[tuple[Step, ...], Meta(min_length=1, max_length=MAX_STEPS, description="the steps, in order")]
    description: Annotated[str, Meta(max_length=2_000, description="a note for your team")] = ""
    exit_when: Annotated[
        Condition | None, Meta(description="a run ends at the moment this becomes true, at whatever step it is")
    ] = None
    exit_on: Annotated[tuple[Text, ...], Meta(max_length=20, description="events that end a run at once")] = ()
    reentry: Annotated[
        Literal["never", "after", "always"],
        Meta(
            description="whether a person may enter again: `after` means `reentry_after` after the end of the last "
            "run. "
            "`max_concurrent_runs` limits how many runs a person has at the same time"
        ),
    ] = "never"
    reentry_after: Annotated[Duration, Meta(description='with reentry = "after"')] = "30d"
    max_concurrent_runs: Annotated[
        Annotated[int, Meta(ge=1, le=10)], Meta(description="how many runs one person may have at the same time")
    ] = 1
    on_change: Annotated[
        Literal["finish", "move", "exit"],
        Meta(
            description="runs that are active when the workflow changes: finish the old version, move to the step of "
            "the same "
            "id, or exit"
        ),
    ] = "finish"

    @property
    def entry_triggers(self) -> tuple[EntryTrigger, ...]:
        """The triggers that make a person enter."""
        return self.enter_on if isinstance(self.enter_on, tuple) else (self.enter_on,)

    def step_id(self, index: int) -> str:
        """Return the name of the step at `index` (from 0)."""
        return self.steps[index].id or f"step_{index + 1}"


_encode_steps = msgspec.json.Encoder(order="sorted").encode


def workflow_version(workflow: Workflow) -> str:
    """Return a short hash of the name, the steps and the exit conditions. Other fields make no new version.

    >>> one = msgspec.convert({"name": "w", "enter_on": {"event": "Cart Viewed"}, "steps": [{"wait": "1h"}]}, Workflow)
    >>> workflow_version(one) == workflow_version(msgspec.structs.replace(one, reentry="always", description="x"))
    True
    >>> workflow_version(one) == workflow_version(msgspec.structs.replace(one, exit_on=("Order Completed",)))
    False
    """
    versioned = (workflow.name, workflow.steps, workflow.exit_when, workflow.exit_on)
    return sha256(_encode_steps(versioned)).hexdigest()[:12]
