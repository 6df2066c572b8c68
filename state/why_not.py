"""Why not: what stands between one person and a campaign at this moment, also when it never came up.

    its dates and audience, statement by statement ─▶ its occasion ─▶ consent, limits, experiment ─▶ in plain words

Of a segment or a workflow it says whether they are in it, and why (`state/belonging.py`).
"""

from collections.abc import Callable, Iterator

from domain.amounts import times
from domain.condition import BANDS, RFM_GROUPS
from domain.duration import parse, roughly, say
from domain.event_names import meant
from domain.known import is_cell
from domain.rfm_groups import group_of
from state.addresses import why_not as no_address
from state.belonging import Belonging, by_the_wall, senders
from state.conditions import ALL_OF_THEM
from state.days import written
from state.experiments import HELD_OUT, side_of
from state.limits import blocked
from state.person import Facts, Person
from state.quiet import quiet_until
from state.rules import CampaignRule, Rules
from state.view import known


def why_not(person: Person, name: str, rules: Rules, now: int, moment: Callable[[int], str] = written) -> Iterator[str]:
    """What would be decided at `now` (ms), and why; `name` is a campaign, a workflow or a segment, and `moment` writes
    times. The person is looked at, not changed.
    """
    belonging = Belonging(person, rules, now, by_the_wall(now, moment))
    rule = rules.campaigns.get(name)
    if rule is not None:
        yield from _campaign(person, rule, rules, now, belonging)
    if name in rules.workflows.live or any(run.workflow == name for run in person.runs.values()):
        yield from belonging.workflow(name)
    if name in rules.segment or name in BANDS or name in person.segments or _is_of_rfm(name, rules):
        yield from _segment(person, name, rules, now, belonging)


def unheard_of(person: Person, name: str, rules: Rules) -> str:
    """Empty when there is something of this name, in the playbook or with the person; else that there is not."""
    there = {*rules.campaigns, *rules.workflows.live, *rules.segment, *BANDS}
    with_them = {*person.segments, *person.been, *(run.workflow for run in person.runs.values())}
    if name in there or name in with_them or _is_of_rfm(name, rules):
        return ""
    return (f'There is no campaign, workflow or segment "{name}" in the playbook' + (meant(name, there) or ".")).strip()


def _campaign(person: Person, rule: CampaignRule, rules: Rules, now: int, belonging: Belonging) -> Iterator[str]:
    facts = known(person)
    held, failed = rule.explain(person, facts, now, ALL_OF_THEM)
    holds = rule.holds(person, facts, now)
    yield ("Now: it has no conditions of its own" if not held and not failed else
           "Now: its conditions hold" if holds else "Now: its conditions do not hold" if failed else
           "Now: its conditions hold, and its moment has not come")
    yield from _statements(held, failed)
    yield from (f"{'':5}{words}" for words in belonging.asked_for(failed))
    if not holds:
        change = rule.next_change(person, facts, now)
        if change is not None:
            yield f"{'':5}by the passing of time alone this may change in {roughly(change - now)}"
    yield from _occasion(person, facts, rule, now, senders(rule.name, rules))
    if _passed_by(person, facts, rule):
        yield (f"{'':5}(what arrives more than {say(parse(rules.shop.late_after))} late is no occasion, nor what was "
               "before the playbook)")
    yield from (f"It is decided {belonging.teller.at(one.due)}" for one in person.later.get(rule.name, ()))
    yield from (f"{'':5}{words}" for words in _way_to_it(person, rule, rules, belonging))
    if person.bot:
        yield "Robots are told nothing."
    if not rule.on_site and (gone := no_address(person, facts, rule.format))[0]:
        yield f"They cannot be reached by {rule.format}: {gone[1]}"
    reason, detail = blocked(person, facts, rule, rules, now)
    if reason:
        yield f"It would be held back: {reason}" + (f" ({detail})" if detail else "")
    if until := quiet_until(rule, facts, rules, now):
        yield f"It would wait {roughly(until - now)} for the end of the quiet hours"
    assigned = dict(person.assigned)
    side = side_of(person, rule, rules)
    person.assigned = assigned
    if side.held_out in HELD_OUT:
        yield f"They are held out ({side.held_out}), so that the effect can be told"
    elif side.variant:
        yield f"They get variant {side.variant}"


def _occasion(person: Person, facts: Facts, rule: CampaignRule, now: int, flows: list[str]) -> Iterator[str]:
    """Whether its occasion ever came."""
    trigger, session = rule.campaign.trigger, person.session
    if trigger.event is not None:
        count = facts.counts.get(trigger.event)
        if count is None:
            yield f'Its occasion never came: no "{trigger.event}" so far'
        else:
            some = " (with any properties)" if trigger.properties else ""
            ago = roughly(max(0, now - count.last_at))
            yield f'Its occasion: "{trigger.event}" came {times(count.n)}{some}, last {ago} ago'
    elif trigger.segment is not None:
        since = person.segments.get(trigger.segment)
        yield (f"Its occasion is entering {trigger.segment}: "
               + ("they are not in it" if since is None else f"they entered it {roughly(max(0, now - since))} ago"))
    elif trigger.left_segment is not None:
        inside = trigger.left_segment in person.segments
        yield f"Its occasion is leaving {trigger.left_segment}: they are {'still in it' if inside else 'not in it'}"
    elif trigger.exit_intent:
        ready = next((one.campaign for one in person.armed.values()), "")
        yield "Its occasion is exit intent: " + (
            "no visit is open" if session is None else "the browser holds it ready" if ready == rule.name else
            f"the browser holds {ready} ready" if ready else "the browser holds nothing ready")
    elif trigger.workflow:
        named = " and ".join(flows) or "no workflow"
        yield f"Its occasion is a workflow's step: {named} send{'s' if len(flows) < 2 else ''} it"
    elif session is None:
        yield f"Its occasion is {rule.occasion}: no visit is open"
    else:
        age = max(0, now - session.started_at) // 1000 * 1000
        yield f"Its occasion is {rule.occasion}: the visit is {roughly(age)} old"


def _passed_by(person: Person, facts: Facts, rule: CampaignRule) -> bool:
    """Whether its occasion came, and nothing was ever decided."""
    trigger, name = rule.campaign.trigger, rule.name
    came = trigger.event in facts.counts if trigger.event is not None else trigger.segment in person.segments
    return came and name not in person.later and name not in person.decisions and name not in person.said and all(
        one.campaign != name for one in person.earlier)


def _way_to_it(person: Person, rule: CampaignRule, rules: Rules, belonging: Belonging) -> Iterator[str]:
    """Why its occasion did not come, where that is a matter of where they belong."""
    trigger = rule.campaign.trigger
    if trigger.segment is not None and trigger.segment not in person.segments:
        yield from belonging.segment(trigger.segment)
    for flow in senders(rule.name, rules) if trigger.workflow else ():
        yield from belonging.workflow(flow)


def _segment(person: Person, name: str, rules: Rules, now: int, belonging: Belonging) -> Iterator[str]:
    """Whether they are in it, statement by statement."""
    rule, since = rules.segment.get(name), person.segments.get(name)
    if rule is None or rule.static is not None:
        yield from belonging.segment(name)
        if rule is not None and rule.static is not None and since is None:
            words = " or ".join(one.words for one in rule.static.enter)
            yield f"{'':5}What puts people in, if its conditions hold then: {words}"
        if rule is None:
            yield f"{'':5}{_learned(person, name)}"
        return
    yield f"They are in {name}, {belonging.teller.since(since)}." if since is not None else f"They are not in {name}."
    facts = known(person)
    held, failed = rule.explain(person, facts, now, ALL_OF_THEM)
    yield from _statements(held, failed)
    yield from (f"{'':5}{words}" for words in belonging.asked_for(failed, frozenset({name})))
    change = rule.next_change(person, facts, now)
    if change is not None:
        yield f"{'':5}by the passing of time alone this may change in {roughly(change - now)}"


def _is_of_rfm(name: str, rules: Rules) -> bool:
    """Whether it is a cell or a group that the shop's customers can stand in."""
    return rules.shop.rfm is not None and (is_cell(name) or name in {f"rfm_{group}" for group in RFM_GROUPS})


def _learned(person: Person, name: str) -> str:
    """Where they stand instead, or why here: of a segment that no file describes."""
    if name in BANDS:
        if person.score is None:
            return "they have no score: no visit of theirs was looked at by a model, or they ordered in it"
        stands = f"they are in {person.band}" if person.band else "too little was learned so far to tell bands apart"
        return f"their latest score is {person.score:.1%}: {stands}"
    if not person.rfm:
        return "they have no cell of recency, frequency and money: they never ordered"
    return f"their cell of recency, frequency and money is rfm_{person.rfm}, of the group rfm_{group_of(person.rfm)}"


def _statements(held: tuple[str, ...], failed: tuple[str, ...]) -> Iterator[str]:
    yield from (f"{'':5}yes  {words}" for words in held)
    yield from (f"{'':5}no   {words}" for words in failed)
