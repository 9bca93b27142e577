"""What a measured process says of itself: CPU and wall time of its work, and what that found.

The CPU time is that of the process and of all that it started, whether that has ended or not.
DataJuicer's environment uses this as well: nothing but psutil and the standard library here.
"""

from __future__ import annotations

import contextlib
import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil


def _own_cpu_s() -> float:
    """CPU seconds, user and system, of this process and of its descendants that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _living_cpu_s(pid: int | str = "self") -> float:
    """The same of all descendants that are alive, to a hundredth of a second."""
    total = 0.0
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError, psutil.NoSuchProcess):
            for child in listed.read_text(encoding="ascii").split():
                times = psutil.Process(int(child)).cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
                total += _living_cpu_s(child)
    return total


class Meter:
    """Times the work of one process: `working` once, `part` within it as often as wanted."""

    def __init__(self) -> None:
        self.start_cpu_s = 0.0
        """What was spent before the work: on imports, models, and child processes' starts."""
        self.cpu_s = 0.0
        self.wall_s = 0.0
        self.parts: dict[str, float] = {}
        """CPU seconds by part."""

    @contextlib.contextmanager
    def working(self, passes: int = 1) -> Iterator[None]:
        """The work itself; whatever it starts is to have ended, or to be alive, at its end.

        Where it is done ``passes`` times, so that it takes long enough to be measured, the figures
        are those of one.
        """
        # What looking takes falls outside, on both ends.
        self.start_cpu_s = _living_cpu_s() + _own_cpu_s()
        wall = time.perf_counter()
        yield
        self.wall_s = (time.perf_counter() - wall) / passes
        self.cpu_s = (_own_cpu_s() + _living_cpu_s() - self.start_cpu_s) / passes

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """A named part of the work."""
        before = _living_cpu_s() + _own_cpu_s()
        yield
        taken = _own_cpu_s() + _living_cpu_s() - before
        self.parts[name] = self.parts.get(name, 0.0) + taken

    def write(self, path: str, found: Any) -> None:
        """Leave the figures, and what the work found, as JSON for whoever started this process."""
        answer = {
            "start_cpu_s": self.start_cpu_s,
            "cpu_s": self.cpu_s,
            "wall_s": self.wall_s,
            "parts": self.parts,
            "found": found,
        }
        Path(path).write_text(json.dumps(answer), encoding="utf-8")
