"""Models as they travel: plain numbers, never pickles."""

import math

import msgspec


class Quality(msgspec.Struct, frozen=True, omit_defaults=True):
    """How good a model is, measured before it learned each example (progressive).

    `base_rate` is the share of positives among the latest examples, `base_log_loss` the loss of predicting just that.
    `roc_auc` ranks by what the features add to the base rate, so a base rate that moves does not flatter it.
    """

    examples: int = 0
    positives: int = 0
    log_loss: float = 0.0
    base_log_loss: float = 0.0
    roc_auc: float = 0.5
    drifts: int = 0
    base_rate: float = 0.0


class Model(msgspec.Struct, frozen=True, omit_defaults=True):
    """A logistic model over standardised features: p = sigmoid(intercept + sum weight * (x - mean) / scale).

    `version` counts publications; `hash` is of the numbers alone. A feature that is missing counts as 0.
    A model of the kind "rfm" has no weights but `cuts`: where the classes of recency (ms), frequency and money begin.

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
    quality: Quality = Quality()
    cuts: dict[str, tuple[float, ...]] = {}
    at: int = 0
    v: int = 1

    def predict(self, features: dict[str, float]) -> float:
        """The probability, between 0 and 1."""
        total = self.intercept
        for name, weight in self.weights.items():
            scale = self.scales.get(name, 1.0)
            if scale > 0:
                total += weight * (features.get(name, 0.0) - self.means.get(name, 0.0)) / scale
        total = max(-35.0, min(35.0, total))
        return 1.0 / (1.0 + math.exp(-total))


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Model).decode


def hashes(model: Model | None, quintiles: Model | None) -> str:
    """The hashes of the models that are live together, as a turn keeps them.

    >>> hashes(None, None), hashes(Model("propensity", 1, "ab", {}), Model("rfm", 1, "cd", {}))
    ('', 'ab+cd')
    """
    first = model.hash if model is not None else ""
    return f"{first}+{quintiles.hash}" if quintiles is not None else first


def each_hash(kept: str) -> tuple[str, str]:
    """What `hashes` put together: the hash of the model of visits, and that of the population's fifths.

    >>> each_hash("ab+cd"), each_hash("ab"), each_hash("+cd"), each_hash("")
    (('ab', 'cd'), ('ab', ''), ('', 'cd'), ('', ''))
    """
    first, _, second = kept.partition("+")
    return first, second
