"""Misrouted records, as the metrics of the on-site worker tell of them, for whoever shows what is wrong.

The worker says it in its log; here it is asked for two numbers from time to time, which costs it next to nothing.
Where there are several workers the first one is asked: each finds the same share in its partitions.
"""

import time
from collections.abc import Callable

from connectors import metrics
from connectors.scrape import Samples, scrape
from domain.misrouted import problem
from domain.settings import Settings

EVERY = 10.0
"""Seconds between two questions."""
PATIENCE = 0.5
"""Seconds that an answer may take."""
SHARE = "attimo_misrouted_share"
WRONG = "attimo_misrouted_total"


def problem_in(samples: Samples) -> str:
    """What is to be said of it; empty when nothing is. Counted are all that there ever were: of a process that has read
    much, a share that is worth a word is never of few.

    >>> problem_in({(WRONG, ""): 60.0, (SHARE, ""): 0.04})[:19], problem_in({})
    ('4 % of the records ', '')
    """
    return problem(samples.get((WRONG, ""), 0.0), samples.get((SHARE, ""), 0.0))


class Look:
    """Asks from time to time. `now` is what is to be said since the last answer."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._port = metrics.port_of(settings, "onsite")
        self._clock = clock
        self._next = clock()
        self.now = ""

    def again(self) -> bool:
        """Whether something else is to be said than before. Who does not answer has changed nothing."""
        if not self._port or self._clock() < self._next:
            return False
        samples = scrape(self._port, (WRONG, SHARE), PATIENCE)
        self._next = self._clock() + EVERY
        if samples is None:
            return False
        before, self.now = self.now, problem_in(samples)
        return before != self.now
