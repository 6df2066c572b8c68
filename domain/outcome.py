"""Outcomes: labelled examples, with the features as they were when they could still be used."""

import msgspec


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One example to learn from, emitted when its label became known.

    `features` are plain numbers taken at `taken_at` (ms), `label` became known at `at`. `score` is what the live
    model said when the features were taken (None without a model).

    Kinds: `propensity` (a visit: did it end in an order?), `goal` (a campaign that was shown or held out: was its goal
    reached in time, with what `value`; `variant` and its `propensity` as decided, `holdout` is a variant), `rfm` (an
    order: what it changed in the population, see `state/rfm.py`).
    """

    kind: str
    id: str
    person: str
    at: int
    taken_at: int
    label: bool
    features: dict[str, float]
    score: float | None = None
    model: str = ""
    campaign: str = ""
    variant: str = ""
    propensity: float = 1.0
    value: float = 0.0
    action_id: str = ""
    v: int = 1


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Outcome).decode
