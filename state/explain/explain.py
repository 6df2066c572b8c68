"""Explain: what is known of a person, and why the last things were said to them or held back, in plain words.

The next look: for what somebody will be looked at again, in plain words, from the name of a timer of theirs.

>>> person = Person(id="a:x", pending_goals=[PendingGoal("exit_offer", "clicks-3-7", 5, 9)])
>>> describe_timer("goal:clicks-3-7", person), describe_timer("segment:asleep", person)
('the attribution window of exit_offer ends', 'membership in asleep may change')
>>> describe_timer("untag:vip", person)
'membership in vip ends'
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from domain.action import Explanation
from domain.duration import format_times, pluralize
from domain.money import to_major
from domain.playbook.shop import rfm_group
from domain.record import partition_of
from state.explain.why_not import describe_wait, unknown_name, why_not
from state.local_time import format_local_time
from state.person import codec
from state.person.model import (
    Decision,
    ExposureCounter,
    PendingGoal,
    PendingSend,
    Person,
    ProfileFragment,
    person_key,
    routing_key,
)
from state.playbook.compiled import Rules, funnel_stage
from state.profile.profile import merged_profile

_TIMER_DESCRIPTIONS: dict[str, Callable[[str, Person], str]] = {
    "again": lambda about, person: "a follow-up step runs immediately",
    "arm": lambda about, person: "the preloaded offer is selected again",
    "coupon": lambda about, person: f"the coupon {about} expires unless it is used",
    "goal": lambda about, person: f"the attribution window of {_campaign_of(person.pending_goals, about)} ends",
    "later": lambda about, person: f"the deferred campaign {about} is decided",
    "reserved": lambda about, person: f"{_campaign_of(person.pending_sends, about)} expires unless it is shown",
    "rfm": lambda about, person: "the RFM recency class changes",
    "seconds": lambda about, person: "a time-on-site trigger may fire",
    "segment": lambda about, person: f"membership in {about} may change",
    "session_end": lambda about, person: "the session ends unless there is more activity",
    "untag": lambda about, person: f"membership in {about} ends",
    "workflow": lambda about, person: f"{_describe_run(about, person)} continues",
}


def describe_timer(timer: str, person: Person) -> str:
    """What comes when this timer of the person is due; the timer itself when nothing is known of its kind."""
    kind, _, about = timer.partition(":")
    say = _TIMER_DESCRIPTIONS.get(kind)
    return say(about, person) if say is not None else timer


def _campaign_of(entries: list[PendingGoal] | list[PendingSend], action_id: str) -> str:
    return next((one.campaign for one in entries if one.action_id == action_id), "a campaign")


def _describe_run(run_id: str, person: Person) -> str:
    found = person.runs.get(run_id)
    return f"the workflow {found.workflow}" if found is not None else "a workflow"


MAX_SHOWN_CAMPAIGNS = 50
"""Campaigns that are shown of one person."""

MAX_SHOWN_MESSAGES = 10
"""Messages that are shown of one person."""

ReadPerson = Callable[[int, str], bytes | None]
"""(partition, person key) -> the person's bytes."""


def find_persons(any_id: str, read_person: ReadPerson, partitions: int) -> list[Person]:
    """The persons an id may mean: a person key as it is, else the customer of this id, else the browser of this id.

    Who became an alias of a known customer is followed there.
    """
    keys = (
        [any_id]
        if any_id[:2] in ("u:", "a:")
        else [key for key in (person_key(any_id, None), person_key(None, any_id)) if key]
    )
    found: list[Person] = []
    for named in keys:
        key, seen = named, set[str]()
        while key and key not in seen:
            seen.add(key)
            kept = read_person(partition_of(routing_key(key), partitions), key)
            if kept is None:
                break
            person = codec.decode(kept)
            if not person.merged_into:
                if all(other.id != person.id for other in found):
                    found.append(person)
                break
            key = person.merged_into
    return found


def format_money(minor: int, currency: str) -> str:
    """An amount as people read it, with the digits its currency has; without one, two.

    >>> format_money(1250, "EUR"), format_money(1500, "JPY"), format_money(1250, "")
    ('12.50 EUR', '1500 JPY', '12.50')
    """
    return f"{to_major(minor, currency)} {currency}".strip()


LoggedExplanations = Mapping[str, Explanation]
"""What the log holds of decisions: by the id of the action, and by `held_at` for those that have none."""


def decision_key(campaign: str, at: int) -> str:
    """The key of a decision that is known by its campaign and its time (ms) alone."""
    return f"{campaign} {at}"


def explain(
    person: Person,
    currency: str,
    name: str = "",
    rules: Rules | None = None,
    now: int = 0,
    timezone: str = "UTC",
    logged: LoggedExplanations | None = None,
) -> str:
    """A page of text about one person; with `name`, why they got that campaign, or are in that workflow or segment.

    With the live `rules`, what stands in its way at `now` (ms) is told too. Times are those of the `zone`, which is
    said once; `told` adds to a decision which variant, and by which playbook.
    """
    page = _Report(currency, timezone, logged or {})
    if not name:
        return "\n".join([*page.summary(person), "", *page.decisions(person, "")])
    lines = [f"{person.id}  (times are those of {timezone})"]
    decided = (
        name in person.decisions
        or name in person.exposures
        or any(one.campaign == name for one in person.decision_history)
    )
    if decided or rules is None or name in rules.campaigns:
        lines += page.decisions(person, name)
    if rules is not None:
        lines += why_not(person, name, rules, now, page.format_time)
        lines += filter(None, [unknown_name(person, name, rules)])
    return "\n".join(lines)


class _Report:
    """What is said the same way everywhere on the page."""

    def __init__(self, currency: str, timezone: str, logged: LoggedExplanations) -> None:
        self.currency, self.timezone, self.logged = currency, timezone, logged
        self.format_time = partial(format_local_time, timezone=timezone)

    def summary(self, person: Person) -> Iterator[str]:
        facts = merged_profile(person)
        kind = "known customer" if person.id.startswith("u:") else "anonymous visitor"
        yield f"{person.id}  ({kind})" + ("  classified as a bot" if person.bot else "")
        if joined := [name for name, link in person.identity_links.items() if link.state == "merged"]:
            yield "  also known as   " + ", ".join(joined)
        last = (
            f"{self.format_time(facts.last_seen)} ({self.timezone})" if facts.last_seen else "never (no browser events)"
        )
        yield f"  first seen      {self.format_time(facts.first_seen)}   last seen {last}"
        about = [word for word in (facts.device, facts.country, facts.locale, facts.timezone) if word]
        if about:
            yield "  from            " + ", ".join(about)
        if facts.traits:
            traits = [f"{name} = {trait.value}" for name, trait in sorted(facts.traits.items())]
            yield "  traits          " + ", ".join(traits)
        for name, trait in sorted(facts.consent.items()):
            yield f"  consent         {name}: {'given' if trait.value else 'refused'} on {self.format_time(trait.at)}"
        yield from self._activity(facts)
        session = person.session
        if session is not None:
            first = ", first session" if session.first_session else ""
            seen = f"{pluralize(session.pages, 'page')}, {pluralize(session.products, 'product')}"
            yield (
                f"  session         since {self.format_time(session.started_at)}: {seen}, "
                f"{session.cart_adds} added to the cart{first}"
            )
        if person.cart is not None and person.cart.items:
            worth = format_money(person.cart.value, self.currency)
            yield f"  cart            {pluralize(len(person.cart.items), 'product')}, {worth}"
        if person.score is not None:
            band = f" ({person.band})" if person.band else ""
            yield f"  score           {person.score:.1%} likely to buy in this session{band}"
        if person.rfm:
            yield f"  rfm             {person.rfm} ({rfm_group(person.rfm).replace('_', ' ')})"
        if stage := funnel_stage(person):
            yield f"  stage           {stage}"
        for one in reversed(person.messages[-MAX_SHOWN_MESSAGES:]):
            yield f"  message         {one.campaign} by {one.channel} on {self.format_time(one.sent_at)}: {one.status}"
        for name, at in sorted(person.suppressed_addresses.items(), key=lambda item: item[1]):
            yield f"  suppressed      by {name.partition(':')[0]}: address suppressed on {self.format_time(at)}"
        for name, at in sorted(person.segments.items()):
            yield f"  in segment      {name} since {self.format_time(at)}"
        for coupon in person.coupons:
            ends = f", until {self.format_time(coupon.until)}" if coupon.state == "reserved" else ""
            order = f" by order {coupon.order_id}" if coupon.state == "redeemed" else ""
            yield f"  coupon          {coupon.code} ({coupon.pool}): {coupon.state}{order}{ends}"
        yield from self._workflow_runs(person)
        for name, due in sorted(person.timers.items(), key=lambda item: item[1]):
            yield f"  timer           {self.format_time(due)}  ({describe_timer(name, person)})"

    def _workflow_runs(self, person: Person) -> Iterator[str]:
        """Where they are on their ways through workflows, since when, and what they wait for."""
        for run in sorted(person.runs.values(), key=lambda run: (run.started_at, run.workflow)):
            yield (
                f"  in workflow     {run.workflow} since {self.format_time(run.started_at)} ({run.trigger}), "
                f"at {run.step_id} since {self.format_time(run.step_since)}"
            )
            waits = (describe_wait(run.waiting_for)) or "nothing"
            yield f"{'':18}waits for {waits}" + (
                f", until {self.format_time(run.wait_until)}" if run.wait_until else ""
            )
        for name, been in sorted(person.completed_runs.items()):
            yield (
                f"  was in workflow {name}: {format_times(been.count)}, last exit {self.format_time(been.last_exit_at)}"
            )

    def _activity(self, profile: ProfileFragment) -> Iterator[str]:
        for name, count in sorted(profile.lifetime_counts.items(), key=lambda item: -item[1].last_at):
            yield f"  did             {name}: {format_times(count.count)}, last {self.format_time(count.last_at)}"
        if profile.order_count:
            yield (
                f"  orders          {profile.order_count}, {format_money(profile.revenue, self.currency)} net, last "
                f"{self.format_time(profile.last_order_at)}"
            )
        if profile.viewed_products:
            newest = reversed(profile.viewed_products[-5:])
            yield "  viewed          " + ", ".join(seen.name or seen.product_id for seen in newest)

    def decisions(self, person: Person, campaign: str) -> Iterator[str]:
        lines = [
            self._format_decision(name, person.decisions.get(name), person.exposures.get(name, ExposureCounter()))
            for name in dict.fromkeys([*person.decisions, *person.exposures])
            if not campaign or name == campaign
        ]
        lines += [
            self._format_decision(
                one.campaign, Decision(one.at, one.kind, one.reason, one.detail, one.action_id), ExposureCounter()
            )
            for one in person.decision_history
            if not campaign or one.campaign == campaign
        ]
        if not lines:
            yield f"No decision about {campaign} yet." if campaign else "No decisions yet."
            return
        yield "Decisions, newest first"
        newest = sorted(lines, key=lambda found: -found[0])
        for _, words in newest[:MAX_SHOWN_CAMPAIGNS]:
            yield from words
        if len(newest) > MAX_SHOWN_CAMPAIGNS:
            yield f"  and {len(newest) - MAX_SHOWN_CAMPAIGNS} older decisions"

    def _format_decision(
        self, name: str, decision: Decision | None, exposure: ExposureCounter
    ) -> tuple[int, list[str]]:
        """The last word about a campaign: when, and the lines."""
        often = (
            [f"{'':33}shown {format_times(exposure.total)}, last {self.format_time(exposure.last_at)}"]
            if exposure.total
            else []
        )
        if decision is None:  # said under another id, or long ago: that it was said is remembered longer than why
            when = self.format_time(exposure.last_at)
            return exposure.last_at, [f"  {when}  shown     {name:<24}  reason no longer stored", *often]
        if decision.kind in ("suppress", "cancel"):
            why = f"{decision.reason}: {decision.detail}" if decision.detail else decision.reason
            held = []
        else:
            why, held = decision.reason, [f"{'':33}because {decision.detail}"] if decision.detail else []
        head = f"  {self.format_time(decision.at)}  {decision.kind:<8}  {name:<24}  {why}".rstrip()
        with_what = self._variant_and_playbook(
            self.logged.get(decision.action_id) or self.logged.get(decision_key(name, decision.at))
        )
        return decision.at, [head, *held, *with_what, *often]

    def _variant_and_playbook(self, explanation: Explanation | None) -> Iterator[str]:
        """The variant and the version of the playbook that it was decided with, as far as that is known."""
        if explanation is None:
            return
        parts = [f"variant {explanation.variant}"] if explanation.variant not in ("", "default") else []
        if explanation.propensity < 1.0:
            parts.append(f"assigned with probability {explanation.propensity:.1%}")
        parts += [f"playbook {explanation.playbook}"] if explanation.playbook else []
        if parts:
            yield f"{'':33}with {', '.join(parts)}"
