"""Runs a command that cannot outlive the process that started it: `python leash.py PARENT_PID COMMAND...`.

A file to be executed, not imported: the parent-death signal must be set in the child, and Python code between fork and
exec is unsafe in a process with threads. It replaces itself by the command, so nothing of it remains.

Linux only; elsewhere it runs the command without the leash.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        # SIGKILL, because a parent that is gone can't insist; what it leaves half-way is made for that.
        # It survives exec, and the pool's children set the same towards their worker (celery does).
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit(f"The process {parent} that wanted {command[0]} is gone.")
    try:
        os.execvp(command[0], command)  # noqa: S606 (no shell is the point)
    except OSError as error:
        sys.exit(f"{command[0]} cannot be started: {error.strerror}")


if __name__ == "__main__":
    main()
