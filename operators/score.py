"""score: how likely is it that this visit ends in an order; and which moment of it is learned from.

    features of the visit ──▶ the live model ──▶ person.score ──▶ band: likely_buyers, undecided, unlikely
                        └──▶ one evenly chosen moment of the visit, kept for the learner

**Bands** compare the odds of the score with the odds of the base rate (the share of the latest visits that ended in an
order), so they mean the same in a shop where 1 % buy and in one where 20 % do. Getting in is harder than staying in, so
nobody flickers:

| band | enters at | stays until |
|---|---|---|
| `likely_buyers` | 3 times the base odds, or more | below 2 times |
| `unlikely` | half of the base odds, or less | above 0.7 times |
| `undecided` | everyone else who has a score | |

The band is a segment like any other: `Move` says who entered and left. It is kept between visits. Once somebody has
ordered there is nothing left to predict in that visit: no score and no band, until the next one. Without a model there
is neither; with one that has seen fewer than 5 visits of either kind there is a score and no band.

**The moment.** Of the events of a visit before its order each is kept with the same probability (reservoir sampling:
the k-th takes the place of what was kept with probability 1/k). The draw depends on the visit's id and k alone, so a
re-run keeps the same one. Learning from one moment per visit keeps long visits from counting many times, and a moment
anywhere in the visit is what the model is asked about. The features are those after folding that event.
"""

import math
from collections.abc import Sequence
from operator import mul

from domain.action import Because, Move
from domain.effect import Effect
from domain.letter import Letter
from domain.model import Model
from state.context import Context, Due, Happening
from state.features import NAMES, named, row
from state.person import Person
from state.sessions import chance

NAME = "score"

LIKELY, UNDECIDED, UNLIKELY = "likely_buyers", "undecided", "unlikely"

ENTER_LIKELY, LEAVE_LIKELY = 3.0, 2.0
ENTER_UNLIKELY, LEAVE_UNLIKELY = 0.5, 0.7
"""Odds, as multiples of the base odds."""

ENOUGH = 5
"""Visits with an order, and visits without, that a model must have seen before it puts anybody into a band."""


def _bands(model: Model) -> tuple[float, float, float, float] | None:
    """The scores at which the bands begin and end; None while the base rate is unknown."""
    quality = model.quality
    if min(quality.positives, quality.examples - quality.positives) < ENOUGH:
        return None
    base = quality.base_rate or quality.positives / quality.examples
    odds = base / (1 - base)
    enter, leave, enter_low, leave_low = [
        times * odds / (1 + times * odds) for times in (ENTER_LIKELY, LEAVE_LIKELY, ENTER_UNLIKELY, LEAVE_UNLIKELY)
    ]
    return enter, leave, enter_low, leave_low


_NO_EVENT = (Due, Letter)


class Ready:
    """A model made ready: weights in the order of NAMES with the scales folded in, and where the bands begin."""

    __slots__ = ("bands", "bias", "model", "weights")

    def __init__(self, model: Model) -> None:
        self.model = model
        self.bias = model.intercept
        slopes = {}
        for name, weight in model.weights.items():
            scale = model.scales.get(name, 1.0)
            if scale > 0:
                slopes[name] = weight / scale
                self.bias -= slopes[name] * model.means.get(name, 0.0)
        self.weights = tuple([slopes.get(name, 0.0) for name in NAMES])
        self.bands = _bands(model)

    def predict(self, values: tuple[float, ...]) -> float:
        """The probability for one row: what `Model.predict` says, faster.

        >>> model = Model("propensity", 1, "h", {"events": 2.0}, {"events": 1.0}, {"events": 4.0}, 0.5)
        >>> values = (3.0,) + (0.0,) * (len(NAMES) - 1)
        >>> round(Ready(model).predict(values), 6) == round(model.predict({"events": 3.0}), 6)
        True
        """
        total = self.bias + sum(map(mul, self.weights, values))
        if total > 35.0:
            total = 35.0
        elif total < -35.0:
            total = -35.0
        return 1.0 / (1.0 + math.exp(-total))

    def band(self, score: float, now_in: str) -> str:
        """The band of a score, for somebody who is in `now_in` ("" for none)."""
        bands = self.bands
        if bands is None:
            return ""
        if score >= (bands[1] if now_in == LIKELY else bands[0]):
            return LIKELY
        if score <= (bands[3] if now_in == UNLIKELY else bands[2]):
            return UNLIKELY
        return UNDECIDED


_live = Ready(Model("propensity", 0, "", {}))


def step(person: Person, event: Happening, context: Context) -> Sequence[Effect]:
    """Score the visit after this event, keep its moment if it is drawn, and say who changes bands."""
    session = person.session
    if session is None or isinstance(event, _NO_EVENT):
        return ()
    model = context.model
    if session.ordered:
        person.score = None
        return _enter(person, "", model, event.name, context) if person.band else ()
    offered = session.events
    drawn = offered > session.snapshots
    if drawn:
        session.snapshots = offered
        drawn = chance(session.id, offered) * offered < 1.0
    if model is None:
        if drawn:
            session.snapshot, session.snapshot_at = named(row(person, session.last_at)), session.last_at
            session.snapshot_score, session.snapshot_model = None, ""
        return ()
    values = row(person, session.last_at)
    ready = _live if _live.model is model else _turn_to(model)
    score = person.score = ready.predict(values)
    if drawn:
        session.snapshot, session.snapshot_at = named(values), session.last_at
        session.snapshot_score, session.snapshot_model = score, model.hash
    band = ready.band(score, person.band)
    return _enter(person, band, model, event.name, context) if band != person.band else ()


def _turn_to(model: Model) -> Ready:
    """Make a new model ready, once."""
    global _live
    _live = Ready(model)
    return _live


def _enter(person: Person, band: str, model: Model | None, trigger: str, context: Context) -> Sequence[Effect]:
    """Leave one band, enter another."""
    held = (f"score {person.score:.4f}",) if person.score is not None else ("ordered in this visit",)
    because = Because(trigger=trigger, held=held, playbook=context.rules.short, model=model.hash if model else "")
    anonymous_id = person.session.anonymous_id if person.session is not None else ""
    moves = []
    if person.band:
        person.segments.pop(person.band, None)
        moves.append(Move(id=context.id(NAME), at=context.now, person=person.id, anonymous_id=anonymous_id,
                          because=because, segment=person.band, entered=False))
    if band:
        person.segments[band] = context.now
        moves.append(Move(id=context.id(NAME), at=context.now, person=person.id, anonymous_id=anonymous_id,
                          because=because, segment=band, entered=True))
    person.band = band
    context.moves += moves
    return moves
