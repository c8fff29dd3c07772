"""Run a command that is killed when its parent dies: `python die_with_parent.py PARENT_PID COMMAND...`.

Executed, not imported: the parent-death signal must be set in the child, and Python code between fork and exec is
unsafe in a process with threads. It replaces itself by the command (exec).

Linux only; elsewhere the command may outlive its parent.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        # SIGKILL: nobody is left to wait for an orderly end, and whatever is unfinished can be resumed.
        # It survives exec; Celery sets the same for the pool's children towards their worker.
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit(f"The process {parent} that started {command[0]} is gone.")
    try:
        os.execvp(command[0], command)  # noqa: S606 (no shell is the point)
    except OSError as error:
        sys.exit(f"{command[0]} cannot be started: {error.strerror}")


if __name__ == "__main__":
    main()
