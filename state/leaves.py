"""Leaves: the single statements that conditions are made of, each a test with its words.

A leaf says what can change its answer (`needs`, `also`) and when time alone will (`change`). `state/conditions.py` puts
them together. Here are those about where a person belongs; `leaves_did.py` has what they did, `leaves_has.py` what is
known of them, `leaves_visit.py` the visit and the cart, `leaves_dealings.py` orders, coupons and what was said.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from domain.condition import Funnel, Rfm, Score
from domain.rfm_groups import group_of
from domain.shop import Shop
from state.person import Facts, Person

Test = Callable[[Person, Facts, int], bool]
Words = Callable[[Person, Facts, int], str]
Change = Callable[[Person, Facts, int], int | None]


class Leaf(NamedTuple):
    """One testable statement. `change` is there when time alone can turn it.

    `also` are more needs, where one is not enough.
    """

    test: Test
    words: Words
    needs: str
    change: Change | None = None
    also: tuple[str, ...] = ()


def granted(facts: Facts, purpose: str, shop: Shop) -> bool:
    """Whether the person agreed to this purpose, or the shop's default does where they have not answered."""
    answer = facts.consent.get(purpose)
    if answer is None or answer.value is None:
        return shop.consent.purposes.get(purpose, shop.consent.default) == "granted"
    return answer.value is True or answer.value == "granted"


def texts(value: str | tuple[str, ...]) -> tuple[str, ...]:
    """One text or several, as several."""
    return value if isinstance(value, tuple) else (value,)


def either(names: Iterable[str]) -> str:
    """Names, as alternatives.

    >>> either(["CA", "US"])
    'CA or US'
    """
    return " or ".join(names)


def age(now: int, at: int) -> int:
    """How long ago that was (ms); what other clocks put into the future is now."""
    return max(0, now - at)


def score(part: Score) -> list[Leaf]:
    """How likely they are to buy."""
    found: list[Leaf] = []
    for share, least in ((part.at_least, True), (part.below, False)):
        if share is not None:
            found.append(_probability(share, least))
    if part.band is not None:
        found.append(band(part.band))
    return found


def _probability(share: float, least: bool) -> Leaf:
    def words(p: Person, f: Facts, now: int) -> str:
        is_now = "not known" if p.score is None else f"{p.score:.2f}"
        return f"{'at least' if least else 'less than'} {share:g} likely to buy ({is_now})"

    if least:
        return Leaf(lambda p, f, now: p.score is not None and p.score >= share, words, "score")
    return Leaf(lambda p, f, now: p.score is not None and p.score < share, words, "score")


def band(name: str) -> Leaf:
    """They are in this learned segment."""
    return Leaf(lambda p, f, now: p.band == name,
                lambda p, f, now: f"belongs to {name} ({p.band or 'not known'})", "score")


def member(name: str) -> Leaf:
    """They belong to this segment."""
    return Leaf(lambda p, f, now: name in p.segments, lambda p, f, now: f"belongs to {name}", "segment:" + name)


def rfm(part: Rfm) -> list[Leaf]:
    """Where they stand by recency, frequency and money; nowhere without an order."""
    found: list[Leaf] = []
    if part.group is not None:
        groups = frozenset(texts(part.group))
        named = either(texts(part.group)).replace("_", " ")
        found.append(Leaf(
            lambda p, f, now: group_of(p.rfm) in groups,
            lambda p, f, now: f"RFM group {named} ({group_of(p.rfm).replace('_', ' ') or 'never ordered'})", "rfm"))
    for place, name, least, most in ((0, "recency", part.recency_at_least, part.recency_at_most),
                                     (1, "frequency", part.frequency_at_least, part.frequency_at_most),
                                     (2, "money", part.money_at_least, part.money_at_most)):
        if least is not None:
            found.append(_digit(name, place, frozenset(map(str, range(least, 6))), f"at least {least}"))
        if most is not None:
            found.append(_digit(name, place, frozenset(map(str, range(1, most + 1))), f"at most {most}"))
    return found


def _digit(name: str, place: int, wanted: frozenset[str], said: str) -> Leaf:
    return Leaf(
        lambda p, f, now: p.rfm[place:place + 1] in wanted,
        lambda p, f, now: f"{name} {said} of 5 ({'is ' + p.rfm[place] if p.rfm else 'never ordered'})", "rfm")


def funnel(part: Funnel, shop: Shop) -> list[Leaf]:
    """The stage they are at; `at_least` goes by the order of the stages in `shop.toml`."""
    found: list[Leaf] = []
    stages = [stage.name for stage in shop.funnel]
    if part.stage is not None:
        found.append(_at_stage(texts(part.stage), "at stage " + either(texts(part.stage)), stages))
    if part.at_least is not None:
        first = stages.index(part.at_least) if part.at_least in stages else len(stages)
        found.append(_at_stage(tuple(stages[first:]) or (part.at_least,), f"at stage {part.at_least} or later", stages))
    return found


def _at_stage(wanted: tuple[str, ...], said: str, stages: list[str]) -> Leaf:
    segments = tuple(STAGE + name for name in wanted)
    needs = tuple("segment:" + name for name in segments)

    def test(p: Person, f: Facts, now: int) -> bool:
        return any(name in p.segments for name in segments)

    def words(p: Person, f: Facts, now: int) -> str:
        return f"{said} of the funnel ({either(s for s in stages if STAGE + s in p.segments) or 'at none'})"

    return Leaf(test, words, needs[0], also=needs[1:])


STAGE = "funnel_"
"""What the segment of a stage is called, before its name."""
