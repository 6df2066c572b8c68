"""learn: train the purchase model online, one labelled session at a time.

    outcome ──▶ predict, measure ──▶ learn: StandardScaler | LogisticRegression ──▶ Model (plain numbers)
                          └──▶ ADWIN: concept drift?

**Model:** sigmoid(logit(base rate) + bias + sum weight * scaled feature). The base rate is an exponential moving
average (about the last 1,000 sessions), so the first examples are not spent on learning that most sessions end without
an order. The bias is learned, because the mean prediction differs from the base rate. Scales are at least 0.25;
otherwise the first value of a rare feature gets an extreme scaled value and distorts the weights.

**Quality is progressive validation:** each example is predicted and measured before the model learns from it. The
baseline is the base rate as the same learner tracks it without features. A plain average of the past is too weak a
baseline: an order is labelled at once, a session without an order after 30 minutes, so the first labels after a start
are all orders.

**Drift:** when ADWIN detects a rise of the log loss, the learning rate is five times as high for the next 300 examples,
and the base rate moves ten times as fast. On streams whose signal reverses, a detected drift recovers most of the loss
of the 1,000 examples after the reversal; streams without drift lose nothing. The scales are kept. A falling log loss is
not drift.

`Learner.to_dict()` returns the state as plain numbers; `Learner(data)` restores it exactly.
"""

from collections.abc import Hashable
from hashlib import blake2b
from math import exp, isfinite, log
from typing import Any, TypedDict

import msgspec
from river import drift, linear_model, optim, preprocessing
from river.utils import VectorDict

from domain.action import Outcome
from domain.model import Model, ModelQuality
from state.profile.session import FEATURE_NAMES

LEARNING_RATE, L2_PENALTY = 0.01, 0.001
"""Of the logistic regression: chosen on three hours of real data and on streams with a synthetic signal."""

BASE_RATE_STEP, BASE_RATE_STEP_AFTER_DRIFT = 1 / 1_000, 1 / 100
"""Step of the moving average of the base rate, normally and after a drift."""

MIN_BASE_RATE = 1e-4
DRIFT_BOOST, DRIFT_BOOST_EXAMPLES = 5.0, 300
MIN_SCALE = 0.25
DRIFT_WINDOW = 1_000
"""Losses from which ADWIN is rebuilt; at most twice as many are kept."""

MAX_LOSS = 4.0
MAX_RECENT_IDS = 20_000
"""Ids of the latest outcomes that are kept, so that a duplicate in the log is not learned twice."""

AUC_BINS, AUC_RANGE = 240, 6.0
"""Bins of the ROC AUC, over the log odds that the features add, from -6 to 6."""


class LearnerState(TypedDict):
    """The state of a learner as plain numbers."""

    v: int
    counts: dict[str, int]
    means: dict[str, float]
    vars: dict[str, float]
    weights: dict[str, float]
    base_rate: float
    bias: float
    baseline_bias: float
    examples: int
    positives: int
    loss: float
    baseline_loss: float
    positive_bins: list[int]
    negative_bins: list[int]
    drifts: int
    boost_left: int
    recent_losses: list[float]
    recent_ids: bytes
    duplicates: int


class Scaler(preprocessing.StandardScaler):
    """River's `StandardScaler` with scales of at least `MIN_SCALE`."""

    def transform_one(self, x: dict[Hashable, Any]) -> dict[Hashable, Any]:
        means, scales = self.means, self.vars
        return {name: (value - means[name]) / max(scales[name] ** 0.5, MIN_SCALE) for name, value in x.items()}


class Learner:
    """An online logistic regression over session outcomes."""

    def __init__(self, data: LearnerState | None = None) -> None:
        self.scaler = Scaler()
        self.optimizer = optim.SGD(LEARNING_RATE)
        self.regression = linear_model.LogisticRegression(self.optimizer, l2=L2_PENALTY, intercept_lr=LEARNING_RATE)
        self.pipeline = self.scaler | self.regression
        self.base_rate = 0.5
        self.bias = self._baseline_bias = 0.0
        self.examples = self.positives = self.drifts = self.duplicates = 0
        self._loss = self._baseline_loss = 0.0
        self._positive_bins, self._negative_bins = [0] * AUC_BINS, [0] * AUC_BINS
        self._boost_left = 0
        self._recent_losses: list[float] = []
        self._recent_ids: dict[bytes, None] = {}
        if data is not None:
            self._restore(data)
        self._drift_detector = _new_drift_detector(self._recent_losses)

    def learn(self, outcome: Outcome) -> bool:
        """Predict, measure and learn one outcome; return False for a duplicate."""
        digest = blake2b(outcome.id.encode(), digest_size=8).digest()
        if digest in self._recent_ids:
            self.duplicates += 1
            return False
        self._recent_ids[digest] = None
        if len(self._recent_ids) > MAX_RECENT_IDS:
            del self._recent_ids[next(iter(self._recent_ids))]
        get = outcome.features.get
        x = {name: value if isfinite(value := get(name, 0.0)) else 0.0 for name in FEATURE_NAMES}
        offset = _logit(self.base_rate)
        self.regression.intercept = offset + self.bias
        p = min(max(float(self.pipeline.predict_proba_one(x)[True]), 1e-9), 1 - 1e-9)
        self._measure(p, offset, outcome.label)
        self.optimizer.lr = optim.schedulers.Constant(
            LEARNING_RATE * DRIFT_BOOST if self._boost_left else LEARNING_RATE
        )
        self.pipeline.learn_one(x, outcome.label)
        self.bias = float(self.regression.intercept) - offset
        step = BASE_RATE_STEP_AFTER_DRIFT if self._boost_left else BASE_RATE_STEP
        self.base_rate += max(step, 1 / (self.examples + 2)) * (outcome.label - self.base_rate)
        self.base_rate = min(max(self.base_rate, MIN_BASE_RATE), 1 - MIN_BASE_RATE)
        self.examples += 1
        self.positives += outcome.label
        self._boost_left = max(0, self._boost_left - 1)
        return True

    def to_model(self, version: int, at: int) -> Model:
        """Return the model to publish at time `at` (ms)."""
        weights = {name: float(weight) for name, weight in sorted(self.regression.weights.items())}
        means = {name: float(self.scaler.means[name]) for name in weights}
        scales = {name: max(float(self.scaler.vars[name]) ** 0.5, MIN_SCALE) for name in weights}
        intercept = _logit(self.base_rate) + self.bias
        numbers = msgspec.json.encode([weights, means, scales, intercept])
        return Model(
            kind="propensity",
            version=version,
            hash=blake2b(numbers, digest_size=8).hexdigest(),
            weights=weights,
            means=means,
            scales=scales,
            intercept=intercept,
            quality=self.quality(),
            at=at,
        )

    def quality(self) -> ModelQuality:
        """Return the quality over all examples so far."""
        n = max(1, self.examples)
        return ModelQuality(
            examples=self.examples,
            positives=self.positives,
            log_loss=self._loss / n,
            base_log_loss=self._baseline_loss / n,
            roc_auc=_auc(self._positive_bins, self._negative_bins),
            drifts=self.drifts,
            base_rate=self._baseline_rate() if self.examples else 0.0,
        )

    def to_dict(self) -> LearnerState:
        """Return the state as plain numbers."""
        return LearnerState(
            v=2,
            counts=dict(self.scaler.counts),
            means=dict(self.scaler.means),
            vars=dict(self.scaler.vars),
            weights=dict(self.regression.weights),
            base_rate=self.base_rate,
            bias=self.bias,
            baseline_bias=self._baseline_bias,
            examples=self.examples,
            positives=self.positives,
            loss=self._loss,
            baseline_loss=self._baseline_loss,
            positive_bins=[*self._positive_bins],
            negative_bins=[*self._negative_bins],
            drifts=self.drifts,
            boost_left=self._boost_left,
            recent_losses=[*self._recent_losses],
            recent_ids=b"".join(self._recent_ids),
            duplicates=self.duplicates,
        )

    def _restore(self, data: LearnerState) -> None:
        if data["v"] != 2:
            raise ValueError(f"unsupported learner state version {data['v']}: expected version 2")
        self.scaler.counts.update(data["counts"])
        self.scaler.means.update(data["means"])
        self.scaler.vars.update(data["vars"])
        self.regression._weights = VectorDict(data["weights"])  # River has no public setter
        self.optimizer.n_iterations = data["examples"]
        self.base_rate, self.bias, self._baseline_bias = data["base_rate"], data["bias"], data["baseline_bias"]
        self.examples, self.positives = data["examples"], data["positives"]
        self._loss, self._baseline_loss = data["loss"], data["baseline_loss"]
        self._positive_bins, self._negative_bins = list(data["positive_bins"]), list(data["negative_bins"])
        self.drifts, self._boost_left, self.duplicates = data["drifts"], data["boost_left"], data["duplicates"]
        self._recent_losses = list(data["recent_losses"])
        recent = data["recent_ids"]
        self._recent_ids = {recent[at : at + 8]: None for at in range(0, len(recent), 8)}

    def _measure(self, p: float, offset: float, label: bool) -> None:
        loss = -log(p if label else 1 - p)
        self._loss += loss
        base = self._baseline_rate()
        self._baseline_loss -= log(base if label else 1 - base)
        self._baseline_bias -= LEARNING_RATE * (base - label)
        added = log(p / (1 - p)) - offset - self.bias
        bin_index = int((min(max(added, -AUC_RANGE), AUC_RANGE) + AUC_RANGE) * AUC_BINS / (2 * AUC_RANGE))
        (self._positive_bins if label else self._negative_bins)[min(bin_index, AUC_BINS - 1)] += 1
        self._update_drift(min(loss, MAX_LOSS) / MAX_LOSS)

    def _baseline_rate(self) -> float:
        """Return the base rate as the learner tracks it without features."""
        return 1 / (1 + exp(-_logit(self.base_rate) - self._baseline_bias))

    def _update_drift(self, loss: float) -> None:
        """Update ADWIN; it is rebuilt from the kept losses, so a restart gives the same state."""
        losses = self._recent_losses
        losses.append(loss)
        self._drift_detector.update(loss)
        if self._drift_detector.drift_detected:
            if self._drift_detector.estimation > sum(losses) / len(losses):
                self.drifts += 1
                self._boost_left = DRIFT_BOOST_EXAMPLES
            losses.clear()
            self._drift_detector = _new_drift_detector(losses)
        elif len(losses) >= 2 * DRIFT_WINDOW:
            del losses[:-DRIFT_WINDOW]
            self._drift_detector = _new_drift_detector(losses)


def _new_drift_detector(losses: list[float]) -> Any:
    detector = drift.ADWIN()
    for loss in losses:
        detector.update(loss)
    return detector


def _logit(p: float) -> float:
    return log(p / (1 - p))


def _auc(positive_bins: list[int], negative_bins: list[int]) -> float:
    """Return the probability that a session with an order ranks above one without; ties within a bin count half.

    >>> _auc([0, 3], [3, 0]), _auc([2, 2], [5, 5]), _auc([1], [0])
    (1.0, 0.5, 0.5)
    """
    pairs = sum(positive_bins) * sum(negative_bins)
    if not pairs:
        return 0.5
    below, won = 0, 0.0
    for hit, miss in zip(positive_bins, negative_bins, strict=True):
        won += hit * (below + miss / 2)
        below += miss
    return won / pairs
