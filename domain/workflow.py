"""Workflows: a conversation over days. A person enters, goes from step to step, waits, and leaves.

    enters = { segment = "cart_left_behind" }
    leaves = { did = { event = "Order Completed", within = "1h" } }

    [[steps]]
    send = "cart_mail"
    [[steps]]
    wait_for = { event = "Message Opened", within = "2d", otherwise = "text" }
    ...

Steps follow each other; `go` and the branches name the `id` of another step.
"""

from hashlib import sha256
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from domain.condition import Condition, Text, Value, Values
from domain.duration import Duration
from domain.trigger import Name, Occasion

Clock = Annotated[str, Meta(pattern=r"^([01]\d|2[0-3]):[0-5]\d$", description='a time of day, "09:30"')]
Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
Weight = Annotated[float, Meta(gt=0, le=1_000)]
MOST_STEPS = 200


class WaitUntil(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The next time it is this time of day, or this day of the week, or both, in the person's time zone."""

    time: Annotated[Clock | None, Meta(description='the time of day, "09:30"; left out: midnight')] = None
    weekday: Annotated[
        Weekday | tuple[Weekday, ...] | None,
        Meta(description="the day of the week (of a list: the first that comes)")] = None


class WaitFor(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Until an event happens or a condition holds (exactly one of `event`, `when`); or until time is up."""

    event: Annotated[Text | None, Meta(description="this event happens, from now on")] = None
    where: Annotated[Values, Meta(description="with these properties (only with `event`)")] = {}
    when: Annotated[Condition | None, Meta(description="this becomes true of the person (or is already)")] = None
    within: Annotated[Duration, Meta(description="how long to wait at most")] = "30d"
    then: Annotated[
        Name | None, Meta(description="the step to go on with when it happens; left out: the next one")] = None
    otherwise: Annotated[
        Name | None, Meta(description="the step to go on with when time is up; left out: the next one")] = None


class Way(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One way of a branch: the first one whose condition holds is taken."""

    when: Annotated[Condition, Meta(description="who takes this way")]
    go: Annotated[Name, Meta(description="the step it leads to")]


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One step: exactly one thing to do. `id` is a name for others to `go` to; `go` says where to go on (left out: to
    the next one).
    """

    id: Annotated[
        Name | None, Meta(description="its name, unique in the workflow; left out: `step_1`, `step_2`, …")] = None
    wait: Annotated[Duration | None, Meta(description="wait this long")] = None
    wait_until: Annotated[WaitUntil | None, Meta(description="wait for a time of day or a day of the week")] = None
    wait_for: Annotated[WaitFor | None, Meta(description="wait for something to happen")] = None
    branch: Annotated[tuple[Way, ...], Meta(max_length=20, description="ways by condition; none holds: go on")] = ()
    split: Annotated[
        dict[Name, Weight],
        Meta(max_length=20, description="ways by chance, the same for a person every time: { step_id = weight }")
    ] = {}
    send: Annotated[Name | None, Meta(description="say this campaign (its trigger is { workflow = true })")] = None
    patience: Annotated[
        Duration | None,
        Meta(description="with `send`: how long to try again while it is held back (nobody on the site, quiet "
             "hours, limits)")
    ] = None
    otherwise: Annotated[
        Name | None, Meta(description="with `send`: the step to go on with when it was held for good")] = None
    tag: Annotated[Name | None, Meta(description="put the person into this static segment")] = None
    untag: Annotated[Name | None, Meta(description="take the person out of this static segment")] = None
    set: Annotated[dict[Text, Value], Meta(max_length=20, description="set traits of the person")] = {}
    coupon: Annotated[Name | None, Meta(description="reserve a coupon of this pool for the person")] = None
    goal: Annotated[Name | None, Meta(description="note that a goal of this name was reached")] = None
    exit: Annotated[bool, Meta(description="the end")] = False
    go: Annotated[Name | None, Meta(description="the step to go on with")] = None

    @property
    def kind(self) -> str:
        """What it does; empty unless exactly one thing (a step with nothing but `go` is a `go`)."""
        given = [name for name in STEP_KINDS if getattr(self, name)]
        if not given and self.go:
            return "go"
        return given[0] if len(given) == 1 else ""


STEP_KINDS = ("wait", "wait_until", "wait_for", "branch", "split", "send", "tag", "untag", "set", "coupon",
              "goal", "exit")


class Workflow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Who enters, what happens then, and what ends it."""

    name: Name
    enters: Annotated[
        Occasion | tuple[Occasion, ...], Meta(description="what makes a person enter (of a list: any of it)")]
    steps: Annotated[tuple[Step, ...], Meta(min_length=1, max_length=MOST_STEPS, description="one after another")]
    description: Annotated[str, Meta(max_length=2_000, description="what it is for, in your words")] = ""
    leaves: Annotated[
        Condition | None,
        Meta(description="who leaves at once, wherever they are: at the very moment this becomes true")] = None
    leaves_on: Annotated[tuple[Text, ...], Meta(max_length=20, description="events that make them leave at once")] = ()
    again: Annotated[
        Literal["never", "after", "always"],
        Meta(description="whether a person who went through may enter again: `after` waits `again_after` since they "
             "left; nobody is in the same workflow twice at a time unless `at_once` allows it"),
    ] = "never"
    again_after: Annotated[Duration, Meta(description="with again = \"after\"")] = "30d"
    at_once: Annotated[
        Annotated[int, Meta(ge=1, le=10)], Meta(description="how many times one person may be in it at a time")] = 1
    when_changed: Annotated[
        Literal["finish", "move", "leave"],
        Meta(description="people who are in it when it is changed: finish the one they began, move to the step of "
             "the same id, or leave"),
    ] = "finish"

    @property
    def occasions(self) -> tuple[Occasion, ...]:
        """What makes a person enter."""
        return self.enters if isinstance(self.enters, tuple) else (self.enters,)

    def id_of(self, n: int) -> str:
        """The name of the n-th step (from 0)."""
        return self.steps[n].id or f"step_{n + 1}"


_encode = msgspec.json.Encoder(order="sorted").encode


def version_of(workflow: Workflow) -> str:
    """A short hash of what those who are in it live by: its steps and what makes them leave.

    Who else may enter, how it is described, and what is to become of them when it changes makes no new version.

    >>> one = msgspec.convert({"name": "w", "enters": {"event": "Cart Viewed"}, "steps": [{"wait": "1h"}]}, Workflow)
    >>> version_of(one) == version_of(msgspec.structs.replace(one, again="always", description="x"))
    True
    >>> version_of(one) == version_of(msgspec.structs.replace(one, leaves_on=("Order Completed",)))
    False
    """
    lived = (workflow.name, workflow.steps, workflow.leaves, workflow.leaves_on)
    return sha256(_encode(lived)).hexdigest()[:12]
