"""compose: build the send or message of a campaign for one person.

    variant ─▶ coupon, if the campaign has one ─▶ rendered content ─▶ Send (browser) or Message (channel)

A send reserves its place under the frequency caps until it is shown, accepted or expired
(`state/decisions/exposures.py`). A message contains everything a channel worker needs (recipient, content, expiry,
consent) and is stored in `person.messages`, so that feedback can be matched (`state/decisions/messages.py`).
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Protocol

import msgspec

from domain.action import Discount, Explanation, Message, RenderedContent, Send
from domain.playbook.template import MissingVariable
from operators.render import PreparedContent, content_fingerprint, prepare_content, render_content, template_values
from state.conditions.predicate import has_consent
from state.context import Input, StepContext
from state.coupons import wallet
from state.coupons.wallet import ineligible_trigger
from state.decisions.experiments import Assignment
from state.decisions.exposures import already_filled, release, reserve
from state.decisions.frequency import Candidate
from state.decisions.log import record_decision, summarize_conditions
from state.decisions.messages import track_message
from state.person.addresses import hash_address, reachable_address, reachable_addresses
from state.person.model import PendingSend, Person, ProfileFragment
from state.playbook.campaign import CampaignRule
from state.playbook.compiled import Rules

STEP_NAME = "decide"
MAX_CONTEXT_BYTES = 8_000
"""Maximum bytes of JSON for the values of a message; values that do not fit are omitted."""
MAX_ITEMS = 20
"""Maximum entries of one list in the values of a message."""


class AssignedVariant(Protocol):
    """A person's variant and its propensity (`state/decisions/experiments.py`)."""

    @property
    def variant(self) -> str: ...
    @property
    def propensity(self) -> float: ...


def build_message(
    person: Person,
    profile: ProfileFragment,
    rule: CampaignRule,
    assignment: AssignedVariant,
    content: RenderedContent,
    context: StepContext,
    run_key: str = "",
    trigger: str = "",
    until: int = 0,
) -> Message:
    """Build the message of a campaign for one person, and store it in `person.messages`.

    `run_key` is the workflow run that sends it. `trigger` is the original trigger of a deferred campaign. `until` is
    the latest send time (ms; default: from the campaign's `valid_for`). The caller reserves the place under the
    frequency caps until `not_after`.
    """
    rules, now = context.rules, context.now
    passed, failed = rule.explain(person, profile, now)
    run = person.runs.get(run_key) if run_key else None
    workflow = run.workflow if run is not None else ""
    channel, prepared = rule.format, prepare_content(rule, "", rules, assignment.variant)
    message = Message(
        id=context.next_effect_id(STEP_NAME),
        at=now,
        person=person.id,
        channel=channel,
        campaign=rule.name,
        content_key=message_content_key(rule, assignment.variant, rules),
        not_before=now,
        not_after=until or now + rule.valid_for,
        variant=assignment.variant,
        purpose=rule.purpose,
        addresses=reachable_addresses(person, profile),
        consent=consent_answers(profile, channel, rule.purpose, rules),
        content=content,
        context=limit_values(template_values(prepared, person, profile, rules)),
        language=profile.locale,
        timezone=profile.timezone or rules.shop.timezone,
        workflow=workflow,
        because=Explanation(
            trigger=trigger or rule.trigger_description,
            passed=passed,
            failed=failed,
            playbook=rules.short_hash,
            model=context.model.hash if context.model is not None else "",
            variant=prepared.variant,
            propensity=assignment.propensity,
            workflow=workflow,
        ),
        history=context.history,
    )
    track_message(person, message, hash_address(reachable_address(person, profile, channel)))
    return message


def message_content_key(rule: CampaignRule, variant: str, rules: Rules) -> str:
    """Return a key for the unrendered content, "campaign/variant/hash"; different content has a different hash."""
    cached = rules.templates.get((rule.name, "content_key:" + variant))
    if cached is None:
        campaign = rule.campaign
        chosen = campaign.variants.get(variant)
        content = (chosen.content if chosen is not None else None) or campaign.content
        files = sorted(
            {
                copy.template
                for copy in (content.default, content.desktop, content.mobile, content.tablet)
                if copy is not None and copy.template
            }
        )
        seed = msgspec.json.encode([content, campaign.content, [rules.playbook.templates.get(name) for name in files]])
        cached = f"{rule.name}/{variant or 'default'}/{blake2b(seed, digest_size=6).hexdigest()}"
        rules.templates[rule.name, "content_key:" + variant] = cached
    key: str = cached
    return key


def consent_answers(profile: ProfileFragment, channel: str, purpose: str, rules: Rules) -> dict[str, str]:
    """Return the consent for a purpose, in general and on this channel: "granted", "denied" or "default"."""
    result = {}
    for name in (purpose, f"{channel}:{purpose}"):
        answer = profile.consent.get(name)
        if answer is None or answer.value is None:
            result[name] = "default"
        else:
            result[name] = "granted" if has_consent(profile, name, rules.shop) else "denied"
    return result


def limit_values(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values as plain JSON, sorted by name, at most `MAX_CONTEXT_BYTES` in total.

    >>> limit_values({"b": "x" * 9_000, "a": [{"price": 9.5}], "c": 1})
    {'a': [{'price': 9.5}], 'c': 1}
    """
    result: dict[str, Any] = {}
    left = MAX_CONTEXT_BYTES
    for name in sorted(values):
        value = _to_json_value(values[name])
        size = len(msgspec.json.encode({name: value}))
        if size <= left:
            result[name] = value
            left -= size
    return result


def _to_json_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _to_json_value(one) for name, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_to_json_value(one) for one in value[:MAX_ITEMS]]
    if isinstance(value, float):  # `Price` becomes a plain float
        return float(value)
    return value if value is None or isinstance(value, (str, int)) else str(value)


STEP_NAME = "decide"

_encode = msgspec.json.Encoder().encode


class Suppressed(Exception):
    """The campaign is suppressed, with a reason and its detail."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


class Rendered(msgspec.Struct, frozen=True):
    """Rendered content, the time (ms) until which it is valid, and the discount of its coupon."""

    content: RenderedContent
    prepared: PreparedContent
    until: int
    discount: Discount | None = None


def trigger_not_covered(
    person: Person, profile: ProfileFragment, rule: CampaignRule, event: Input, context: StepContext
) -> tuple[str, str]:
    """Return why the coupon does not cover the trigger, as (reason, detail), or ("", "")."""
    pool, device = context.rules.pools.get(rule.campaign.coupon or ""), _device(person, profile, rule)
    if pool is None:
        return "", ""
    states_minimum = all(
        prepare_content(rule, device, context.rules, variant).states_minimum
        for variant in rule.campaign.variants or ("",)
    )
    return ineligible_trigger(person, pool.pool, event, context.rules, states_minimum=states_minimum)


def ensure_coupon(
    person: Person, profile: ProfileFragment, rule: CampaignRule, prepared: PreparedContent, context: StepContext
) -> int:
    """Reserve the campaign's coupon, if it has one; return the time (ms) until which the content is valid.

    Raises `Suppressed` if no coupon can be reserved or if the content cannot be rendered.

    >>> import msgspec
    >>> from domain.playbook.playbook import Playbook
    >>> from state.playbook.compiled import compile_rules
    >>> hello = {"name": "hello", "format": "bar", "trigger": {"event": "Quiz Finished"}, "valid_for": "10m",
    ...          "content": {"default": {"title": "Hello"}}}
    >>> rules = compile_rules(msgspec.convert({"campaigns": [hello]}, Playbook))
    >>> rule = rules.campaigns["hello"]
    >>> prepared, context = prepare_content(rule, "", rules), StepContext(0, rules)
    >>> ensure_coupon(Person(id="a:ann"), ProfileFragment(), rule, prepared, context)
    600000
    """
    until = context.now + rule.valid_for
    pool = rule.campaign.coupon
    if pool is None:
        return until
    if refused := wallet.ineligibility(person, pool, context):
        raise Suppressed(refused, f"of {pool}")
    if wallet.active_coupon(person, pool, context.now) is None:
        _dry_run(person, profile, rule, prepared, context)
    coupon = wallet.reserve_coupon(person, pool, rule.name, context)
    if isinstance(coupon, str):
        raise Suppressed(coupon, f"of {pool}")
    return min(until, coupon.until)


def _dry_run(
    person: Person, profile: ProfileFragment, rule: CampaignRule, prepared: PreparedContent, context: StepContext
) -> None:
    """Render with a placeholder code before a code is reserved; the result is cached by content fingerprint."""
    dry_runs = person.derived.dry_runs
    key = context.rules.short_hash, content_fingerprint(prepared, person, profile)
    cached = dry_runs.get(rule.name)
    if cached is None or cached[0] != key:
        reason = detail = ""
        try:
            _render(prepared, person, profile, context, wallet.placeholder(prepared.pool, context))
        except Suppressed as suppressed:
            reason, detail = suppressed.reason, suppressed.detail
        cached = dry_runs[rule.name] = key, reason, detail
    if cached[1]:
        raise Suppressed(*cached[1:])


def _render(
    prepared: PreparedContent,
    person: Person,
    profile: ProfileFragment,
    context: StepContext,
    discount: Discount | None = None,
) -> RenderedContent:
    try:
        return render_content(prepared, person, profile, context.rules, discount)
    except MissingVariable as error:
        raise Suppressed(f"missing {error}") from None
    except ValueError as error:
        raise Suppressed("template", str(error)) from None


def render_for_person(
    person: Person, profile: ProfileFragment, prepared: PreparedContent, until: int, context: StepContext
) -> Rendered:
    """Render the content for a person. Raises `Suppressed` if a value is missing or the template fails."""
    content = _render(prepared, person, profile, context)
    discount = wallet.active_discount(person, prepared.pool, context.rules) if prepared.pool else None
    return Rendered(content, prepared, until, discount)


def _device(person: Person, profile: ProfileFragment, rule: CampaignRule) -> str:
    if not rule.on_site:
        return ""
    return (person.session.device if person.session is not None else "") or profile.device


def compose(
    person: Person,
    profile: ProfileFragment,
    candidate: Candidate,
    assignment: Assignment,
    context: StepContext,
    exceeded_cap: tuple[str, str] = ("", ""),
) -> Send | Message:
    """Build the send or message. Raises `Suppressed` if there is no coupon or no content.

    `exceeded_cap` (reason, detail) suppresses a slot, unless the slot already shows the same content.
    """
    rule = candidate.rule
    prepared = prepare_content(rule, _device(person, profile, rule), context.rules, assignment.variant)
    rendered = render_for_person(
        person, profile, prepared, ensure_coupon(person, profile, rule, prepared, context), context
    )
    if not rule.on_site:
        return _compose_message(person, profile, candidate, assignment, rendered, context)
    key = ""
    if rule.format == "slot":
        key = blake2b(_encode(rendered.content), digest_size=8).hexdigest()
        if exceeded_cap[0] and not already_filled(person, rule.name, key):
            raise Suppressed(*exceeded_cap)
        for waiting in [one for one in person.pending_sends if _placement(one, context) == rule.placement]:
            release(person, waiting.action_id)
    return _compose_send(person, profile, candidate, assignment, rendered, key, context)


def _compose_send(
    person: Person,
    profile: ProfileFragment,
    candidate: Candidate,
    assignment: Assignment,
    rendered: Rendered,
    content_key: str,
    context: StepContext,
) -> Send:
    rule, session, now = candidate.rule, person.session, context.now
    anonymous_id = session.anonymous_id if session is not None else ""
    trigger = candidate.trigger or rule.trigger_description
    passed, failed = rule.explain(person, profile, now)
    run = person.runs.get(candidate.run_id) if candidate.run_id else None
    workflow = run.workflow if run is not None else ""
    action = Send(
        id=context.next_effect_id(STEP_NAME),
        at=now,
        person=person.id,
        anonymous_id=anonymous_id,
        campaign=rule.name,
        format=rule.format,
        content=rendered.content,
        not_after=rendered.until,
        priority=rule.priority,
        cancel_on=rule.campaign.cancel_on,
        slot=rule.campaign.slot,
        discount=rendered.discount,
        because=Explanation(
            trigger=trigger,
            passed=passed,
            failed=failed,
            playbook=context.rules.short_hash,
            model=context.model.hash if context.model is not None else "",
            variant=rendered.prepared.variant,
            propensity=assignment.propensity,
            workflow=workflow,
        ),
    )
    reserve(
        person,
        PendingSend(
            action.id,
            rule.name,
            action.not_after,
            anonymous_id,
            assignment.variant,
            assignment.propensity,
            workflow,
            content_key,
            candidate.run_id,
        ),
    )
    if rule.time_on_site and session is not None:
        session.time_triggered.append(rule.name)
    record_decision(person, rule.name, now, "send", trigger, summarize_conditions(passed), action.id)
    return action


def _compose_message(
    person: Person,
    profile: ProfileFragment,
    candidate: Candidate,
    assignment: Assignment,
    rendered: Rendered,
    context: StepContext,
) -> Message:
    rule = candidate.rule
    message = build_message(
        person,
        profile,
        rule,
        assignment,
        rendered.content,
        context,
        candidate.run_id,
        candidate.trigger,
        rendered.until,
    )
    reserve(
        person,
        PendingSend(
            message.id,
            rule.name,
            message.not_after,
            "",
            assignment.variant,
            assignment.propensity,
            message.workflow,
            run_id=candidate.run_id,
        ),
    )
    record_decision(
        person,
        rule.name,
        context.now,
        "send",
        message.because.trigger,
        summarize_conditions(message.because.passed),
        message.id,
    )
    return message


def _placement(pending: PendingSend, context: StepContext) -> str:
    rule = context.rules.campaigns.get(pending.campaign)
    return rule.placement if rule is not None else ""
