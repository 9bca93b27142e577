"""No child process outlives the one that started it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time

_CHECK_S = 0.5


def die_with(parent: int) -> None:
    """Have this process killed when its parent, the process ``parent``, is gone.

    Not by prctl(PR_SET_PDEATHSIG): that strikes when the *thread* that started us ends, and
    the hosts' worker threads come and go.
    """
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_CHECK_S)
    with contextlib.suppress(ProcessLookupError):
        os.kill(os.getpid(), signal.SIGKILL)
