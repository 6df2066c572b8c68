"""Signals as something to wait for: sleep until one arrives or time is up, without polling.

    with Signals() as signals:
        while not signals.stopping:
            signals.wait(5.0)

A second stop signal while stopping means: hurry.
"""

import select
import signal
import socket
from types import FrameType, TracebackType
from typing import Self

STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """Takes the stop signals and SIGCHLD of this process while it is open. Main thread only.

    `stopping` counts the stop signals: the first one asks to stop, the second one to hurry.
    """

    def __init__(self) -> None:
        self.stopping = 0
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def wait(self, seconds: float) -> None:
        """Sleep until a signal arrives, at most `seconds`."""
        if select.select([self._reader], [], [], seconds)[0]:
            self._reader.recv(4096)

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._note) for number in (*STOP, signal.SIGCHLD)}
        self._wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, kind: type[BaseException] | None, wrong: BaseException | None, at: TracebackType | None) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._reader.close()
        self._writer.close()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number in STOP:
            self.stopping += 1
