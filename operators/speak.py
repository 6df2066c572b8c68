"""speak: what was decided for one person, in the words that are theirs.

    their side of the experiment ─▶ a coupon, if one is promised ─▶ the words ─▶ Send (a browser shows it), or Message

It reserves its place under the limits until it is shown, accepted or over (`state/exposures.py`).
"""

from hashlib import blake2b

import msgspec

from domain.action import Because, Content, Discount, Send
from domain.message import Message
from domain.template import Missing
from operators.render import Prepared, content_key, prepare, render
from operators.write_message import write
from state import coupons
from state.context import Context, Happening
from state.covers import unfit
from state.decisions import because, remember
from state.experiments import Side
from state.exposures import fills_already, released, reserve
from state.limits import Proposal
from state.person import Facts, Person, Reserved
from state.rules import CampaignRule

NAME = "respect_limits"

_encode = msgspec.json.Encoder().encode


class Silence(Exception):
    """It cannot be said: a reason to hold, with its detail."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


class Words(msgspec.Struct, frozen=True):
    """What is to be said, and how long it is good (ms); `discount` is what the coupon in it is worth."""

    content: Content
    prepared: Prepared
    until: int
    discount: Discount | None = None


def no_occasion(person: Person, facts: Facts, rule: CampaignRule, event: Happening,
                context: Context) -> tuple[str, str]:
    """Why what just happened is no occasion to speak of the campaign's coupon, as (reason, detail); else ("", "")."""
    pool, device = context.rules.pools.get(rule.campaign.coupon or ""), _device(person, facts, rule)
    if pool is None:
        return "", ""
    told = all(prepare(rule, device, context.rules, side).told for side in rule.campaign.variants or ("",))
    return unfit(person, pool.pool, event, context.rules, told=told)


def promise(person: Person, facts: Facts, rule: CampaignRule, prepared: Prepared, context: Context) -> int:
    """See that the person holds the coupon that the campaign promises; how long what is said is good (ms).

    Silence when there is none for them, or it could not be told: what is not said is not promised.

    >>> import msgspec
    >>> from domain.playbook import Playbook
    >>> from state.rules import compile_rules
    >>> hello = {"name": "hello", "format": "bar", "trigger": {"event": "Quiz Finished"}, "valid_for": "10m",
    ...          "content": {"default": {"title": "Hello"}}}
    >>> rules = compile_rules(msgspec.convert({"campaigns": [hello]}, Playbook))
    >>> rule = rules.campaigns["hello"]
    >>> promise(Person(id="a:ann"), Facts(), rule, prepare(rule, "", rules), Context(0, rules))
    600000
    """
    until = context.now + rule.valid_for
    pool = rule.campaign.coupon
    if pool is None:
        return until
    if refused := coupons.refusal(person, pool, context):
        raise Silence(refused, f"of {pool}")
    if coupons.held(person, pool, context.now) is None:
        _try(person, facts, rule, prepared, context)
    coupon = coupons.reserve(person, pool, rule.name, context)
    if isinstance(coupon, str):
        raise Silence(coupon, f"of {pool}")
    return min(until, coupon.until)


def _try(person: Person, facts: Facts, rule: CampaignRule, prepared: Prepared, context: Context) -> None:
    """Whether the words can be made, but for the code; what came of it is kept until they would be others."""
    tried: dict[str, tuple[tuple[str, str], str, str]] = person.__dict__.setdefault("tried", {})
    key = context.rules.short, content_key(prepared, person, facts)
    kept = tried.get(rule.name)
    if kept is None or kept[0] != key:
        reason = detail = ""
        try:
            _content(prepared, person, facts, context, coupons.likeness(prepared.pool, context))
        except Silence as silence:
            reason, detail = silence.reason, silence.detail
        kept = tried[rule.name] = key, reason, detail
    if kept[1]:
        raise Silence(*kept[1:])


def _content(prepared: Prepared, person: Person, facts: Facts, context: Context,
             worth: Discount | None = None) -> Content:
    try:
        return render(prepared, person, facts, context.rules, worth)
    except Missing as missing:
        raise Silence(f"missing {missing}") from None
    except ValueError as wrong:
        raise Silence("template", str(wrong)) from None


def words(person: Person, facts: Facts, prepared: Prepared, until: int, context: Context) -> Words:
    """The words for this person. Silence when they need a value that is not known, or cannot be made."""
    content = _content(prepared, person, facts, context)
    discount = coupons.discount(person, prepared.pool, context.rules) if prepared.pool else None
    return Words(content, prepared, until, discount)


def _device(person: Person, facts: Facts, rule: CampaignRule) -> str:
    if not rule.on_site:
        return ""
    return (person.session.device if person.session is not None else "") or facts.device


def speak(person: Person, facts: Facts, proposal: Proposal, side: Side, context: Context,
          limited: tuple[str, str] = ("", "")) -> Send | Message:
    """Say it. Silence when there is no coupon for them, or no words.

    `limited` is the limit that stands in the way unless this only fills a slot again with what it shows already.
    """
    rule = proposal.rule
    prepared = prepare(rule, _device(person, facts, rule), context.rules, side.variant)
    said = words(person, facts, prepared, promise(person, facts, rule, prepared, context), context)
    if not rule.on_site:
        return _write(person, facts, proposal, side, said, context)
    key = ""
    if rule.format == "slot":
        key = blake2b(_encode(said.content), digest_size=8).hexdigest()
        if limited[0] and not fills_already(person, rule.name, key):
            raise Silence(*limited)
        for waiting in [one for one in person.reserved if _place(one, context) == rule.place]:
            released(person, waiting.action_id)
    return _show(person, facts, proposal, side, said, key, context)


def _show(person: Person, facts: Facts, proposal: Proposal, side: Side, said: Words, key: str,
          context: Context) -> Send:
    rule, session, now = proposal.rule, person.session, context.now
    anonymous_id = session.anonymous_id if session is not None else ""
    occasion = proposal.occasion or rule.occasion
    held, failed = rule.explain(person, facts, now)
    run = person.runs.get(proposal.run) if proposal.run else None
    workflow = run.workflow if run is not None else ""
    action = Send(
        id=context.id(NAME), at=now, person=person.id, anonymous_id=anonymous_id, campaign=rule.name,
        format=rule.format, content=said.content, not_after=said.until, priority=rule.priority,
        disarm_on=rule.campaign.disarm_on, slot=rule.campaign.slot, discount=said.discount,
        because=Because(
            trigger=occasion, held=held, failed=failed, playbook=context.rules.short,
            model=context.model.hash if context.model is not None else "", variant=said.prepared.variant,
            propensity=side.propensity, workflow=workflow))
    reserve(person, Reserved(
        action.id, rule.name, action.not_after, anonymous_id, side.variant, side.propensity, workflow, key,
        proposal.run))
    if rule.seconds and session is not None:
        session.sent.append(rule.name)
    remember(person, rule.name, now, "send", occasion, because(held), action.id)
    return action


def _write(person: Person, facts: Facts, proposal: Proposal, side: Side, said: Words, context: Context) -> Message:
    rule = proposal.rule
    message = write(person, facts, rule, side, said.content, context, proposal.run, proposal.occasion, said.until)
    reserve(person, Reserved(message.id, rule.name, message.not_after, "", side.variant, side.propensity,
                             message.workflow, run=proposal.run))
    remember(person, rule.name, context.now, "send", message.because.trigger, because(message.because.held), message.id)
    return message


def _place(reserved: Reserved, context: Context) -> str:
    rule = context.rules.campaigns.get(reserved.campaign)
    return rule.place if rule is not None else ""
