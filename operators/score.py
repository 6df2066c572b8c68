"""score: predict the probability that the session ends in an order, and sample one snapshot for the learner.

    session features ──▶ live model ──▶ person.score ──▶ band: likely_buyers, undecided, unlikely
                  └──▶ one uniformly sampled snapshot of the session, kept for the learner

**Bands** compare the odds of the score with the odds of the base rate (the share of the latest sessions that ended in
an order). A band therefore means the same in a shop where 1 % buy and in one where 20 % buy. Hysteresis prevents
frequent band changes:

| band | enters at | stays until |
|---|---|---|
| `likely_buyers` | 3 times the base odds, or more | below 2 times |
| `unlikely` | half of the base odds, or less | above 0.7 times |
| `undecided` | any other score | |

A band is a segment: `SegmentChange` reports entries and exits. It is kept between sessions. After an order there is no
score and no band until the next session. Without a model there is neither. If the model has learned from fewer than 5
sessions with an order, or fewer than 5 without, there is a score and no band.

**Snapshot.** Reservoir sampling keeps each event of a session before its order with the same probability: event k
replaces the snapshot with probability 1/k. The draw depends only on the session id and k, so a replay keeps the same
snapshot. One snapshot per session gives long and short sessions the same weight. A uniform sample matches the use of
the model, which predicts at any time in a session. The features include that event.
"""

import math
from collections.abc import Sequence
from operator import mul

from domain.action import Effect, Explanation, SegmentChange, ShardMessage
from domain.model import Model
from state.context import Input, StepContext, TimerFired
from state.person.model import Person
from state.profile.session import FEATURE_NAMES, feature_values, name_features, session_uniform

STEP_NAME = "score"

LIKELY, UNDECIDED, UNLIKELY = "likely_buyers", "undecided", "unlikely"

ENTER_LIKELY, EXIT_LIKELY = 3.0, 2.0
ENTER_UNLIKELY, EXIT_UNLIKELY = 0.5, 0.7
"""Odds, as multiples of the base odds."""

MIN_EXAMPLES_PER_CLASS = 5
"""Minimum sessions with an order, and without, that a model must have learned from before it assigns bands."""


def _band_thresholds(model: Model) -> tuple[float, float, float, float] | None:
    """Return the scores at which people enter and exit the bands, or None if there are too few examples."""
    quality = model.quality
    if min(quality.positives, quality.examples - quality.positives) < MIN_EXAMPLES_PER_CLASS:
        return None
    base = quality.base_rate or quality.positives / quality.examples
    odds = base / (1 - base)
    enter_likely, exit_likely, enter_unlikely, exit_unlikely = [
        factor * odds / (1 + factor * odds) for factor in (ENTER_LIKELY, EXIT_LIKELY, ENTER_UNLIKELY, EXIT_UNLIKELY)
    ]
    return enter_likely, exit_likely, enter_unlikely, exit_unlikely


_NON_EVENTS = (TimerFired, ShardMessage)


class CompiledModel:
    """A model with weights in the order of `FEATURE_NAMES`, scales included, and band thresholds."""

    __slots__ = ("band_thresholds", "bias", "model", "weights")

    def __init__(self, model: Model) -> None:
        self.model = model
        self.bias = model.intercept
        slopes = {}
        for name, weight in model.weights.items():
            scale = model.scales.get(name, 1.0)
            if scale > 0:
                slopes[name] = weight / scale
                self.bias -= slopes[name] * model.means.get(name, 0.0)
        self.weights = tuple([slopes.get(name, 0.0) for name in FEATURE_NAMES])
        self.band_thresholds = _band_thresholds(model)

    def predict(self, values: tuple[float, ...]) -> float:
        """Return the same probability as `Model.predict`, faster.

        >>> model = Model("propensity", 1, "h", {"events": 2.0}, {"events": 1.0}, {"events": 4.0}, 0.5)
        >>> values = (3.0,) + (0.0,) * (len(FEATURE_NAMES) - 1)
        >>> round(CompiledModel(model).predict(values), 6) == round(model.predict({"events": 3.0}), 6)
        True
        """
        total = self.bias + sum(map(mul, self.weights, values))
        if total > 35.0:
            total = 35.0
        elif total < -35.0:
            total = -35.0
        return 1.0 / (1.0 + math.exp(-total))

    def band(self, score: float, current_band: str) -> str:
        """Return the band of a score, given the current band ("" for none)."""
        bands = self.band_thresholds
        if bands is None:
            return ""
        if score >= (bands[1] if current_band == LIKELY else bands[0]):
            return LIKELY
        if score <= (bands[3] if current_band == UNLIKELY else bands[2]):
            return UNLIKELY
        return UNDECIDED


_compiled = CompiledModel(Model("propensity", 0, "", {}))


def step(person: Person, event: Input, context: StepContext) -> Sequence[Effect]:
    """Score the session after this event, keep a snapshot if drawn, and return band changes."""
    session = person.session
    if session is None or isinstance(event, _NON_EVENTS):
        return ()
    model = context.model
    if session.ordered:
        person.score = None
        return _change_band(person, "", model, event.name, context) if person.band else ()
    event_count = session.events
    drawn = event_count > session.snapshot_candidates
    if drawn:
        session.snapshot_candidates = event_count
        drawn = session_uniform(session.id, event_count) * event_count < 1.0
    if model is None:
        if drawn:
            session.snapshot, session.snapshot_at = (
                name_features(feature_values(person, session.last_at)),
                session.last_at,
            )
            session.snapshot_score, session.snapshot_model = None, ""
        return ()
    values = feature_values(person, session.last_at)
    compiled = _compiled if _compiled.model is model else _compile(model)
    score = person.score = compiled.predict(values)
    if drawn:
        session.snapshot, session.snapshot_at = name_features(values), session.last_at
        session.snapshot_score, session.snapshot_model = score, model.hash
    band = compiled.band(score, person.band)
    return _change_band(person, band, model, event.name, context) if band != person.band else ()


def _compile(model: Model) -> CompiledModel:
    """Compile a new model, once."""
    global _compiled
    _compiled = CompiledModel(model)
    return _compiled


def _change_band(
    person: Person, band: str, model: Model | None, trigger: str, context: StepContext
) -> Sequence[Effect]:
    """Exit the current band and enter another."""
    passed = (f"score {person.score:.4f}",) if person.score is not None else ("ordered in this visit",)
    because = Explanation(
        trigger=trigger, passed=passed, playbook=context.rules.short_hash, model=model.hash if model else ""
    )
    anonymous_id = person.session.anonymous_id if person.session is not None else ""
    changes = []
    if person.band:
        person.segments.pop(person.band, None)
        changes.append(
            SegmentChange(
                id=context.next_effect_id(STEP_NAME),
                at=context.now,
                person=person.id,
                anonymous_id=anonymous_id,
                because=because,
                segment=person.band,
                entered=False,
            )
        )
    if band:
        person.segments[band] = context.now
        changes.append(
            SegmentChange(
                id=context.next_effect_id(STEP_NAME),
                at=context.now,
                person=person.id,
                anonymous_id=anonymous_id,
                because=because,
                segment=band,
                entered=True,
            )
        )
    person.band = band
    context.segment_changes += changes
    return changes
