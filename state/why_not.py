"""Why not: what stands between one person and a campaign at this moment, also when it never came up.

    its dates and audience, statement by statement ─▶ its occasion ─▶ consent, limits, experiment ─▶ in plain words
"""

from collections.abc import Iterator

from domain.duration import say
from domain.event_names import meant
from state.addresses import why_not as no_address
from state.experiments import HELD_OUT, side_of
from state.limits import blocked
from state.person import Facts, Person
from state.quiet import quiet_until
from state.rules import CampaignRule, Rules
from state.view import known


def why_not(person: Person, campaign: str, rules: Rules, now: int) -> Iterator[str]:
    """What would be decided at `now` (ms), and why. The person is looked at, not changed."""
    rule = rules.campaigns.get(campaign)
    if rule is None:
        yield f'There is no campaign "{campaign}" in the playbook{meant(campaign, rules.campaigns)}.'
        return
    facts = known(person)
    held, failed = rule.explain(person, facts, now)
    holds = rule.holds(person, facts, now)
    yield f"Now: its conditions {'hold' if holds else 'do not hold'}" + (
        "" if held or failed else ", because it has none")
    yield from (f"{'':5}yes  {words}" for words in held)
    yield from (f"{'':5}no   {words}" for words in failed)
    if not holds:
        change = rule.next_change(person, facts, now)
        if change is not None:
            yield f"{'':5}by the passing of time alone this may change in {say(change - now)}"
    yield from _occasion(person, facts, rule, now)
    if person.bot:
        yield "Robots are told nothing."
    if not rule.on_site and (gone := no_address(person, facts, rule.format))[0]:
        yield f"They cannot be reached by {rule.format}: {gone[1]}"
    reason, detail = blocked(person, facts, rule, rules, now)
    if reason:
        yield f"It would be held back: {reason}" + (f" ({detail})" if detail else "")
    if until := quiet_until(rule, facts, rules, now):
        yield f"It would wait {say(until - now)} for the end of the quiet hours"
    assigned = dict(person.assigned)
    side = side_of(person, rule, rules)
    person.assigned = assigned
    if side.held_out in HELD_OUT:
        yield f"They are held out ({side.held_out}), so that the effect can be told"
    elif side.variant:
        yield f"They get variant {side.variant}"


def _occasion(person: Person, facts: Facts, rule: CampaignRule, now: int) -> Iterator[str]:
    """Whether its occasion ever came."""
    trigger, session = rule.campaign.trigger, person.session
    if trigger.event is not None:
        count = facts.counts.get(trigger.event)
        if count is None:
            yield f'Its occasion never came: no "{trigger.event}" so far'
        else:
            some = " (with any properties)" if trigger.properties else ""
            ago = say(max(0, now - count.last_at))
            yield f'Its occasion: "{trigger.event}" came {count.n} times{some}, last {ago} ago'
    elif trigger.segment is not None:
        since = person.segments.get(trigger.segment)
        yield (f"Its occasion is entering {trigger.segment}: "
               + ("they are not in it" if since is None else f"they entered it {say(max(0, now - since))} ago"))
    elif trigger.left_segment is not None:
        inside = trigger.left_segment in person.segments
        yield f"Its occasion is leaving {trigger.left_segment}: they are {'still in it' if inside else 'not in it'}"
    elif trigger.exit_intent:
        ready = next((one.campaign for one in person.armed.values()), "")
        yield "Its occasion is exit intent: " + (
            "no visit is open" if session is None else "the browser holds it ready" if ready == rule.name else
            f"the browser holds {ready} ready" if ready else "the browser holds nothing ready")
    elif trigger.workflow:
        runs = sorted({run.workflow for run in person.runs.values()})
        yield "Its occasion is a workflow's step: they are in " + (", ".join(runs) or "no workflow")
    elif session is None:
        yield f"Its occasion is {rule.occasion}: no visit is open"
    else:
        age = max(0, now - session.started_at) // 1000 * 1000
        yield f"Its occasion is {rule.occasion}: the visit is {say(age)} old"
