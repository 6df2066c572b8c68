"""Predicates: testable statements with a description, dependencies and index keys.

country is one of ("CA",)     a table lookup by the person's country
pages is at least 3           a lookup in sorted numbers
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from domain.playbook.condition import Funnel, Rfm, Score
from domain.playbook.shop import Shop, rfm_group
from state.person.model import Person, ProfileFragment

Test = Callable[[Person, ProfileFragment, int], bool]
Describe = Callable[[Person, ProfileFragment, int], str]
NextChange = Callable[[Person, ProfileFragment, int], int | None]


class Predicate(NamedTuple):
    """One testable statement. `change` is there when time alone can turn it.

    `also` are more needs, where one is not enough.
    """

    test: Test
    describe: Describe
    depends_on: str
    next_change: NextChange | None = None
    also_depends_on: tuple[str, ...] = ()


def has_consent(profile: ProfileFragment, purpose: str, shop: Shop) -> bool:
    """Whether the person agreed to this purpose, or the shop's default does where they have not answered."""
    answer = profile.consent.get(purpose)
    if answer is None or answer.value is None:
        return shop.consent.purposes.get(purpose, shop.consent.default) == "granted"
    return answer.value is True or answer.value == "granted"


def as_tuple(value: str | tuple[str, ...]) -> tuple[str, ...]:
    """Return one or several texts as a tuple."""
    return value if isinstance(value, tuple) else (value,)


def join_or(names: Iterable[str]) -> str:
    """Join names as alternatives.

    >>> join_or(["CA", "US"])
    'CA or US'
    """
    return " or ".join(names)


def elapsed(now: int, at: int) -> int:
    """Return the elapsed time (ms); 0 for times in the future, which other clocks can produce."""
    return max(0, now - at)


def score_predicates(condition: Score) -> list[Predicate]:
    """How likely they are to buy."""
    found: list[Predicate] = []
    for share, least in ((condition.at_least, True), (condition.below, False)):
        if share is not None:
            found.append(_score_predicate(share, least))
    if condition.band is not None:
        found.append(band_predicate(condition.band))
    return found


def _score_predicate(threshold: float, is_minimum: bool) -> Predicate:
    def words(p: Person, f: ProfileFragment, now: int) -> str:
        is_now = "not known" if p.score is None else f"{p.score:.2f}"
        return f"{'at least' if is_minimum else 'less than'} {threshold:g} likely to buy ({is_now})"

    if is_minimum:
        return Predicate(lambda p, f, now: p.score is not None and p.score >= threshold, words, "score")
    return Predicate(lambda p, f, now: p.score is not None and p.score < threshold, words, "score")


def band_predicate(name: str) -> Predicate:
    """They are in this learned segment."""
    return Predicate(
        lambda p, f, now: p.band == name, lambda p, f, now: f"is in {name} ({p.band or 'not known'})", "score"
    )


def segment_predicate(name: str) -> Predicate:
    """They belong to this segment."""
    return Predicate(lambda p, f, now: name in p.segments, lambda p, f, now: f"is in {name}", "segment:" + name)


def rfm_predicates(condition: Rfm) -> list[Predicate]:
    """Where they stand by recency, frequency and money; nowhere without an order."""
    found: list[Predicate] = []
    if condition.group is not None:
        groups = frozenset(as_tuple(condition.group))
        named = join_or(as_tuple(condition.group)).replace("_", " ")
        found.append(
            Predicate(
                lambda p, f, now: rfm_group(p.rfm) in groups,
                lambda p, f, now: f"RFM group {named} ({rfm_group(p.rfm).replace('_', ' ') or 'never ordered'})",
                "rfm",
            )
        )
    for place, name, least, most in (
        (0, "recency", condition.recency_at_least, condition.recency_at_most),
        (1, "frequency", condition.frequency_at_least, condition.frequency_at_most),
        (2, "monetary", condition.monetary_at_least, condition.monetary_at_most),
    ):
        if least is not None:
            found.append(_rfm_digit_predicate(name, place, frozenset(map(str, range(least, 6))), f"at least {least}"))
        if most is not None:
            found.append(_rfm_digit_predicate(name, place, frozenset(map(str, range(1, most + 1))), f"at most {most}"))
    return found


def _rfm_digit_predicate(name: str, position: int, wanted: frozenset[str], description: str) -> Predicate:
    return Predicate(
        lambda p, f, now: p.rfm[position : position + 1] in wanted,
        lambda p, f, now: f"{name} {description} of 5 ({'is ' + p.rfm[position] if p.rfm else 'never ordered'})",
        "rfm",
    )


def funnel_predicates(condition: Funnel, shop: Shop) -> list[Predicate]:
    """The stage they are at; `at_least` goes by the order of the stages in `shop.toml`."""
    found: list[Predicate] = []
    stages = [stage.name for stage in shop.funnel]
    if condition.stage is not None:
        found.append(
            _stage_predicate(as_tuple(condition.stage), "at stage " + join_or(as_tuple(condition.stage)), stages)
        )
    if condition.at_least is not None:
        first = stages.index(condition.at_least) if condition.at_least in stages else len(stages)
        found.append(
            _stage_predicate(
                tuple(stages[first:]) or (condition.at_least,), f"at stage {condition.at_least} or later", stages
            )
        )
    return found


def _stage_predicate(wanted: tuple[str, ...], description: str, stages: list[str]) -> Predicate:
    segments = tuple(STAGE_PREFIX + name for name in wanted)
    needs = tuple("segment:" + name for name in segments)

    def test(p: Person, f: ProfileFragment, now: int) -> bool:
        return any(name in p.segments for name in segments)

    def words(p: Person, f: ProfileFragment, now: int) -> str:
        return (
            f"{description} of the funnel ({join_or(s for s in stages if STAGE_PREFIX + s in p.segments) or 'at none'})"
        )

    return Predicate(test, words, needs[0], also_depends_on=needs[1:])


STAGE_PREFIX = "funnel_"
"""What the segment of a stage is called, before its name."""


Getter = Callable[[Person, ProfileFragment], Any]


class IndexKey(NamedTuple):
    """One statement that can be looked up. `read` gives what the person has.

    | `kind` | it is true when |
    |---|---|
    | one | that value is among `values` |
    | many | one of those values is |
    | part | one of `values` is a part of that text |
    | least | that number is `least` or more (None: there is none) |

    `about` is the same for statements about the same thing; `share` is a guess of the share of people of whom such a
    statement is true.
    """

    kind: str
    attribute: str
    getter: Getter
    selectivity: float
    values: tuple[Any, ...] = ()
    minimum: float = 0


def equals(attribute: str, values: Iterable[Any], getter: Getter, selectivity: float) -> IndexKey:
    """What they have is one of these."""
    return IndexKey("equals", attribute, getter, selectivity, tuple(dict.fromkeys(values)))


def any_of(attribute: str, values: Iterable[Any], getter: Getter, selectivity: float) -> IndexKey:
    """One of those that they have is one of these."""
    return IndexKey("any_of", attribute, getter, selectivity, tuple(dict.fromkeys(values)))


def at_least(attribute: str, minimum: float, getter: Getter, selectivity: float = 0.3) -> IndexKey:
    """The number that they have is this or more."""
    return IndexKey("at_least", attribute, getter, selectivity, minimum=minimum)


def substring(attribute: str, values: Iterable[str], getter: Getter, selectivity: float) -> IndexKey:
    """The text that they have contains one of these."""
    return IndexKey("substring", attribute, getter, selectivity, tuple(dict.fromkeys(values)))
