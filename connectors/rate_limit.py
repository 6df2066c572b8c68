"""Rate limits: token buckets, bounded in number. Time is an input."""

from collections import OrderedDict


class Buckets:
    """One bucket per name, refilled at `rate` tokens a second up to `burst`; the least recently used are forgotten.

    A take larger than what is there succeeds as long as the bucket is not empty, and leaves a debt: so a large batch
    passes once, and its sender waits.

    >>> buckets = Buckets(rate=10, burst=20)
    >>> buckets.take("key", 25, now=0.0), buckets.take("key", 1, now=0.0), buckets.take("key", 1, now=1.0)
    (0.0, 0.6, 0.0)
    """

    def __init__(self, rate: float, burst: float, names: int = 50_000) -> None:
        if rate <= 0 or burst <= 0:
            raise ValueError("a rate and a burst are above zero")
        self._rate, self._burst, self._names = rate, burst, names
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str, tokens: float, now: float) -> float:
        """Take tokens at `now` (seconds, never falling): 0 when granted, else the seconds until one is there."""
        levels = self._levels
        level, at = levels.pop(name, (self._burst, now))
        level = min(self._burst, level + (now - at) * self._rate)
        granted = level >= 1
        if granted:
            level -= tokens
        levels[name] = (level, now)
        if len(levels) > self._names:
            levels.popitem(last=False)
        return 0.0 if granted else (1 - level) / self._rate

    def __len__(self) -> int:
        return len(self._levels)
