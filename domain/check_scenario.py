r"""Check of stories: names that the playbook does not have, words that say nothing, before a story is told.

>>> from domain.scenario import read
>>> stories, _ = read("a.md", "# A\n| at | what | which |\n|---|---|---|\n| 0s | does | Page Viewd |")
>>> print(check_scenario(stories[0], Playbook())[0])
a.md, line 4, which: there is no event "Page Viewd"; did you mean "Page Viewed"?
"""

import re
from collections.abc import Collection, Iterator
from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from domain import countries
from domain.campaign import OFF_SITE, ON_SITE
from domain.event_names import meant
from domain.known import Known
from domain.playbook import Playbook
from domain.problem import Problem
from domain.reference import REASONS
from domain.scenario import MOVES, Row, Scenario, Value

SOMEBODY = "Ann"
"""Whose browser it is where a row does not say."""
LOGS_IN = "logs in"
ANSWERED = ("Message ", "Offer ")
"""How the events begin that answer what somebody was told."""
ALL_ALONG = ("given", "not shown", "is in", "is not in", "nothing")
"""Rows about everything since the story moved on, or the end of it: they have no moment of their own."""

DEVICES = ("desktop", "mobile", "tablet", "phone", "computer")
ANSWERS = ("granted", "denied", "yes", "no", "true", "false", "refused")
COUPON = ("reserved", "redeemed", "expired", "released")
WAY = ("entered", "left", "finished", "goal", "step")
PARTS = ("title", "body", "button", "url", "image", "coupon", "discount")
"""The words of a campaign, and what its coupon is worth: `title contains …`, `discount lacks …`."""
SAID = ("as", "by", *PARTS, "variant", "because")
"""First words of what can be said about a campaign."""

TAKEN_FOR_GRANTED = ("Offer Shown", "Offer Held", "Message Delivered", "Message Held")
"""Answers that no story gives: it assumes what becomes of what is said."""

_FOUND = Iterator[tuple[str, str]]


def check_scenario(story: Scenario, playbook: Playbook) -> list[Problem]:
    """Everything in a story that cannot be told, or would say nothing."""
    known = Known(playbook, {})
    people = {row.who or SOMEBODY for row in story.rows if row.what in ("does", "given")}
    doers = {row.who or SOMEBODY for row in story.rows if row.what == "does"}
    told: dict[tuple[str, str], int] = {}
    found, clock = [], 0
    for row in story.rows:
        if row.what in MOVES:
            clock = clock if row.at is None else row.at
        elif row.what in ALL_ALONG and row.at not in (None, clock if row.what != "given" else 0):
            found.append(Problem(story.file, row.line, "at", (
                "what is given holds from the beginning: leave it empty" if row.what == "given" else
                f"`{row.what}` is about all the time since the row that moved the story on: leave it empty, or let "
                "`time passes` lead there first")))
        if row.what == "given" and (line := told.setdefault((row.who, row.which), row.line)) != row.line:
            found.append(Problem(story.file, row.line, "which", f"{row.which} is given in line {line} already"))
        if row.what in ("is in", "is not in") and not row.who and doers and SOMEBODY not in doers:
            found.append(Problem(story.file, row.line, "who", (
                f"of whom? {SOMEBODY} does nothing in this story; it is about {', '.join(sorted(doers))}")))
        found += [Problem(story.file, row.line, field, text) for field, text in _row(row, known)]
        if row.who and row.who not in people:
            found.append(Problem(story.file, row.line, "who", f"{row.who} does nothing in this story"
                                 + (meant(row.who, people) or f"; it is about {', '.join(sorted(people))}")))
    return found


def _row(row: Row, known: Known) -> _FOUND:
    if row.what == "given":
        yield from _given(row, known)
    elif row.what == "does":
        yield from _does(row, known)
    elif row.what in ("shown", "not shown", "held", "armed", "taken back", "message"):
        yield from _campaign(row, known)
    elif row.what in ("enters", "leaves", "is in", "is not in"):
        yield from (("which", text) for _, text in known.segment_at((), row.which))
        yield from _nothing_more(row)
    elif row.what == "coupon":
        yield from (("which", text) for _, text in known.pool_at((), row.which))
        yield from _one_of(row.details, COUPON)
    elif row.what == "workflow":
        yield from _workflow(row, known)
    else:
        if row.which:
            yield "which", (
                "`nothing` is about all campaigns; for one of them the word is `not shown`" if row.what == "nothing"
                else f"nothing can be said about `{row.what}` here: leave it empty")
        yield from _nothing_more(row)


# -- what is given, and what they do -------------------------------------------------------------------------------


def given(row: Row) -> Value:
    """The value of a `given` row; empty when it has none."""
    return row.details[0] if row.details else next(iter(row.values.values()), "")


def _given(row: Row, known: Known) -> _FOUND:
    name, _, about = row.which.partition(" ")
    value = str(given(row))
    if not value:
        yield "details", "is missing: the value belongs into the column `details`"
    elif name in ("trait", "consent") and not about:
        yield "which", f"is missing a name: `{name} {'first_name' if name == 'trait' else 'email:marketing'}`"
    elif name == "consent":
        yield from (("which", text) for _, text in known.consent_at((), about))
        if value.lower() not in ANSWERS:
            yield "details", f'should be granted or denied, is "{value}"'
    elif name == "country":
        yield from (("details", wrong) for wrong in (countries.slip(value),) if wrong)
    elif name == "device":
        yield from _one_of((value,), DEVICES)
    elif name == "score" and (re.fullmatch(r"[01]|0?\.\d+|1\.0+", value) is None):
        yield "details", f'should be how likely they are to buy, a number between 0 and 1, is "{value}"'
    elif name == "starts" and not _is_moment(value):
        yield "details", f'should be a day and a time such as 2026-03-02 10:00, is "{value}"'
    elif name == "timezone" and not _is_zone(value):
        yield "details", f'there is no time zone "{value}"; they are called like Europe/Rome'


def _is_moment(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _is_zone(text: str) -> bool:
    try:
        ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def _does(row: Row, known: Known) -> _FOUND:
    if row.which in TAKEN_FOR_GRANTED:
        yield "which", "says nothing: what is shown counts as seen at once, what is written as delivered"
    elif row.which != LOGS_IN:
        yield from (("which", text) for _, text in known.event_at((), row.which))
    elif "customer" not in row.values and "user" not in row.values:
        yield "details", "is missing who they are: customer=ann-1"
    if row.which.startswith(ANSWERED) and not {"campaign", "message_id", "action_id"} & row.values.keys():
        yield "details", "is missing what they answer: campaign=NAME"
    for detail in row.details:
        yield "details", f'"{detail}" is no property: write name=value, with a comma between them'
    for name, value in row.values.items():
        if name == "campaign" and row.which.startswith(ANSWERED):
            yield from (("details", text) for _, text in known.campaign_at((), str(value)))
        elif name == "coupon" and isinstance(value, str) and (pool := re.fullmatch(r"\{(.*)\}", value)):
            yield from (("details", text) for _, text in known.pool_at((), pool[1]))


# -- what must come of it ------------------------------------------------------------------------------------------


def _campaign(row: Row, known: Known) -> _FOUND:
    one = known.campaign.get(row.which)
    if one is None:
        yield from (("which", text) for _, text in known.campaign_at((), row.which))
        return
    if row.what == "shown" and not one.on_site:
        yield "what", f"{row.which} is written, by {one.format}: the word is `message`"
    elif row.what == "message" and one.on_site:
        yield "what", f"{row.which} is shown on the site, as {one.format}: the word is `shown`"
    elif row.what == "armed" and not one.trigger.exit_intent:
        yield "what", f"{row.which} is no exit offer, and only those are held ready by the browser: the word is `shown`"
    for name, value in row.values.items():
        yield "details", f'"{name}={value}" says nothing here; did you mean "title contains {value}"?'
    if row.what in ("not shown", "taken back"):
        yield from _nothing_more(row)
        return
    for detail in row.details:
        word, _, rest = detail.partition(" ")
        if word in ("as", "by"):
            yield from _one_of((rest,), (*ON_SITE, *OFF_SITE))
        elif word in PARTS:
            verb, _, part = rest.partition(" ")
            if verb not in ("contains", "lacks") or not part.strip(' "'):
                yield "details", f'should be written as "{word} contains …" or "{word} lacks …", is "{detail}"'
            elif word == "discount" and not one.on_site:
                yield "details", f"only what is shown on the site tells the page of a discount: {row.which} is written"
        elif word == "variant":
            yield from _one_of(rest.split("/"), (*one.variants, "holdout", "default", *DEVICES[:3]),
                               f"{row.which} has no variant")
        elif word == "because":
            if not rest:
                yield "details", "is missing the reason: because limit, say"
            elif rest not in REASONS and rest.partition(" ")[0] != "missing":
                yield "details", f'there is no reason "{rest}"' + (
                    meant(rest, REASONS) or "; they are listed at the end of docs/playbook.md")
        else:
            yield "details", f'"{detail}" says nothing here' + (
                meant(word, SAID) or f"; possible are as FORMAT, by CHANNEL, variant NAME, because REASON, and "
                                     f"… contains …, … lacks … of {', '.join(PARTS)}")


def _workflow(row: Row, known: Known) -> _FOUND:
    flows = {flow.name: flow for flow in known.playbook.workflows}
    flow = flows.get(row.which)
    if flow is None:
        yield "which", f'there is no workflow "{row.which}"{meant(row.which, flows)}'
        return
    ids = [flow.id_of(n) for n in range(len(flow.steps))]
    for detail in row.details:
        word, _, rest = detail.partition(" ")
        if word == "step":
            yield from _one_of((rest,), ids, f"{row.which} has no step")
        elif word == "goal" and rest:
            goals = [step.goal for step in flow.steps if step.goal]
            yield from _one_of((rest,), goals or ("none",), f"{row.which} has no goal")
        else:
            yield from _one_of((word,), WAY)


def _nothing_more(row: Row) -> _FOUND:
    if row.details or row.values:
        yield "details", f"nothing can be said about `{row.what}` here: leave it empty"


def _one_of(words: Collection[str], allowed: Collection[str], no: str = "there is no") -> _FOUND:
    for word in words:
        if word not in allowed:
            yield "details", f'{no} "{word}"{meant(word, allowed) or "; possible are " + ", ".join(allowed)}'
