r"""Check of scenarios: unknown names and rows without effect, before a scenario runs.

>>> from domain.playbook.scenario import parse_scenarios
>>> scenarios, _ = parse_scenarios("a.md", "# A\n| at | step | name |\n|---|---|---|\n| 0s | does | Page Viewd |")
>>> print(check_scenario(scenarios[0], Playbook())[0])
a.md, line 4, name: there is no event "Page Viewd"; did you mean "Page Viewed"?
"""

import re
from collections.abc import Collection, Iterator
from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from domain.diagnostics import Diagnostic
from domain.event import did_you_mean
from domain.playbook.campaign import OFFSITE_FORMATS, ONSITE_FORMATS
from domain.playbook.playbook import Playbook
from domain.playbook.renamed_fields import RENAMED_RUN_STATES
from domain.playbook.scenario import STEP_ACTIONS, DetailValue, Scenario, ScenarioRow
from domain.playbook.schema import SUPPRESSION_REASONS
from domain.validation import names
from domain.validation.names import PlaybookNames

DEFAULT_PERSON = "Ann"
"""The person of rows without a name."""
LOGS_IN = "logs in"
FEEDBACK_PREFIXES = ("Message ", "Offer ")
"""Prefixes of feedback events."""
UNTIMED_ROWS = ("given", "not shown", "is in", "is not in", "nothing")
"""Rows without a time of their own: preconditions, and expectations about a period."""

DEVICES = ("desktop", "mobile", "tablet", "phone", "computer")
CONSENT_ANSWERS = ("granted", "denied", "yes", "no", "true", "false", "refused")
COUPON_STATES = ("reserved", "redeemed", "expired", "released")
RUN_STATES = ("entered", "exited", "finished", "goal", "step")
CONTENT_PARTS = ("title", "body", "button", "url", "image", "coupon", "discount")
"""Parts of the content that can be compared: `title contains …`, `discount lacks …`."""
CAMPAIGN_DETAILS = ("as", "by", *CONTENT_PARTS, "variant", "because")
"""First words of the details of a campaign row."""

ASSUMED_EVENTS = ("Offer Shown", "Offer Suppressed", "Message Delivered", "Message Suppressed")
"""Feedback that the engine of a scenario assumes; rows cannot send it."""

_ColumnErrors = Iterator[tuple[str, str]]


def check_scenario(scenario: Scenario, playbook: Playbook) -> list[Diagnostic]:
    """Return all errors of a scenario."""
    symbols = PlaybookNames(playbook, {})
    people = {row.person or DEFAULT_PERSON for row in scenario.rows if row.step in ("does", "given")}
    actors = {row.person or DEFAULT_PERSON for row in scenario.rows if row.step == "does"}
    preconditions: dict[tuple[str, str], int] = {}
    found, clock = [], 0
    for row in scenario.rows:
        if row.step in STEP_ACTIONS:
            clock = clock if row.at is None else row.at
        elif row.step in UNTIMED_ROWS and row.at not in (None, clock if row.step != "given" else 0):
            found.append(
                Diagnostic(
                    scenario.file,
                    row.line,
                    "at",
                    (
                        "a `given` row applies from the start: leave `at` empty"
                        if row.step == "given"
                        else f"`{row.step}` covers the whole time since the last `does` or `time passes` row: leave "
                        f"`at` empty, "
                        "or add a `time passes` row first"
                    ),
                )
            )
        if row.step == "given" and (line := preconditions.setdefault((row.person, row.name), row.line)) != row.line:
            found.append(Diagnostic(scenario.file, row.line, "name", f"{row.name} is already given in line {line}"))
        if row.step in ("is in", "is not in") and not row.person and actors and DEFAULT_PERSON not in actors:
            found.append(
                Diagnostic(
                    scenario.file,
                    row.line,
                    "person",
                    (
                        f"is missing: {DEFAULT_PERSON} does nothing in this scenario; its people are "
                        f"{', '.join(sorted(actors))}"
                    ),
                )
            )
        found += [Diagnostic(scenario.file, row.line, field, text) for field, text in _check_row(row, symbols)]
        if row.person and row.person not in people:
            found.append(
                Diagnostic(
                    scenario.file,
                    row.line,
                    "person",
                    f"{row.person} does nothing in this scenario"
                    + (did_you_mean(row.person, people) or f"; its people are {', '.join(sorted(people))}"),
                )
            )
    return found


def _check_row(row: ScenarioRow, symbols: PlaybookNames) -> _ColumnErrors:
    if row.step == "given":
        yield from _check_given(row, symbols)
    elif row.step == "does":
        yield from _check_action(row, symbols)
    elif row.step in ("shown", "not shown", "suppressed", "preloaded", "cancelled", "message"):
        yield from _check_campaign_row(row, symbols)
    elif row.step in ("enters", "exits", "is in", "is not in"):
        yield from (("name", text) for _, text in symbols.check_segment_name((), row.name))
        yield from _check_no_details(row)
    elif row.step == "coupon":
        yield from (("name", text) for _, text in symbols.check_pool_name((), row.name))
        yield from _check_choices(row.details, COUPON_STATES)
    elif row.step == "workflow":
        yield from _check_workflow_row(row, symbols)
    else:
        if row.name:
            yield (
                "name",
                (
                    "`nothing` covers all campaigns; for one campaign use `not shown`"
                    if row.step == "nothing"
                    else f"`{row.step}` has no value in this column: leave it empty"
                ),
            )
        yield from _check_no_details(row)


# -- preconditions and actions -------------------------------------------------------------------------------


def given_value(row: ScenarioRow) -> DetailValue:
    """Return the value of a `given` row; empty if there is none."""
    return row.details[0] if row.details else next(iter(row.values.values()), "")


def _check_given(row: ScenarioRow, symbols: PlaybookNames) -> _ColumnErrors:
    name, _, about = row.name.partition(" ")
    value = str(given_value(row))
    if not value:
        yield "details", "is missing: write the value in the column `details`"
    elif name in ("trait", "consent") and not about:
        yield "name", f"needs a name: `{name} {'first_name' if name == 'trait' else 'email:marketing'}`"
    elif name == "consent":
        yield from (("name", text) for _, text in symbols.check_consent_name((), about))
        if value.lower() not in CONSENT_ANSWERS:
            yield "details", f'should be granted or denied, is "{value}"'
    elif name == "country":
        yield from (("details", error) for error in (names.country_error(value),) if error)
    elif name == "device":
        yield from _check_choices((value,), DEVICES)
    elif name == "score" and (re.fullmatch(r"[01]|0?\.\d+|1\.0+", value) is None):
        yield "details", f'should be the probability of an order, a number between 0 and 1, is "{value}"'
    elif name == "start" and not _is_timestamp(value):
        yield "details", f'should be a date and a time such as 2026-03-02 10:00, is "{value}"'
    elif name == "timezone" and not _is_time_zone(value):
        yield "details", f'there is no time zone "{value}"; write a name such as Europe/Rome'


def _is_timestamp(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _is_time_zone(text: str) -> bool:
    try:
        ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def _check_action(row: ScenarioRow, symbols: PlaybookNames) -> _ColumnErrors:
    if row.name in ASSUMED_EVENTS:
        yield "name", "has no effect: campaigns count as seen at once, and messages as delivered"
    elif row.name != LOGS_IN:
        yield from (("name", text) for _, text in symbols.check_event_name((), row.name))
    elif "customer" not in row.values and "user" not in row.values:
        yield "details", "needs the customer id: customer=ann-1"
    if row.name.startswith(FEEDBACK_PREFIXES) and not {"campaign", "message_id", "action_id"} & row.values.keys():
        yield "details", "needs the campaign: campaign=NAME"
    for detail in row.details:
        yield "details", f'"{detail}" is not a property: write name=value, separated by commas'
    for name, value in row.values.items():
        if name == "campaign" and row.name.startswith(FEEDBACK_PREFIXES):
            yield from (("details", text) for _, text in symbols.check_campaign_name((), str(value)))
        elif name == "coupon" and isinstance(value, str) and (pool := re.fullmatch(r"\{(.*)\}", value)):
            yield from (("details", text) for _, text in symbols.check_pool_name((), pool[1]))


# -- expectations ------------------------------------------------------------------------------------------


def _check_campaign_row(row: ScenarioRow, symbols: PlaybookNames) -> _ColumnErrors:
    one = symbols.campaigns_by_name.get(row.name)
    if one is None:
        yield from (("name", text) for _, text in symbols.check_campaign_name((), row.name))
        return
    if row.step == "shown" and not one.on_site:
        yield "step", f"{row.name} is sent by {one.format}: use `message`"
    elif row.step == "message" and one.on_site:
        yield "step", f"{row.name} is shown on the site as {one.format}: use `shown`"
    elif row.step == "preloaded" and not one.trigger.exit_intent:
        yield "step", f"{row.name} has no exit_intent trigger, and only exit offers are preloaded: use `shown`"
    for name, value in row.values.items():
        yield "details", f'"{name}={value}" has no effect here; did you mean "title contains {value}"?'
    if row.step in ("not shown", "cancelled"):
        yield from _check_no_details(row)
        return
    for detail in row.details:
        word, _, rest = detail.partition(" ")
        if word in ("as", "by"):
            yield from _check_choices((rest,), (*ONSITE_FORMATS, *OFFSITE_FORMATS))
        elif word in CONTENT_PARTS:
            verb, _, part = rest.partition(" ")
            if verb not in ("contains", "lacks") or not part.strip(' "'):
                yield "details", f'should be written as "{word} contains …" or "{word} lacks …", is "{detail}"'
            elif word == "discount" and not one.on_site:
                yield "details", f"only on-site campaigns have a discount: {row.name} is sent by {one.format}"
        elif word == "variant":
            yield from _check_choices(
                rest.split("/"), (*one.variants, "holdout", "default", *DEVICES[:3]), f"{row.name} has no variant"
            )
        elif word == "because":
            if not rest:
                yield "details", "needs a reason, for example: because campaign_cap"
            elif rest not in SUPPRESSION_REASONS and rest.partition(" ")[0] != "missing":
                yield (
                    "details",
                    f'there is no reason "{rest}"'
                    + (did_you_mean(rest, SUPPRESSION_REASONS) or "; they are listed at the end of docs/playbook.md"),
                )
        else:
            yield (
                "details",
                f'unknown detail "{detail}"'
                + (
                    did_you_mean(word, CAMPAIGN_DETAILS)
                    or f"; possible are as FORMAT, by CHANNEL, variant NAME, because REASON, and "
                    f"… contains …, … lacks … of {', '.join(CONTENT_PARTS)}"
                ),
            )


def _check_workflow_row(row: ScenarioRow, symbols: PlaybookNames) -> _ColumnErrors:
    flows = {flow.name: flow for flow in symbols.playbook.workflows}
    flow = flows.get(row.name)
    if flow is None:
        yield "name", f'there is no workflow "{row.name}"{did_you_mean(row.name, flows)}'
        return
    ids = [flow.step_id(n) for n in range(len(flow.steps))]
    for detail in row.details:
        word, _, rest = detail.partition(" ")
        if word == "step":
            yield from _check_choices((rest,), ids, f"{row.name} has no step")
        elif word == "goal" and rest:
            goals = [step.goal for step in flow.steps if step.goal]
            yield from _check_choices((rest,), goals or ("none",), f"{row.name} has no goal")
        else:
            if word in RENAMED_RUN_STATES:
                yield "details", f'unknown detail "{word}"; it is now called "{RENAMED_RUN_STATES[word]}"'
            else:
                yield from _check_choices((word,), RUN_STATES)


def _check_no_details(row: ScenarioRow) -> _ColumnErrors:
    if row.details or row.values:
        yield "details", f"`{row.step}` has no value in this column: leave it empty"


def _check_choices(values: Collection[str], allowed: Collection[str], prefix: str = "there is no") -> _ColumnErrors:
    for word in values:
        if word not in allowed:
            yield "details", f'{prefix} "{word}"{did_you_mean(word, allowed) or "; possible are " + ", ".join(allowed)}'
