"""Scenarios: tests of a playbook in Markdown, run by the engine in virtual time.

    scenarios/*.md ─▶ rows ─▶ records and timers ─▶ operators/steps.py ─▶ effects ─▶ passed or failed

The shards and steps are the live ones, over an empty store. Offers count as seen at once, messages as delivered, and a
preloaded offer as seen at the next "Exit Intent", as in a backtest (`flows/simulation/reactions.py`).

A row becomes the record that a shop would send:

>>> person = ScenarioPerson("Ann", {"country": "CA"}, {})
>>> import json
>>> row = ScenarioRow(1, "does", "Page Viewed", 0, values={"url": "/shop/"})
>>> event = json.loads(person.record(row, 5_000, 64).value)
>>> event["type"], event["anonymousId"], event["context"]["attimo"]["country"], event["context"]["page"]
('page', 'ann', 'CA', {'url': '/shop/'})
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from domain.action import Cancel, CouponEvent, Message, Preload, SegmentChange, Send, Suppress, WorkflowProgress
from domain.diagnostics import Diagnostic
from domain.duration import format_times
from domain.model import Model, ModelQuality
from domain.playbook.playbook import Playbook
from domain.playbook.scenario import STEP_ACTIONS, DetailValue, Scenario, ScenarioRow
from domain.record import DEFAULT_PARTITIONS, Record, event_stream, partition_of
from domain.validation.scenarios import CONTENT_PARTS, DEFAULT_PERSON, FEEDBACK_PREFIXES, check_scenario, given_value
from flows.scenarios.explain import ScenarioExplainer, content_part, format_offset
from flows.simulation.reactions import ReactionSimulator, TimelineEntry
from flows.simulation.virtual_time import ClusterSimulation, LiveModels, ScheduledRecord, resolve_person
from operators.steps import STEPS
from state.person.model import Person, person_key
from state.playbook.compiled import Rules, compile_rules

DEVICE_CLASSES = {"phone": "mobile", "computer": "desktop"}
_PRODUCT_FIELDS = ("product_id", "sku", "name", "price", "quantity", "category", "brand", "url", "image_url")
_PAGE_FIELDS = ("url", "path", "title", "referrer")
_UTM_FIELDS = {"source": "source", "medium": "medium", "campaign": "name"}
OFFSITE_EVENTS = ("Identified", "Consent Updated")
"""Events that do not start a session."""
_encode = msgspec.json.Encoder().encode


class ScenarioPerson:
    """The browser of one person in a scenario; turns rows into records.

    `attributes` are country, device, language, timezone, source and customer; `traits` are known from the start.
    """

    def __init__(self, name: str, attributes: Mapping[str, DetailValue], traits: Mapping[str, DetailValue]) -> None:
        self.name = name
        self.anonymous_id = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "somebody"
        self.user_id = str(attributes.get("customer", ""))
        self.traits = dict(traits)
        self._attributes = attributes
        self._record_count = 0
        self._has_visited = False

    @property
    def person_key(self) -> str:
        """The person key of the next record."""
        return person_key(self.user_id or None, self.anonymous_id)

    def record(self, row: ScenarioRow, at: int, partitions: int) -> Record:
        """Build the record of a `does` row at `at` (ms since 1970)."""
        values = dict(row.values)
        if row.name == "logs in":
            self.user_id = str(values.pop("customer", values.pop("user", "")) or self.anonymous_id)
        return self._build_record(row.name, values, at, partitions)

    def _build_record(self, event_name: str, values: dict[str, Any], at: int, partitions: int) -> Record:
        self._record_count += 1
        context = self._build_context(event_name, values)
        event: dict[str, Any] = {
            "messageId": f"{self.anonymous_id}-{self._record_count}",
            "anonymousId": self.anonymous_id,
            "context": context,
        }
        if self.user_id:
            event["userId"] = self.user_id
        call = "track"
        if event_name in ("Page Viewed", "Screen Viewed"):
            call = "page" if event_name == "Page Viewed" else "screen"
            event["properties"] = values
        elif event_name in ("Identified", "logs in"):
            call = "identify"
            event["traits"] = values
        else:
            event.update(
                event=event_name, properties=_nest_product(values) if event_name.startswith("Order") else values
            )
        event["type"] = call
        key = (self.user_id or self.anonymous_id).encode()
        stream = event_stream(call, event_name if call == "track" else "")
        return Record(stream, partition_of(key, partitions), 0, at, key, _encode(event))

    def initial_records(self, consent: Mapping[str, DetailValue], at: int, partitions: int) -> list[Record]:
        """Build the records that precede the scenario: traits and consent."""
        records = []
        if self.traits:
            records.append(self._build_record("Identified", dict(self.traits), at, partitions))
        if consent:
            records.append(self._build_record("Consent Updated", dict(consent), at, partitions))
        return records

    def _build_context(self, event_name: str, values: dict[str, Any]) -> dict[str, Any]:
        given = self._attributes
        device = str(given.get("device", "desktop"))
        context: dict[str, Any] = {
            "attimo": {"country": given.get("country", ""), "device": DEVICE_CLASSES.get(device, device)}
        }
        if "language" in given:
            context["locale"] = given["language"]
        if "timezone" in given:
            context["timezone"] = given["timezone"]
        page = {field: values[field] for field in _PAGE_FIELDS if field in values and event_name == "Page Viewed"}
        if page:
            context["page"] = page
        campaign = {
            _UTM_FIELDS[field]: values.pop(field)
            for field in _UTM_FIELDS
            if field in values and event_name == "Page Viewed"
        }
        if not campaign and "source" in given and not self._has_visited:
            campaign = {"source": given["source"]}
        self._has_visited = self._has_visited or event_name not in OFFSITE_EVENTS
        if campaign:
            context["campaign"] = campaign
        return context


def _nest_product(values: dict[str, Any]) -> dict[str, Any]:
    """Move the product fields of an order row into `products`."""
    if "product_id" not in values or "products" in values:
        return values
    product = {field: values.pop(field) for field in _PRODUCT_FIELDS if field in values}
    return {**values, "products": [product]}


DEFAULT_START = "2026-03-02 10:00"
"""Default start of a scenario: a Monday morning in the shop's time zone."""

_NOT_HAPPENED = {
    "shown": "was not shown",
    "message": "was not sent",
    "suppressed": "was not suppressed",
    "preloaded": "was not preloaded",
    "cancelled": "was not cancelled",
    "enters": "was not entered",
    "exits": "was not exited",
    "coupon": "had no such coupon event",
    "workflow": "had no such workflow event",
}

ObservedEffect = Send | Preload | Cancel | Suppress | SegmentChange | Message | CouponEvent | WorkflowProgress


class ObservedResult(NamedTuple):
    """An effect, as the step and name of the row that would expect it."""

    kind: str
    name: str
    at: int
    person: str
    entry: TimelineEntry

    def __str__(self) -> str:
        return f"{self.kind} {self.name} at {format_offset(self.at)}"


def run_scenario(scenario: Scenario, rules: Rules) -> list[Diagnostic]:
    """Run one scenario and return its failures. The result is deterministic.

    A scenario with invalid rows does not run; its errors are returned instead.
    """
    return check_scenario(scenario, rules.playbook) or _ScenarioRun(scenario, rules).run()


class _ScenarioRun:
    def __init__(self, scenario: Scenario, rules: Rules) -> None:
        self.scenario, self.rules = scenario, rules
        self.diagnostics: list[Diagnostic] = []
        self.start = _start_time(scenario, rules)
        models = LiveModels(_constant_model(scenario))
        self.reactions = ReactionSimulator(STEPS, assumed=True, allow_bounces=True)
        background = compile_rules(Playbook(rules.shop))
        self.simulation = ClusterSimulation(
            self.reactions, background, DEFAULT_PARTITIONS, lambda partition, at: models
        )
        self.models = models
        self.people: dict[str, ScenarioPerson] = {}
        self.offset = 0
        self.lines_by_offset: dict[int, int] = {}
        """Line of each row by the offset of its record."""
        self.checked_count = 0
        self.clock = self.start

    def run(self) -> list[Diagnostic]:
        rows = [row for row in self.scenario.rows if row.step != "given"]
        for name in dict.fromkeys(row.person or DEFAULT_PERSON for row in self.scenario.rows):
            person, consent = self._add_person(name)
            for record in person.initial_records(consent, self.start - 1, DEFAULT_PARTITIONS):
                self._apply_record(record, self.scenario.line)
        self.simulation.rules = self.rules  # only now: `given` rows must not fire triggers
        self.checked_count = len(self.reactions.entries)
        block: list[ScenarioRow] = []
        for n, row in enumerate(rows):
            if row.step in STEP_ACTIONS:
                if n and rows[n - 1].step not in STEP_ACTIONS:
                    self._check_rows(block)
                    block = []
                self._apply_row(row)
            else:
                block.append(row)
        self._check_rows(block)
        for dead_letter in self.simulation.dead_letters:
            self.diagnostics.append(
                Diagnostic(
                    self.scenario.file,
                    self.lines_by_offset.get(dead_letter.offset, 0),
                    "details",
                    f"this event is invalid: {dead_letter.reason}",
                )
            )
        errors = {error for shard in self.simulation.shards.values() for error in shard.errors}
        self.diagnostics += [
            Diagnostic(self.scenario.file, self.scenario.line, "", f"the engine failed: {error}")
            for error in sorted(errors)
        ]
        return sorted(self.diagnostics, key=lambda diagnostic: diagnostic.line)

    # -- applying rows ---------------------------------------------------------------------------------------------

    def _add_person(self, person_name: str) -> tuple[ScenarioPerson, dict[str, DetailValue]]:
        attributes: dict[str, DetailValue] = {}
        traits: dict[str, DetailValue] = {}
        consent: dict[str, DetailValue] = {}
        for row in self.scenario.rows:
            if row.step == "given" and (row.person or person_name) == person_name:
                name, _, key = row.name.partition(" ")
                value = given_value(row)
                if name == "trait":
                    traits[key] = value
                elif name == "consent":
                    consent[key] = str(value).lower() not in ("denied", "no", "false", "refused")
                else:
                    attributes[name] = value
        person = self.people[person_name] = ScenarioPerson(person_name, attributes, traits)
        return person, consent

    def _apply_row(self, row: ScenarioRow) -> None:
        at = self.start + row.at if row.at is not None else self.clock
        if row.step == "time passes":
            self.simulation.run([], at, False)
        else:
            person = self.people[row.person or DEFAULT_PERSON]
            values = {name: self._resolve_value(value, person, row) for name, value in row.values.items()}
            values = self._resolve_reaction(row, values, person)
            resolved = ScenarioRow(row.line, row.step, row.name, values=values)
            self._apply_record(person.record(resolved, at, DEFAULT_PARTITIONS), row.line)
        self.clock = max(self.clock, at)

    def _apply_record(self, record: Record, line: int) -> None:
        self.offset += 1
        self.lines_by_offset[self.offset] = line
        item = ScheduledRecord(record._replace(offset=self.offset), record.log_time, self.models)
        self.simulation.run([item], record.log_time, False)

    def _find_person(self, name: str) -> Person | None:
        people = self.simulation.people()
        return people.get(resolve_person(self.people[name].person_key, people))

    def _resolve_value(self, value: DetailValue, scenario_person: ScenarioPerson, row: ScenarioRow) -> DetailValue:
        """Replace `{pool}` by the code of the person's coupon from that pool."""
        match = re.fullmatch(r"\{([a-z0-9_-]+)\}", value) if isinstance(value, str) else None
        if match is None or match[1] not in self.rules.pools:
            return value
        person = self._find_person(scenario_person.name)
        for coupon in reversed(person.coupons if person is not None else ()):
            if coupon.pool == match[1]:
                return coupon.code
        self.diagnostics.append(
            Diagnostic(
                self.scenario.file,
                row.line,
                "details",
                f"{scenario_person.name} has no coupon from {match[1]} at that time",
            )
        )
        return value

    def _resolve_reaction(
        self, row: ScenarioRow, values: dict[str, DetailValue], scenario_person: ScenarioPerson
    ) -> dict[str, DetailValue]:
        """Add the id of the person's latest message or offer of the named campaign to a feedback event."""
        campaign, people = values.get("campaign"), self.simulation.people()
        if not row.name.startswith(FEEDBACK_PREFIXES) or campaign is None:
            return values
        key = resolve_person(scenario_person.person_key, people)
        for entry in reversed(self.reactions.entries):
            effect = entry.effect
            if resolve_person(entry.person, people) != key:
                continue
            if isinstance(effect, Message) and effect.campaign == campaign and not effect.withdrawn_id:
                return {"message_id": effect.id, "channel": effect.channel, **values}
            if isinstance(effect, (Send, Preload)) and effect.campaign == campaign:
                return {"action_id": effect.id, **values}
        self.diagnostics.append(
            Diagnostic(
                self.scenario.file,
                row.line,
                "details",
                f"{scenario_person.name} has received nothing from {campaign} by then, so this event has no message",
            )
        )
        return values

    # -- checking --------------------------------------------------------------------------------------------------

    def _results(self) -> Iterator[ObservedResult]:
        people = self.simulation.people()
        for entry in self.reactions.entries[self.checked_count :]:
            expected = _expected_row(entry)
            if expected is not None:
                yield ObservedResult(*expected, entry.at - self.start, resolve_person(entry.person, people), entry)

    def _name_of(self, person: str) -> str:
        """The name of a person in the scenario."""
        people = self.simulation.people()
        return next(
            (name for name, known in self.people.items() if resolve_person(known.person_key, people) == person), person
        )

    def _check_rows(self, rows: Sequence[ScenarioRow]) -> None:
        results = list(self._results())
        self.checked_count = len(self.reactions.entries)
        referenced: set[int] = set()
        matched: set[int] = set()
        for row in rows:
            failure = self._check_row(row, results, referenced, matched)
            if failure:
                self.diagnostics.append(Diagnostic(self.scenario.file, row.line, row.step, failure))
        unexpected = [
            result for n, result in enumerate(results) if result.kind in ("shown", "message") and n not in referenced
        ]
        line = rows[-1].line if rows else self.scenario.line
        self.diagnostics += [
            Diagnostic(
                self.scenario.file,
                line,
                result.kind,
                f"{self._name_of(result.person)} unexpectedly got {result.name} at {format_offset(result.at)}; "
                "if that is right, add a row for it here",
            )
            for result in unexpected
        ]

    def _check_row(
        self, row: ScenarioRow, results: list[ObservedResult], referenced: set[int], matched: set[int]
    ) -> str:
        """Return why a row fails, or "".

        A result that fits becomes `matched` and `referenced`. Results that only have the right name become
        `referenced`, so that another row can still match them.
        """
        name = row.person or DEFAULT_PERSON
        person = self._find_person(name)
        if row.step in ("is in", "is not in"):
            inside = person is not None and row.name in person.segments
            if inside is (row.step == "is in"):
                return ""
            return (
                ScenarioExplainer(name, person, self.rules, self.clock, self.start).explain(row)
                if person is not None
                else f"{name} has no events yet"
            )
        if row.step == "nothing":
            return ""
        people = self.simulation.people()
        key = resolve_person(self.people[name].person_key, people)
        kinds = ("shown", "message") if row.step == "not shown" else (row.step,)
        same_name = [
            (n, result)
            for n, result in enumerate(results)
            if result.kind in kinds and result.name == row.name and (not row.person or result.person == key)
        ]
        if row.step == "not shown":
            return f"{row.name} was shown at {format_offset(same_name[0][1].at)}" if same_name else ""
        fits = [n for n, result in same_name if not self._mismatch(row, result)]
        free = [n for n in fits if n not in matched]
        if free:
            referenced.add(free[0])
            matched.add(free[0])
            return ""
        if fits:
            return f"it happened only {format_times(len(fits))}"
        if same_name:
            referenced.update(n for n, _ in same_name)
            return "; ".join(self._mismatch(row, result) for _, result in same_name)
        return f"{row.name} {_NOT_HAPPENED[row.step]}. " + self._why_missing(row, name, person, results)

    def _mismatch(self, row: ScenarioRow, result: ObservedResult) -> str:
        """Return how a result differs from its row, or ""."""
        if row.at is not None and row.at != result.at:
            return f"it happened at {format_offset(result.at)}"
        effect = result.entry.effect
        if effect is None and result.entry.delivery is not None:  # a preloaded offer: its content is in the Preload
            action_id = result.entry.delivery.action_id
            effect = next(
                (
                    entry.effect
                    for entry in reversed(self.reactions.entries)
                    if isinstance(entry.effect, Preload) and entry.effect.id == action_id
                ),
                None,
            )
        because = getattr(effect, "because", None)
        for detail in row.details:
            word, _, rest = detail.partition(" ")
            if word in ("as", "by"):
                channel = effect.channel if isinstance(effect, Message) else getattr(effect, "format", "")
                if channel != rest:
                    return f"it was sent as {channel}"
            elif word in CONTENT_PARTS:
                verb, _, part = rest.partition(" ")
                text = content_part(effect, word)
                if (part.strip('"').lower() in text.lower()) is not (verb == "contains"):
                    return f"its {word} is {text[:300]!r}"
            elif word == "because":
                reason = because.reason if because is not None else ""
                if because is None or not reason.startswith(rest):
                    more = because.detail if because is not None else ""
                    return f"it was suppressed because {reason}: {more}".rstrip(": ")
            elif word == "variant":
                if because is None or rest not in (because.variant, *because.variant.split("/")):
                    return f"it was variant {because.variant}" if because is not None else "it has no variants"
            elif isinstance(effect, CouponEvent) and effect.status != word:
                return f"it was {effect.status}"
            elif isinstance(effect, WorkflowProgress) and (
                effect.step != rest if word == "step" else effect.transition != word or rest not in ("", effect.goal)
            ):
                return (
                    f"they reached step {effect.step}"
                    if effect.transition == "step"
                    else (
                        f"they reached the goal {effect.goal}"
                        if effect.transition == "goal"
                        else f"they {effect.transition} at {format_offset(result.at)}"
                    )
                )
        return ""

    def _why_missing(self, row: ScenarioRow, name: str, person: Person | None, results: list[ObservedResult]) -> str:
        """Explain why the expected result is missing, as far as known."""
        key = person.id if person is not None else ""
        for result in results:
            effect = result.entry.effect
            if isinstance(effect, Suppress) and result.name == row.name and result.person == key:
                because = effect.because
                at = format_offset(result.at)
                return f"It was suppressed at {at} because {because.reason}: {because.detail}".rstrip(": ")
        others = [
            f"{result.kind} at {format_offset(result.at)}"
            + (f" to {self._name_of(result.person)}" if result.person != key else "")
            for result in results
            if result.name == row.name
        ]
        reasons = (
            ScenarioExplainer(name, person, self.rules, self.clock, self.start).explain(row)
            if person is not None
            else ""
        )
        if others and row.step not in ("enters", "exits", "workflow"):
            return f"Results: {', '.join(others)}." + (" " + reasons if "Exit Intent" in reasons else "")
        if reasons:
            return reasons
        others = [str(result) for result in results if result.kind == row.step]
        return "Results: " + ", ".join(others) if others else "No result of this kind."


def _expected_row(entry: TimelineEntry) -> tuple[str, str] | None:
    """The step and name of the row that would expect this entry, or None."""
    effect = entry.effect
    if effect is None:
        preloaded = entry.kind == "shown" and entry.delivery is not None and entry.delivery.trigger
        return ("shown", entry.delivery.campaign) if preloaded and entry.delivery is not None else None
    if isinstance(effect, Message):
        return ("cancelled" if effect.withdrawn_id else "message"), effect.campaign
    if isinstance(effect, SegmentChange):
        return ("enters" if effect.entered else "exits"), effect.segment
    if isinstance(effect, Cancel):
        return None if effect.because.reason == "shown" else ("cancelled", effect.campaign)
    steps = {Send: "shown", Preload: "preloaded", Suppress: "suppressed"}
    if isinstance(effect, (Send, Preload, Suppress)):
        return steps[type(effect)], effect.campaign
    if isinstance(effect, CouponEvent):
        return "coupon", effect.pool
    return ("workflow", effect.workflow) if isinstance(effect, WorkflowProgress) else None


def _start_time(scenario: Scenario, rules: Rules) -> int:
    start = next(
        (str(given_value(row)) for row in scenario.rows if row.step == "given" and row.name == "start"), DEFAULT_START
    )
    local = datetime.fromisoformat(start).replace(tzinfo=ZoneInfo(rules.shop.timezone))
    return int(local.timestamp() * 1000)


def _constant_model(scenario: Scenario) -> Model | None:
    """A model that gives everybody the score of the scenario's `given score` row."""
    scores = [row for row in scenario.rows if row.step == "given" and row.name == "score"]
    if not scores:
        return None
    share = min(0.999, max(0.001, float(given_value(scores[0]))))
    quality = ModelQuality(examples=1_000, positives=100, base_rate=0.1)
    return Model("propensity", 1, f"scenario-{share:g}", {}, intercept=math.log(share / (1 - share)), quality=quality)
