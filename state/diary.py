"""Diary: what happened to one person in a rehearsal, in plain words: what they did, what was decided, and why."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from domain.action import Arm, CouponNews, Disarm, Hold, Move, Progress, Send
from domain.event import Event
from domain.message import Message
from state.days import zone
from state.reactions import Note
from state.rules import Rules

TELLING = ("product_id", "name", "query", "value", "price", "campaign", "order_id", "path")
"""Properties worth a word beside an event."""
WIDTH = 60


def diary(notes: Iterable[Note], rules: Rules, campaign: str = "") -> list[str]:
    """The lines, in the order of time; with `campaign`, of decisions only those about this one."""
    lines: list[str] = []
    told = None
    where = zone(rules.shop.timezone)
    for note in sorted(notes, key=lambda one: one.at):
        day, time = datetime.fromtimestamp(note.at / 1000, where).strftime("%Y-%m-%d %H:%M:%S").split()
        for words in _words(note, rules, campaign):
            if day != told:
                lines.append(f"{day} ({rules.shop.timezone})")
                told = day
            lines.append(f"  {time}  {words}")
    return lines or ["Nothing happened in this time."]


def _words(note: Note, rules: Rules, campaign: str) -> Iterator[str]:
    effect, about = note.effect, note.about
    if isinstance(effect, Disarm) and effect.because.reason == "shown":
        return  # what was shown no longer waits: that goes without saying
    if note.event is not None:
        yield f"{note.event.name}{_told(note.event)}"
    elif about is not None:
        if campaign in ("", about.campaign):
            yield f"{'':4}{note.what:<8}{about.campaign}"
    elif isinstance(effect, Move):
        yield f"{'':4}{'entered' if effect.entered else 'left':<8}{effect.segment}"
    elif isinstance(effect, Progress):
        yield f"{'':4}workflow {effect.workflow}: {effect.words}"
    elif isinstance(effect, CouponNews):
        yield f"{'':4}coupon of {effect.pool}: {effect.what}"
    elif isinstance(effect, Send | Arm | Hold | Disarm | Message) and campaign in ("", effect.campaign):
        yield f"{'':4}{_kind(effect):<8}{effect.campaign}{_why(effect)}"


def _kind(effect: Send | Arm | Hold | Disarm | Message) -> str:
    if isinstance(effect, Message):
        return "taken back" if effect.withdraws else effect.channel
    return type(effect).__name__.lower()


def _why(effect: Send | Arm | Hold | Disarm | Message) -> str:
    because = effect.because
    if isinstance(effect, Hold | Disarm):
        words = because.reason or because.trigger
        return f"  {words}: {because.detail}" if because.detail else f"  {words}"
    held = "; ".join(because.held)
    if len(held) > 2 * WIDTH:
        held = held[:2 * WIDTH - 1] + "…"
    return f"  {because.trigger}" + (f", because {held}" if held else "")


def _told(event: Event) -> str:
    properties: dict[str, Any] = getattr(event, "properties", None) or {}
    told = ", ".join(f"{name} {properties[name]}" for name in TELLING
                     if isinstance(properties.get(name), str | int | float))
    return f"  {told[:WIDTH]}" if told else ""
