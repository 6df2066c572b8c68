"""Run a program that dies with its parent: `python die_with_parent.py PARENT_PID PROGRAM ARGUMENT...`.

The supervisor starts every child through this script, so that no child survives if the supervisor is killed (-9). It
uses the standard library only. It works on Linux; on other systems the program just starts.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def set_parent_death_signal() -> None:
    """Request SIGKILL from the kernel when the parent dies; do nothing on other systems than Linux."""
    if sys.platform == "linux":
        try:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        except (OSError, AttributeError):  # another libc: go on without it
            pass


def main() -> None:
    parent, program = int(sys.argv[1]), sys.argv[2:]
    set_parent_death_signal()
    if os.getppid() != parent:  # the parent died before the signal was set
        sys.exit(1)
    try:
        os.execvp(program[0], program)  # noqa: S606 - becoming another program is what this file is for
    except OSError as error:
        sys.exit(f"{program[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
