"""Keeps processes alive: starts them, waits until they serve, restarts them, gives up in time.

It knows nothing of what the processes do. `Supervisor.tick` does one round and never blocks for
long; whoever owns the supervisor calls it a few times a second.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from deploy.local.errors import StackError
from deploy.local.marked import Mark, sweep
from deploy.local.parts import Part
from deploy.local.processes import ChildProcess, exit_words, last_lines
from schemas.sections import LocalSettings

WINDOW_S = 600.0
"""Restarts are counted over the last ten minutes."""
FIRST_DELAY_S = 0.5


class Restarts:
    """How often something was restarted lately, and how long to wait before the next time."""

    def __init__(self, settings: LocalSettings) -> None:
        self.most = settings.max_restarts
        self._longest_s = settings.max_restart_delay_s
        self._times: deque[float] = deque()

    def next_delay(self, now: float) -> float | None:
        """Seconds to wait (0.5, 1, 2 …), or None when the bound is reached."""
        while self._times and now - self._times[0] > WINDOW_S:
            self._times.popleft()
        if len(self._times) >= self.most:
            return None
        self._times.append(now)
        doubled = FIRST_DELAY_S * 2.0 ** min(len(self._times) - 1, 32)
        return min(self._longest_s, doubled)


@dataclass
class _Watched:
    part: Part
    restarts: Restarts
    start_at: float = 0.0
    child: ChildProcess | None = None
    started_at: float = 0.0
    ready: bool = False
    was_ready: bool = False


class Supervisor:
    """The processes of one stack.

    ``log`` takes one line for a person at each event worth telling.
    """

    def __init__(self, mark: Mark, settings: LocalSettings, *, log: Callable[[str], None]) -> None:
        self._mark = mark
        self._settings = settings
        self._log = log
        self._watched: dict[str, _Watched] = {}

    def add(self, part: Part) -> None:
        """Take a part over; the next `tick` starts it once what it needs is ready."""
        self._watched[part.name] = _Watched(part, Restarts(self._settings))

    def is_ready(self, *names: str) -> bool:
        """Whether all these parts (those that are ours) serve; without names, all there are."""
        chosen = names or tuple(self._watched)
        return all(self._watched[name].ready for name in chosen if name in self._watched)

    def pid(self, name: str) -> int | None:
        """Process id of a part, if it runs now."""
        watched = self._watched.get(name)
        return watched.child.pid if watched and watched.child else None

    def pids(self) -> dict[str, int]:
        """Process ids of the parts that run now."""
        return {name: w.child.pid for name, w in self._watched.items() if w.child}

    def tick(self) -> None:
        """One round over all parts; StackError when one is given up."""
        for watched in self._watched.values():
            if watched.child is None:
                self._start_if_due(watched)
            else:
                self._look_at(watched, watched.child)

    def _start_if_due(self, watched: _Watched) -> None:
        part = watched.part
        if time.monotonic() < watched.start_at or not self._has_needs(part):
            return
        part.prepare()
        watched.child = ChildProcess(
            part.command,
            environment={**part.environment, **self._mark.of_part(part.name).environment()},
            log=part.log,
            cwd=part.cwd,
        )
        watched.started_at = time.monotonic()

    def _has_needs(self, part: Part) -> bool:
        return not part.needs or self.is_ready(*part.needs)

    def _look_at(self, watched: _Watched, child: ChildProcess) -> None:
        part = watched.part
        code = child.exit_code()
        if code is not None:
            self._ended(watched, exit_words(code), final=code in part.final_exit_codes)
        elif not self._has_needs(part):
            self._log(f"{part.name}: ended, since it needs {', '.join(part.needs)}")
            self._end([watched], grace_s=3.0)
        elif not watched.ready:
            took = time.monotonic() - watched.started_at
            if part.is_ready():
                watched.ready = True
                again = " again" if watched.was_ready else ""
                watched.was_ready = True
                self._log(f"{part.name}: ready{again} after {took:.1f} s")
            elif took > part.ready_timeout_s:
                child.kill()
                self._ended(watched, f"not ready within {part.ready_timeout_s:.0f} s")

    def _ended(self, watched: _Watched, how: str, *, final: bool = False) -> None:
        part = watched.part
        watched.child, watched.ready = None, False
        sweep(self._mark.of_part(part.name))  # its orphans hold slots, files and memory
        delay = None if final else watched.restarts.next_delay(time.monotonic())
        if delay is None:
            tries = "" if final else f", after {watched.restarts.most} restarts within ten minutes"
            raise StackError(
                f"{part.name} ended ({how}){tries}; its log {part.log} ends with:\n"
                + last_lines(part.log)
            )
        self._log(f"{part.name}: ended ({how}); starting again in {delay:.1f} s")
        watched.start_at = time.monotonic() + delay

    def stop(self, *names: str, grace_s: float | None = None) -> None:
        """End these parts (all without names) together, each with its own grace; forget them."""
        chosen = [self._watched.pop(name, None) for name in names or tuple(self._watched)]
        self._end([watched for watched in chosen if watched], grace_s=grace_s)

    def _end(self, chosen: Iterable[_Watched], *, grace_s: float | None) -> None:
        running = [(watched, watched.child) for watched in chosen if watched.child]
        begun = time.monotonic()
        for _, child in running:
            child.terminate()
        for watched, child in running:
            grace = watched.part.stop_grace_s if grace_s is None else grace_s
            if not child.wait(max(0.0, begun + grace - time.monotonic())):
                self._log(f"{watched.part.name}: did not end within {grace:.0f} s, killed")
                child.kill()
            watched.child, watched.ready = None, False
            sweep(self._mark.of_part(watched.part.name))
