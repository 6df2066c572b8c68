"""A clean stop: SIGTERM and SIGINT set a flag, the source sees it and ends its input."""

import signal
from types import FrameType


class Stopping:
    """The flag of this process."""

    now: bool = False


def on_signals() -> None:
    """From here on, SIGTERM and SIGINT ask for a clean stop; the handler does nothing else."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        Stopping.now = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
