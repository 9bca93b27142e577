"""Runs a command that ends when the process that started it ends, however that one dies.

``python leash.py PARENT_PID COMMAND…`` asks the kernel for a SIGTERM at its parent's death and
becomes COMMAND. A program of its own, since Python's ``preexec_fn`` may deadlock in a process
with threads. It imports nothing of ours.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Become the command; exits with 127 if the parent is gone already or there is no command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    prctl = getattr(ctypes.CDLL(None), "prctl", None)  # Linux only
    if prctl is not None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(127)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"{command[0]} cannot be run: {error}", file=sys.stderr)
        sys.exit(127)


if __name__ == "__main__":
    main()
