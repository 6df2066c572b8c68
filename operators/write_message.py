"""write_message: a campaign that was decided for one person becomes a message that any channel worker can send.

    decided ──▶ Message ──▶ stream `messages` ──▶ flows/outreach.py, or a worker of your own ──▶ feedback
            └─▶ person.written, so that the feedback is recognised (state/feedback.py)

Everything a worker needs is in it, so that nobody has to ask the engine anything: who, where, what, until when, what
they agreed to. `respect_limits` calls it, and reserves the place.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Protocol

import msgspec

from domain.action import Because, Content
from domain.message import Message
from operators.render import prepare, values_of
from state.addresses import addresses, mark, reachable
from state.context import Context
from state.feedback import note
from state.leaves import granted
from state.person import Facts, Person
from state.rules import CampaignRule, Rules

__all__ = ["reachable", "write"]

NAME = "respect_limits"
MAX_CONTEXT = 8_000
"""Bytes of JSON that the values in a message may have; what is more is left out, the last names first."""
MAX_ITEMS = 20
"""Entries of one list in the values."""


class Side(Protocol):
    """The side of an experiment that a person is on (`state/experiments.py`)."""

    @property
    def variant(self) -> str: ...
    @property
    def propensity(self) -> float: ...


def write(person: Person, facts: Facts, rule: CampaignRule, side: Side, content: Content, context: Context,
          run: str = "", occasion: str = "", until: int = 0) -> Message:
    """The message of a campaign to one person, noted with the person as sent.

    `content` are the rendered words, `run` names the way through a workflow that asked for it, `occasion` what came
    earlier and is decided only now, `until` when it must have gone out (ms; else the campaign says so). The caller
    reserves the place under the limits, until `not_after`.
    """
    rules, now = context.rules, context.now
    held, failed = rule.explain(person, facts, now)
    gone = person.runs.get(run) if run else None
    workflow = gone.workflow if gone is not None else ""
    channel, prepared = rule.format, prepare(rule, "", rules, side.variant)
    message = Message(
        id=context.id(NAME), at=now, person=person.id, channel=channel, campaign=rule.name,
        content_key=content_key(rule, side.variant, rules), not_before=now,
        not_after=until or now + rule.valid_for, variant=side.variant,
        purpose=rule.purpose, addresses=addresses(person, facts), consent=consent(facts, channel, rule.purpose, rules),
        content=content, context=bounded(values_of(prepared, person, facts, rules)),
        language=facts.locale, timezone=facts.timezone or rules.shop.timezone, workflow=workflow,
        because=Because(trigger=occasion or rule.occasion, held=held, failed=failed, playbook=rules.short,
                        model=context.model.hash if context.model is not None else "", variant=prepared.variant,
                        propensity=side.propensity, workflow=workflow),
        history=context.history)
    note(person, message, mark(reachable(person, facts, channel)))
    return message


def content_key(rule: CampaignRule, variant: str, rules: Rules) -> str:
    """Which words these are, the same for everybody: "campaign/variant/hash". Another text gives another hash."""
    kept = rules.words.get((rule.name, "key of " + variant))
    if kept is None:
        campaign = rule.campaign
        chosen = campaign.variants.get(variant)
        content = (chosen.content if chosen is not None else None) or campaign.content
        files = sorted({words.template for words in (content.default, content.desktop, content.mobile, content.tablet)
                        if words is not None and words.template})
        seed = msgspec.json.encode([content, campaign.content, [rules.playbook.templates.get(name) for name in files]])
        kept = f"{rule.name}/{variant or 'default'}/{blake2b(seed, digest_size=6).hexdigest()}"
        rules.words[rule.name, "key of " + variant] = kept
    key: str = kept
    return key


def consent(facts: Facts, channel: str, purpose: str, rules: Rules) -> dict[str, str]:
    """What the person answered about a purpose, and about it on this channel; "default" where the shop's word holds."""
    found = {}
    for name in (purpose, f"{channel}:{purpose}"):
        answer = facts.consent.get(name)
        if answer is None or answer.value is None:
            found[name] = "default"
        else:
            found[name] = "granted" if granted(facts, name, rules.shop) else "denied"
    return found


def bounded(values: dict[str, Any]) -> dict[str, Any]:
    """Values in plain JSON, at most MAX_CONTEXT bytes of them, in the order of their names.

    >>> bounded({"b": "x" * 9_000, "a": [{"price": 9.5}], "c": 1})
    {'a': [{'price': 9.5}], 'c': 1}
    """
    found: dict[str, Any] = {}
    left = MAX_CONTEXT
    for name in sorted(values):
        value = _plain(values[name])
        size = len(msgspec.json.encode({name: value}))
        if size <= left:
            found[name] = value
            left -= size
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(one) for one in value[:MAX_ITEMS]]
    if isinstance(value, float):  # a price is one, and prints as it was written
        return float(value)
    return value if value is None or isinstance(value, (str, int)) else str(value)
