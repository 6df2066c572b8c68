"""The timeline of one person in a backtest: events, decisions and their reasons."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from domain.action import Cancel, CouponEvent, Message, Preload, SegmentChange, Send, Suppress, WorkflowProgress
from domain.event import Event
from flows.simulation.reactions import TimelineEntry
from state.local_time import zone_info
from state.playbook.compiled import Rules

SHOWN_PROPERTIES = ("product_id", "name", "query", "value", "price", "campaign", "order_id", "path")
"""Properties that are printed with an event."""
MAX_WIDTH = 60


def format_timeline(entries: Iterable[TimelineEntry], rules: Rules, campaign: str = "") -> list[str]:
    """Return the lines in time order; with `campaign`, only decisions about it."""
    lines: list[str] = []
    last_day = None
    zone = zone_info(rules.shop.timezone)
    for entry in sorted(entries, key=lambda entry: entry.at):
        day, time = datetime.fromtimestamp(entry.at / 1000, zone).strftime("%Y-%m-%d %H:%M:%S").split()
        for text in _format_entry(entry, rules, campaign):
            if day != last_day:
                lines.append(f"{day} ({rules.shop.timezone})")
                last_day = day
            lines.append(f"  {time}  {text}")
    return lines or ["No events or decisions in this period."]


def _format_entry(entry: TimelineEntry, rules: Rules, campaign: str) -> Iterator[str]:
    effect, delivery = entry.effect, entry.delivery
    if isinstance(effect, Cancel) and effect.because.reason == "shown":
        return  # implied by the entry that shows the offer
    if entry.event is not None:
        yield f"{entry.event.name}{_format_properties(entry.event)}"
    elif delivery is not None:
        if campaign in ("", delivery.campaign):
            yield f"{'':4}{entry.kind:<10}{delivery.campaign}"
    elif isinstance(effect, SegmentChange):
        yield f"{'':4}{'entered' if effect.entered else 'exited':<10}{effect.segment}"
    elif isinstance(effect, WorkflowProgress):
        yield f"{'':4}workflow {effect.workflow}: {effect.describe}"
    elif isinstance(effect, CouponEvent):
        yield f"{'':4}coupon of {effect.pool}: {effect.status}"
    elif isinstance(effect, Send | Preload | Suppress | Cancel | Message) and campaign in ("", effect.campaign):
        yield f"{'':4}{_effect_label(effect):<10}{effect.campaign}{_format_reason(effect)}"


def _effect_label(effect: Send | Preload | Suppress | Cancel | Message) -> str:
    if isinstance(effect, Message):
        return "withdrawn" if effect.withdrawn_id else effect.channel
    return type(effect).__name__.lower()


def _format_reason(effect: Send | Preload | Suppress | Cancel | Message) -> str:
    because = effect.because
    if isinstance(effect, Suppress | Cancel):
        reason = because.reason or because.trigger
        return f"  {reason}: {because.detail}" if because.detail else f"  {reason}"
    conditions = "; ".join(because.passed)
    if len(conditions) > 2 * MAX_WIDTH:
        conditions = conditions[: 2 * MAX_WIDTH - 1] + "…"
    return f"  {because.trigger}" + (f", because {conditions}" if conditions else "")


def _format_properties(event: Event) -> str:
    properties: dict[str, Any] = getattr(event, "properties", None) or {}
    text = ", ".join(
        f"{name} {properties[name]}" for name in SHOWN_PROPERTIES if isinstance(properties.get(name), str | int | float)
    )
    return f"  {text[:MAX_WIDTH]}" if text else ""
