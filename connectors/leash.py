"""Become another program that dies with its parent: `python leash.py PARENT_PID PROGRAM ARGUMENT...`.

The supervisor starts every child through this file, so that a supervisor that is killed (-9) leaves nobody behind.
It runs on its own, with the standard library alone. Linux keeps the promise; elsewhere the program just starts.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def tie() -> None:
    """Ask the kernel to kill this process when its parent dies; nothing where the kernel cannot."""
    if sys.platform == "linux":
        try:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        except (OSError, AttributeError):  # another libc; the leash is an extra
            pass


def main() -> None:
    parent, program = int(sys.argv[1]), sys.argv[2:]
    tie()
    if os.getppid() != parent:  # it died before the knot was tied
        sys.exit(1)
    try:
        os.execvp(program[0], program)  # noqa: S606 - becoming another program is what this file is for
    except OSError as wrong:
        sys.exit(f"{program[0]}: {wrong.strerror}")


if __name__ == "__main__":
    main()
