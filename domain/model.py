"""Models: plain numbers as JSON, never pickles."""

import math

import msgspec


class ModelQuality(msgspec.Struct, frozen=True, omit_defaults=True):
    """Quality of a model, measured on each example before it was learned (progressive validation).

    `base_rate` is the share of positives among the latest examples; `base_log_loss` is the loss of predicting it.
    `roc_auc` ranks by the contribution of the features, so a drift of the base rate does not inflate it.
    """

    examples: int = 0
    positives: int = 0
    log_loss: float = 0.0
    base_log_loss: float = 0.0
    roc_auc: float = 0.5
    drifts: int = 0
    base_rate: float = 0.0


class Model(msgspec.Struct, frozen=True, omit_defaults=True):
    """A logistic model over standardized features: p = sigmoid(intercept + sum weight * (x - mean) / scale).

    `version` counts publications; `hash` covers only the numbers. A missing feature counts as 0.
    A model of the kind "rfm" has `thresholds` instead of weights: the bounds of the RFM classes (recency in ms).

    >>> Model(kind="propensity", version=1, hash="h", weights={"pages": 1.0}, means={"pages": 3.0},
    ...     scales={"pages": 2.0}, intercept=0.0).predict({"pages": 3.0})
    0.5
    """

    kind: str
    version: int
    hash: str
    weights: dict[str, float]
    means: dict[str, float] = {}
    scales: dict[str, float] = {}
    intercept: float = 0.0
    quality: ModelQuality = ModelQuality()
    thresholds: dict[str, tuple[float, ...]] = {}
    at: int = 0
    v: int = 1

    def predict(self, features: dict[str, float]) -> float:
        """Return the probability, between 0 and 1."""
        total = self.intercept
        for name, weight in self.weights.items():
            scale = self.scales.get(name, 1.0)
            if scale > 0:
                total += weight * (features.get(name, 0.0) - self.means.get(name, 0.0)) / scale
        total = max(-35.0, min(35.0, total))
        return 1.0 / (1.0 + math.exp(-total))


encode_model = msgspec.json.Encoder().encode
decode_model = msgspec.json.Decoder(Model).decode


def join_hashes(model: Model | None, quintiles: Model | None) -> str:
    """Join the hashes of the live models, as a batch record stores them.

    >>> join_hashes(None, None), join_hashes(Model("propensity", 1, "ab", {}), Model("rfm", 1, "cd", {}))
    ('', 'ab+cd')
    """
    first = model.hash if model is not None else ""
    return f"{first}+{quintiles.hash}" if quintiles is not None else first


def split_hashes(joined: str) -> tuple[str, str]:
    """Split joined hashes: the propensity model and the RFM quintiles.

    >>> split_hashes("ab+cd"), split_hashes("ab"), split_hashes("+cd"), split_hashes("")
    (('ab', 'cd'), ('ab', ''), ('', 'cd'), ('', ''))
    """
    first, _, second = joined.partition("+")
    return first, second
