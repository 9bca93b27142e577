"""Finds and ends processes by a mark in their environment, whoever their parent is now.

Flink's Python workers, Ray's workers and decoder children outlive a parent that was killed; they
inherit its environment. Only processes that carry the mark of one stack are ever touched.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import psutil

STACK, RUN, PART = "CLIPLAKE_STACK", "CLIPLAKE_RUN", "CLIPLAKE_PART"


@dataclass(frozen=True)
class Mark:
    """Whose a process is. As something to look for, an empty field stands for any."""

    stack: str
    """One state folder; the same at each start."""
    run: str = ""
    """One start of the stack."""
    part: str = ""
    """``broker``, ``taskmanager`` …"""

    def of_part(self, part: str) -> Mark:
        """The mark of one part of this stack."""
        return replace(self, part=part)

    def environment(self) -> dict[str, str]:
        """The variables that mark a process, and all that it starts."""
        return {STACK: self.stack, RUN: self.run, PART: self.part}

    def covers(self, variables: Mapping[str, str]) -> bool:
        """Whether a process with these variables carries the mark."""
        return (
            variables.get(STACK) == self.stack
            and self.run in ("", variables.get(RUN))
            and self.part in ("", variables.get(PART))
        )


def find(mark: Mark) -> list[psutil.Process]:
    """Living processes that carry the mark."""
    return [process for process in psutil.process_iter() if _carries(process, mark)]


def sweep(mark: Mark, *, grace_s: float = 3.0) -> list[str]:
    """End every process that carries the mark: SIGTERM, then SIGKILL after ``grace_s`` seconds.

    Looks again until none is left, since one may start another meanwhile. Returns the names of
    the processes found. Raises TimeoutError if some stay alive even so.
    """
    names: list[str] = []
    deadline = time.monotonic() + grace_s
    give_up = deadline + 20.0
    asked: set[psutil.Process] = set()
    while left := find(mark):
        now = time.monotonic()
        if now > give_up:
            raise TimeoutError(f"still alive after SIGKILL: {[p.pid for p in left]}")
        for process in left:
            try:
                if process not in asked:
                    names.append(process.name())
                    asked.add(process)
                    process.terminate()
                if now >= deadline:
                    process.kill()
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.1)  # and no waiting on them: that would take the exit code from its owner
    return names


def _carries(process: psutil.Process, mark: Mark) -> bool:
    try:
        return mark.covers(process.environ()) and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OSError):
        return False  # gone meanwhile, or another user's


def _sweep_after_owner(mark: Mark) -> None:
    """Wait until the pipe on stdin closes, give the parts time to end, then sweep.

    The stack holds the other end, which closes when its process dies, by SIGKILL too.
    """
    sys.stdin.buffer.read()
    time.sleep(3.0)
    sweep(mark, grace_s=10.0)


if __name__ == "__main__":
    _sweep_after_owner(Mark(stack=sys.argv[1], run=sys.argv[2]))
