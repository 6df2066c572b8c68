"""Outcomes: labelled examples, with the features as they were when they could still be used."""

import msgspec


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """One example to learn from, emitted when its label became known.

    `features` are plain numbers taken at `taken_at` (ms), `label` became known at `at`. `score` is what the live
    model said when the features were taken (None without a model).
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
    v: int = 1


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Outcome).decode
