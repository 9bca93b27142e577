"""Stops the stack of a state folder from another process, and what a dead one left behind."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable

import psutil

from deploy.local.errors import StackError
from deploy.local.marked import sweep
from deploy.local.state import StateFolder
from schemas.settings import Settings

MARGIN_S = 60.0
"""Time to stop everything, beside the pool's time to drain."""


def down(settings: Settings, *, log: Callable[[str], None] = print) -> bool:
    """Have the owner of ``local.state_dir`` stop its stack, and sweep what is left of it.

    Returns whether there was anything to end. An owner that does not finish in time is killed.
    StackError if the folder is owned by a process that left no record of itself.
    """
    state = StateFolder(settings.state_dir)
    owner = state.owner()
    was_owned = state.is_owned()
    if was_owned:
        process = owner.process() if owner else None
        if process is None:
            raise StackError(f"the owner of {state.folder} is just starting or ending: try again")
        _end(process, state, settings.pool.drain_timeout_s + MARGIN_S, log)
    elif owner and not owner.is_of_this_boot():
        log(f"the stack in {state.folder} ended when this machine was restarted")
    elif owner:
        log(f"the stack in {state.folder} (pid {owner.pid}) died without being stopped")
    left = sweep(state.mark())
    if left:
        log(f"ended {len(left)} left processes: {', '.join(sorted(set(left)))}")
    if state.folder.is_dir():
        state.forget()
    return bool(was_owned or left)


def _end(
    process: psutil.Process, state: StateFolder, timeout_s: float, log: Callable[[str], None]
) -> None:
    log(f"stopping the stack in {state.folder} (pid {process.pid})")
    try:
        process.send_signal(signal.SIGTERM)
        if state.wait_until_free(timeout_s):
            # Its last act; what is left of it is Python's own ending.
            with contextlib.suppress(psutil.TimeoutExpired):
                process.wait(10.0)
            return
        log(f"pid {process.pid} did not finish within {timeout_s:.0f} s, killed")
        process.kill()
    except psutil.NoSuchProcess:
        pass
    state.wait_until_free(5.0)
