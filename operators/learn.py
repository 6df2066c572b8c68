"""learn: labelled examples become a model, one at a time.

    outcome ──▶ predict, measure ──▶ learn: StandardScaler | LogisticRegression ──▶ Model (plain numbers)
                          └──▶ ADWIN: has the world changed?

**The model** is the base rate, moved by what the features say:
sigmoid(logit(base rate) + bias + sum weight * scaled feature). The base rate is followed directly (the share of orders
among the last 1,000 visits, about), so the learner need not spend its first thousand examples on finding out that most
visits end without an order; the bias is learned, because the average of what is spread around the base rate is not the
base rate. Scales are never below 0.25: the first of a rare kind would otherwise look enormous, and throw the weights.

**Quality is progressive**: each example is predicted first, measured, and then learned from. It is compared with the
base rate as the same learner follows it when it is told no features. (A visit that ends in an order is known at once,
one without 30 minutes later; so after a start the first labels are all orders. Beside a plain average of the past any
model would shine then, without knowing anything about anybody.)

**When the world changes** (ADWIN rings on the log loss, and it rose) the learning rate is five times as high for the
next 300 examples, and the base rate is followed ten times as fast. Measured on streams whose signal turns around: where
it rings, that wins back most of what is lost in the 1,000 examples after the turn, and it costs nothing where nothing
changes. What is known of the scales stays. A loss that falls is no drift.

Everything is plain numbers: `plain()` and `Learner(plain)` go there and back without losing a bit.
"""

from collections.abc import Hashable
from hashlib import blake2b
from math import exp, isfinite, log
from typing import Any, TypedDict

import msgspec
from river import drift, linear_model, optim, preprocessing
from river.utils import VectorDict

from domain.model import Model, Quality
from domain.outcome import Outcome
from state.features import NAMES

RATE, DECAY = 0.01, 0.001
"""Learning rate and L2 of the logistic regression: chosen on three real hours and on streams with a planted signal."""

FOLLOW, FOLLOW_FAST = 1 / 1_000, 1 / 100
"""How fast the base rate follows, in normal times and after a drift."""

LEAST_BASE = 1e-4
BOOST, BOOST_FOR = 5.0, 300
FLOOR = 0.25
WATCH = 1_000
"""Losses that ADWIN is fed with again when it is rebuilt; twice as many are kept at most."""

MOST_LOSS = 4.0
RECENT = 20_000
"""Ids of the latest outcomes, so that a repeat in the log is not learned twice."""

BINS, SPREAD = 240, 6.0
"""The ROC AUC is counted in bins over the log odds that the features add, between -6 and 6."""


class Plain(TypedDict):
    """A learner as plain numbers."""

    v: int
    counts: dict[str, int]
    means: dict[str, float]
    vars: dict[str, float]
    weights: dict[str, float]
    base: float
    bias: float
    base_bias: float
    examples: int
    positives: int
    loss: float
    base_loss: float
    hits: list[int]
    misses: list[int]
    drifts: int
    boost: int
    losses: list[float]
    recent: bytes
    repeated: int


class Scaler(preprocessing.StandardScaler):
    """River's scaler, with scales that are never below FLOOR."""

    def transform_one(self, x: dict[Hashable, Any]) -> dict[Hashable, Any]:
        means, scales = self.means, self.vars
        return {name: (value - means[name]) / max(scales[name] ** 0.5, FLOOR) for name, value in x.items()}


class Learner:
    """A logistic model that learns one outcome at a time."""

    def __init__(self, plain: Plain | None = None) -> None:
        self.scaler = Scaler()
        self.optimizer = optim.SGD(RATE)
        self.regression = linear_model.LogisticRegression(self.optimizer, l2=DECAY, intercept_lr=RATE)
        self.pipeline = self.scaler | self.regression
        self.base = 0.5
        self.bias = self._base_bias = 0.0
        self.examples = self.positives = self.drifts = self.repeated = 0
        self._loss = self._base_loss = 0.0
        self._hits, self._misses = [0] * BINS, [0] * BINS
        self._boost = 0
        self._losses: list[float] = []
        self._recent: dict[bytes, None] = {}
        if plain is not None:
            self._restore(plain)
        self._watch = _adwin(self._losses)

    def learn(self, outcome: Outcome) -> bool:
        """Predict, measure, learn. False, and nothing happens, for an outcome that was learned before."""
        mark = blake2b(outcome.id.encode(), digest_size=8).digest()
        if mark in self._recent:
            self.repeated += 1
            return False
        self._recent[mark] = None
        if len(self._recent) > RECENT:
            del self._recent[next(iter(self._recent))]
        get = outcome.features.get
        x = {name: value if isfinite(value := get(name, 0.0)) else 0.0 for name in NAMES}
        offset = _logit(self.base)
        self.regression.intercept = offset + self.bias
        p = min(max(float(self.pipeline.predict_proba_one(x)[True]), 1e-9), 1 - 1e-9)
        self._measure(p, offset, outcome.label)
        self.optimizer.lr = optim.schedulers.Constant(RATE * BOOST if self._boost else RATE)
        self.pipeline.learn_one(x, outcome.label)
        self.bias = float(self.regression.intercept) - offset
        follow = FOLLOW_FAST if self._boost else FOLLOW
        self.base += max(follow, 1 / (self.examples + 2)) * (outcome.label - self.base)
        self.base = min(max(self.base, LEAST_BASE), 1 - LEAST_BASE)
        self.examples += 1
        self.positives += outcome.label
        self._boost = max(0, self._boost - 1)
        return True

    def model(self, version: int, at: int) -> Model:
        """What was learned, as it travels; `at` is when it is published (ms)."""
        weights = {name: float(weight) for name, weight in sorted(self.regression.weights.items())}
        means = {name: float(self.scaler.means[name]) for name in weights}
        scales = {name: max(float(self.scaler.vars[name]) ** 0.5, FLOOR) for name in weights}
        intercept = _logit(self.base) + self.bias
        numbers = msgspec.json.encode([weights, means, scales, intercept])
        return Model(
            kind="propensity", version=version, hash=blake2b(numbers, digest_size=8).hexdigest(), weights=weights,
            means=means, scales=scales, intercept=intercept, quality=self.quality(), at=at)

    def quality(self) -> Quality:
        """How good it is so far."""
        n = max(1, self.examples)
        return Quality(
            examples=self.examples, positives=self.positives, log_loss=self._loss / n,
            base_log_loss=self._base_loss / n, roc_auc=_auc(self._hits, self._misses), drifts=self.drifts,
            base_rate=self._base_rate() if self.examples else 0.0)

    def plain(self) -> Plain:
        """All of it as plain numbers."""
        return Plain(
            v=1, counts=dict(self.scaler.counts), means=dict(self.scaler.means), vars=dict(self.scaler.vars),
            weights=dict(self.regression.weights), base=self.base, bias=self.bias, base_bias=self._base_bias,
            examples=self.examples, positives=self.positives,
            loss=self._loss, base_loss=self._base_loss, hits=[*self._hits], misses=[*self._misses],
            drifts=self.drifts, boost=self._boost, losses=[*self._losses], recent=b"".join(self._recent),
            repeated=self.repeated)

    def _restore(self, plain: Plain) -> None:
        if plain["v"] != 1:
            raise ValueError(f"a learner of version {plain['v']}, but this program reads version 1")
        self.scaler.counts.update(plain["counts"])
        self.scaler.means.update(plain["means"])
        self.scaler.vars.update(plain["vars"])
        self.regression._weights = VectorDict(plain["weights"])  # River has no other door for them
        self.optimizer.n_iterations = plain["examples"]
        self.base, self.bias, self._base_bias = plain["base"], plain["bias"], plain["base_bias"]
        self.examples, self.positives = plain["examples"], plain["positives"]
        self._loss, self._base_loss = plain["loss"], plain["base_loss"]
        self._hits, self._misses = list(plain["hits"]), list(plain["misses"])
        self.drifts, self._boost, self.repeated = plain["drifts"], plain["boost"], plain["repeated"]
        self._losses = list(plain["losses"])
        recent = plain["recent"]
        self._recent = {recent[at:at + 8]: None for at in range(0, len(recent), 8)}

    def _measure(self, p: float, offset: float, label: bool) -> None:
        loss = -log(p if label else 1 - p)
        self._loss += loss
        base = self._base_rate()
        self._base_loss -= log(base if label else 1 - base)
        self._base_bias -= RATE * (base - label)
        added = log(p / (1 - p)) - offset - self.bias
        place = int((min(max(added, -SPREAD), SPREAD) + SPREAD) * BINS / (2 * SPREAD))
        (self._hits if label else self._misses)[min(place, BINS - 1)] += 1
        self._watch_over(min(loss, MOST_LOSS) / MOST_LOSS)

    def _base_rate(self) -> float:
        """The base rate as it is followed without features."""
        return 1 / (1 + exp(-_logit(self.base) - self._base_bias))

    def _watch_over(self, loss: float) -> None:
        """Feed ADWIN. It is rebuilt from the losses kept, so that it is the same after a restart."""
        losses = self._losses
        losses.append(loss)
        self._watch.update(loss)
        if self._watch.drift_detected:
            if self._watch.estimation > sum(losses) / len(losses):
                self.drifts += 1
                self._boost = BOOST_FOR
            losses.clear()
            self._watch = _adwin(losses)
        elif len(losses) >= 2 * WATCH:
            del losses[:-WATCH]
            self._watch = _adwin(losses)


def _adwin(losses: list[float]) -> Any:
    watch = drift.ADWIN()
    for loss in losses:
        watch.update(loss)
    return watch


def _logit(p: float) -> float:
    return log(p / (1 - p))


def _auc(hits: list[int], misses: list[int]) -> float:
    """The probability that an order ranks above a visit without one; within a bin they tie.

    >>> _auc([0, 3], [3, 0]), _auc([2, 2], [5, 5]), _auc([1], [0])
    (1.0, 0.5, 0.5)
    """
    pairs = sum(hits) * sum(misses)
    if not pairs:
        return 0.5
    below, won = 0, 0.0
    for hit, miss in zip(hits, misses, strict=True):
        won += hit * (below + miss / 2)
        below += miss
    return won / pairs
