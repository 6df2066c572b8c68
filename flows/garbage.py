"""Garbage: looked for in small steps between two batches, never in the middle of one.

What is remembered of people holds no cycles, so it goes when nobody refers to it any more; Python's own collector would
look at thousands of them again and again, for tens of milliseconds at a time, while somebody waits for an answer. So it
is switched off; what has come since the last step is looked at once and then left alone.
"""

import gc
from typing import Final

YOUNG: Final = 2_000
"""Containers that have come since the last step, before it is worth one. It took 0.3 to 0.5 ms behind batches of some
fifty events, and up to 5 ms behind batches of several hundred."""


def settle() -> None:
    """What is there now stays: look at all of it once (tenths of a second), and from now on only at what comes."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    gc.disable()


def step() -> None:
    """Look at what has come since the last step, if that is enough to be worth it."""
    if gc.get_count()[0] >= YOUNG:
        gc.collect(0)
        gc.freeze()


def leave() -> None:
    """As Python has it."""
    gc.unfreeze()
    gc.enable()
