"""Becomes the daemon's Java process. Standard library only; run by its path: launch.py PARENT COMMAND...

In: the agent's process id and a command. Out: that command in this same process, killed by the kernel when the agent's
thread that started it ends, however it ends. Never: anything else. It is a program of its own because between fork and
exec of a process with threads no Python code is safe.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def main(arguments: list[str]) -> None:
    parent, command = int(arguments[0]), arguments[1:]
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:  # it died before it was asked for
        sys.exit(1)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
