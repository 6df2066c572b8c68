"""Explain why a campaign is not shown to a person now, or why a person is not in a segment or workflow."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from domain.duration import format_duration, format_rough_duration, format_times, parse_duration
from domain.event import did_you_mean
from domain.playbook.condition import RFM_GROUPS, SCORE_BANDS
from domain.playbook.shop import rfm_group
from domain.validation.names import is_rfm_cell
from state.conditions.compile import ALL_STATEMENTS
from state.decisions.experiments import HOLDOUT_REASONS, assign
from state.decisions.frequency import quiet_until, suppression_reason
from state.local_time import format_local_time
from state.membership.workflow_runs import SEND_STATES
from state.person.addresses import unreachable_reason as no_address
from state.person.model import Person, ProfileFragment
from state.playbook.campaign import CampaignRule
from state.playbook.compiled import Rules
from state.playbook.workflow import WorkflowRule
from state.profile.profile import merged_profile


class Wording(NamedTuple):
    """How the person is called, and how times are said: `at` with its preposition, `since` for what lasts."""

    subject: str
    format_at: Callable[[int], str]
    format_since: Callable[[int], str]
    format_until: Callable[[int], str]
    plural: bool = False

    def subject_is(self) -> str:
        """The person with the verb.

        >>> Wording("Ann", str, str, str).subject_is(), Wording("They", str, str, str, plural=True).subject_is()
        ('Ann is', 'They are')
        """
        return f"{self.subject} {'are' if self.plural else 'is'}"


class MembershipExplainer:
    """What can be said of one person at `now` (ms). The person is looked at, not changed."""

    def __init__(self, person: Person, rules: Rules, now: int, wording: Wording) -> None:
        self.person, self.rules, self.now, self.wording = person, rules, now, wording

    def explain_segment(self, name: str, visited: frozenset[str] = frozenset()) -> Iterator[str]:
        """Whether they are in it, and if not, what does not hold; of the segments it asks for (all but `told`) too."""
        since = self.person.segments.get(name)
        if since is not None:
            yield f"{self.wording.subject_is()} in {name}, {self.wording.format_since(since)}."
            return
        rule = self.rules.segments_by_name.get(name)
        if rule is None:
            yield f"{self.wording.subject_is()} not in {name}."
        elif rule.static is not None:
            yield f"{self.wording.subject_is()} not in {name}: no entry event so far, or the membership expired."
        else:
            facts = merged_profile(self.person)
            _, failed = rule.explain(self.person, facts, self.now, ALL_STATEMENTS)
            because = ": false: " + "; ".join(failed) if failed else ""
            yield f"{self.wording.subject_is()} not in {name}{because}."
            change = rule.next_change(self.person, facts, self.now)
            if change is not None:
                yield f"This may change over time {self.wording.format_at(change)}."
            yield from self.explain_required_segments(failed, visited | {name})

    def explain_required_segments(
        self, failed: tuple[str, ...], visited: frozenset[str] = frozenset()
    ) -> Iterator[str]:
        """Why they are not in the segments that these statements ask for."""
        for words in failed:
            other = words.removeprefix("is in ")
            if other in self.rules.segments_by_name and other != words and other not in visited:
                yield from self.explain_segment(other, visited)

    def explain_member(self, name: str) -> str:
        """That they are in it, and what holds."""
        rule, since = self.rules.segments_by_name.get(name), self.person.segments.get(name)
        if since is None:
            return f"{self.wording.subject_is()} not in {name}."
        held = (
            rule.explain(self.person, merged_profile(self.person), self.now, ALL_STATEMENTS)[0]
            if rule is not None
            else ()
        )
        because = ": " + "; ".join(held) if held else ""
        return f"{self.wording.subject_is()} in {name}, {self.wording.format_since(since)}{because}."

    def explain_workflow(self, name: str) -> Iterator[str]:
        """Where they stand in it, or why they are not in it."""
        teller, waits = self.wording, "wait" if self.wording.plural else "waits"
        runs = [run for run in self.person.runs.values() if run.workflow == name]
        for run in runs:
            until = f", {teller.format_until(run.wait_until)}" if run.wait_until else ""
            yield (
                f"{teller.subject_is()} at the step {run.step_id} of the workflow {name} "
                f"and {waits} for {describe_wait(run.waiting_for)}{until}."
            )
        been, flow = self.person.completed_runs.get(name), self.rules.workflows.live.get(name)
        if runs or flow is None:
            return
        if been is not None:
            yield (
                f"{teller.subject} {'were' if teller.plural else 'was'} in the workflow {name} and exited "
                f"{teller.format_at(been.last_exit_at)}."
            )
            if flow.reentry == "never":
                yield "Reentry is not allowed."
                return
            if flow.reentry == "after" and self.now < been.last_exit_at + flow.reentry_after:
                yield f"Reentry is possible {teller.format_at(been.last_exit_at + flow.reentry_after)} at the earliest."
        else:
            yield f"{teller.subject} never entered the workflow {name}."
        if flow.exit_when is not None:
            facts = merged_profile(self.person)
            if flow.exit_when.is_met(self.person, facts, self.now):
                held, _ = flow.exit_when.explain(self.person, facts, self.now)
                yield f"Entry is blocked because the exit condition is true: {'; '.join(held)}."
        yield from self._explain_entry_triggers(flow)

    def _explain_entry_triggers(self, workflow: WorkflowRule) -> Iterator[str]:
        for occasion in workflow.workflow.entry_triggers:
            if occasion.segment is not None:
                yield from self.explain_segment(occasion.segment)
            elif occasion.exited_segment is not None:
                still = "still in it" if occasion.exited_segment in self.person.segments else "not in it"
                yield f"Exiting {occasion.exited_segment} is an entry trigger. {self.wording.subject_is()} {still}."
            elif occasion.event is not None:
                often = merged_profile(self.person).lifetime_counts.get(occasion.event)
                yield f'"{occasion.event}" is an entry trigger (its conditions must be true at that time): it ' + (
                    f"occurred {format_times(often.count)}, last {self.wording.format_at(often.last_at)}."
                    if often
                    else "never occurred."
                )


def workflows_sending(campaign: str, rules: Rules) -> list[str]:
    """Return the workflows that send a campaign."""
    return [
        name
        for name, flow in sorted(rules.workflows.live.items())
        if any(step.step.send == campaign for step in flow.steps)
    ]


def default_wording(now: int, format_time: Callable[[int], str]) -> Wording:
    """Times as `moment` writes them, with how long ago that is."""

    def at(time: int) -> str:
        apart = f"{format_rough_duration(now - time)} ago" if time <= now else f"in {format_rough_duration(time - now)}"
        return f"on {format_time(time)} ({apart})"

    return Wording(
        "They", at, lambda time: f"since {format_time(time)}", lambda time: f"until {format_time(time)}", plural=True
    )


def describe_wait(waiting_for: str) -> str:
    """What a workflow run waits for, as a noun phrase."""
    if waiting_for in SEND_STATES:
        return "delivery of the message of this step"
    return "a coupon code" if waiting_for == "coupon_code" else waiting_for


def why_not(
    person: Person, name: str, rules: Rules, now: int, format_time: Callable[[int], str] = format_local_time
) -> Iterator[str]:
    """What would be decided at `now` (ms), and why; `name` is a campaign, a workflow or a segment, and `moment` writes
    times. The person is looked at, not changed.
    """
    belonging = MembershipExplainer(person, rules, now, default_wording(now, format_time))
    rule = rules.campaigns.get(name)
    if rule is not None:
        yield from _explain_campaign(person, rule, rules, now, belonging)
    if name in rules.workflows.live or any(run.workflow == name for run in person.runs.values()):
        yield from belonging.explain_workflow(name)
    if name in rules.segments_by_name or name in SCORE_BANDS or name in person.segments or _is_rfm_segment(name, rules):
        yield from _explain_segment(person, name, rules, now, belonging)


def unknown_name(person: Person, name: str, rules: Rules) -> str:
    """Empty when there is something of this name, in the playbook or with the person; else that there is not."""
    there = {*rules.campaigns, *rules.workflows.live, *rules.segments_by_name, *SCORE_BANDS}
    with_them = {*person.segments, *person.completed_runs, *(run.workflow for run in person.runs.values())}
    if name in there or name in with_them or _is_rfm_segment(name, rules):
        return ""
    return (
        f'There is no campaign, workflow or segment "{name}" in the playbook' + (did_you_mean(name, there) or ".")
    ).strip()


def _explain_campaign(
    person: Person, rule: CampaignRule, rules: Rules, now: int, belonging: MembershipExplainer
) -> Iterator[str]:
    facts = merged_profile(person)
    held, failed = rule.explain(person, facts, now, ALL_STATEMENTS)
    holds = rule.is_met(person, facts, now)
    yield (
        "Now: no conditions of its own"
        if not held and not failed
        else "Now: conditions are true"
        if holds
        else "Now: conditions are false"
        if failed
        else "Now: conditions are true, but the time has not come"
    )
    yield from _list_statements(held, failed)
    yield from (f"{'':5}{words}" for words in belonging.explain_required_segments(failed))
    if not holds:
        change = rule.next_change(person, facts, now)
        if change is not None:
            yield f"{'':5}may change over time in {format_rough_duration(change - now)}"
    yield from _explain_trigger(person, facts, rule, now, workflows_sending(rule.name, rules))
    if _is_undecided(person, facts, rule):
        yield (
            f"{'':5}(events that arrive more than {format_duration(parse_duration(rules.shop.late_after))} late, "
            "or that are older than the playbook, do not trigger campaigns)"
        )
    yield from (f"Decision due {belonging.wording.format_at(one.due)}" for one in person.deferred.get(rule.name, ()))
    yield from (f"{'':5}{words}" for words in _explain_missing_trigger(person, rule, rules, belonging))
    if person.bot:
        yield "Bots receive no messages."
    if not rule.on_site and (gone := no_address(person, facts, rule.format))[0]:
        yield f"No usable {rule.format} address: {gone[1]}"
    reason, detail = suppression_reason(person, facts, rule, rules, now)
    if reason:
        yield f"It would be suppressed: {reason}" + (f" ({detail})" if detail else "")
    if until := quiet_until(rule, facts, rules, now):
        yield f"It would wait {format_rough_duration(until - now)} until quiet hours end"
    assigned = dict(person.assignments)
    side = assign(person, rule, rules)
    person.assignments = assigned
    if side.holdout_reason in HOLDOUT_REASONS:
        yield f"They are in the control group ({side.holdout_reason})"
    elif side.variant:
        yield f"They get variant {side.variant}"


def _explain_trigger(
    person: Person, profile: ProfileFragment, rule: CampaignRule, now: int, workflows: list[str]
) -> Iterator[str]:
    """Whether its occasion ever came."""
    trigger, session = rule.campaign.trigger, person.session
    if trigger.event is not None:
        count = profile.lifetime_counts.get(trigger.event)
        if count is None:
            yield f'Trigger never fired: no "{trigger.event}" so far'
        else:
            some = " (with any properties)" if trigger.properties else ""
            ago = format_rough_duration(max(0, now - count.last_at))
            yield f'Trigger event: "{trigger.event}" occurred {format_times(count.count)}{some}, last {ago} ago'
    elif trigger.segment is not None:
        since = person.segments.get(trigger.segment)
        yield (
            f"Trigger: entering {trigger.segment}: "
            + (
                "they are not in it"
                if since is None
                else f"they entered it {format_rough_duration(max(0, now - since))} ago"
            )
        )
    elif trigger.exited_segment is not None:
        inside = trigger.exited_segment in person.segments
        yield f"Trigger: exiting {trigger.exited_segment}: they are {'still in it' if inside else 'not in it'}"
    elif trigger.exit_intent:
        ready = next((one.campaign for one in person.preloaded.values()), "")
        yield "Trigger: exit intent; " + (
            "no session is open"
            if session is None
            else "this campaign is preloaded"
            if ready == rule.name
            else f"{ready} is preloaded"
            if ready
            else "nothing is preloaded"
        )
    elif trigger.workflow:
        named = " and ".join(workflows) or "no workflow"
        yield f"Trigger: workflow step; {named} send{'s' if len(workflows) < 2 else ''} it"
    elif session is None:
        yield f"Trigger: {rule.trigger_description}: no session is open"
    else:
        age = max(0, now - session.started_at) // 1000 * 1000
        yield f"Trigger: {rule.trigger_description}: the session is {format_rough_duration(age)} old"


def _is_undecided(person: Person, profile: ProfileFragment, rule: CampaignRule) -> bool:
    """Whether its occasion came, and nothing was ever decided."""
    trigger, name = rule.campaign.trigger, rule.name
    came = trigger.event in profile.lifetime_counts if trigger.event is not None else trigger.segment in person.segments
    return (
        came
        and name not in person.deferred
        and name not in person.decisions
        and name not in person.exposures
        and all(one.campaign != name for one in person.decision_history)
    )


def _explain_missing_trigger(
    person: Person, rule: CampaignRule, rules: Rules, belonging: MembershipExplainer
) -> Iterator[str]:
    """Why its occasion did not come, where that is a matter of where they belong."""
    trigger = rule.campaign.trigger
    if trigger.segment is not None and trigger.segment not in person.segments:
        yield from belonging.explain_segment(trigger.segment)
    for flow in workflows_sending(rule.name, rules) if trigger.workflow else ():
        yield from belonging.explain_workflow(flow)


def _explain_segment(
    person: Person, name: str, rules: Rules, now: int, belonging: MembershipExplainer
) -> Iterator[str]:
    """Whether they are in it, statement by statement."""
    rule, since = rules.segments_by_name.get(name), person.segments.get(name)
    if rule is None or rule.static is not None:
        yield from belonging.explain_segment(name)
        if rule is not None and rule.static is not None and since is None:
            words = " or ".join(one.description for one in rule.static.enter_on)
            yield f"{'':5}Entry triggers (their conditions must be true at that time): {words}"
        if rule is None:
            yield f"{'':5}{_explain_learned(person, name)}"
        return
    yield (
        f"They are in {name}, {belonging.wording.format_since(since)}."
        if since is not None
        else f"They are not in {name}."
    )
    facts = merged_profile(person)
    held, failed = rule.explain(person, facts, now, ALL_STATEMENTS)
    yield from _list_statements(held, failed)
    yield from (f"{'':5}{words}" for words in belonging.explain_required_segments(failed, frozenset({name})))
    change = rule.next_change(person, facts, now)
    if change is not None:
        yield f"{'':5}may change over time in {format_rough_duration(change - now)}"


def _is_rfm_segment(name: str, rules: Rules) -> bool:
    """Whether it is a cell or a group that the shop's customers can stand in."""
    return rules.shop.rfm is not None and (is_rfm_cell(name) or name in {f"rfm_{group}" for group in RFM_GROUPS})


def _explain_learned(person: Person, name: str) -> str:
    """Where they stand instead, or why here: of a segment that no file describes."""
    if name in SCORE_BANDS:
        if person.score is None:
            return "no score: no session was scored, or the session ended in an order"
        stands = f"they are in {person.band}" if person.band else "the model has too little data for score bands"
        return f"their latest score is {person.score:.1%}: {stands}"
    if not person.rfm:
        return "no RFM cell: no orders"
    return f"RFM cell rfm_{person.rfm}, group rfm_{rfm_group(person.rfm)}"


def _list_statements(passed: tuple[str, ...], failed: tuple[str, ...]) -> Iterator[str]:
    yield from (f"{'':5}yes  {words}" for words in passed)
    yield from (f"{'':5}no   {words}" for words in failed)
