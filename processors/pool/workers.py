"""The actors as processes: started, asked whether they live, restarted; not what they work on."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import ray

from processors.errors import StageStartError
from processors.pool.actors import EnrichActor, StartReport
from processors.pool.errors import PoolUnavailable
from processors.pool.placement import place
from schemas.recipe import Recipe, dump_recipe
from schemas.settings import CHECKOUT, Settings, dump_settings

if TYPE_CHECKING:
    from processors.pool.dispatch import Call

ANSWER_S = 10.0
"""An idle actor that does not answer a ping within this is taken for dead."""
CLOSE_S = 5.0
"""Time for idle actors to let go of what they hold, their child processes above all."""

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Worker:
    """One actor, and the calls that it has, oldest first."""

    actor: Any
    calls: deque[Call] = field(default_factory=deque)
    starting: Any = None
    """Reference of its first answer while that is waited for."""
    start_by: float = 0.0
    node_id: str = ""
    longest_s: float = 0.0
    """As in its `StartReport`."""
    hung: bool = False
    leaving: bool = False
    """Given up: it takes no more calls."""


class Workers:
    """The actors of one recipe: at first ``pool.min_actors``, then as many as `resize` says."""

    def __init__(self, recipe: Recipe, settings: Settings, chain: str) -> None:
        """``chain`` is ``module:class``, imported by each actor."""
        pool = settings.pool
        self._least = pool.min_actors
        self._timeout_s = pool.actor_start_timeout_s
        gpus = ray.cluster_resources().get("GPU", 0.0)
        self._kinds = place(recipe, settings, gpus)
        self._kind = self._kinds[0]
        self._actor_class = ray.remote(EnrichActor).options(
            num_cpus=self._kind.cpus,
            num_gpus=self._kind.gpus,
            # One thread more, so that a busy actor still answers whether it lives.
            max_concurrency=pool.calls_in_flight + 1,
            # Restarted whenever it dies; a call that it died with is never repeated by Ray,
            # because only the dispatcher knows whom to suspect.
            max_restarts=-1,
            max_task_retries=0,
            runtime_env={"env_vars": {"PYTHONPATH": str(CHECKOUT)}},
        )
        self._arguments = (chain, dump_recipe(recipe), dump_settings(settings))
        self._workers: list[Worker] = []
        self._described: set[str] = set()
        """Lines that were logged; the actors are alike, and say the same."""
        most = "" if pool.actor_limit == self._least else f" to {pool.actor_limit}"
        logger.info("placing %d%s of %s", self._least, most, self._kind)
        for kind in self._kinds[1:]:
            logger.info("and one beside each, of %s", kind)
        self.resize(self._least)

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._workers)

    def __len__(self) -> int:
        """Actors that there are or that start, without those that are given up."""
        return sum(not worker.leaving for worker in self._workers)

    def resize(self, count: int) -> None:
        """Start actors, or give some up: those take no more calls, and end after their last."""
        staying = [worker for worker in self._workers if not worker.leaving]
        for _ in range(count - len(staying)):
            worker = Worker(self._actor_class.remote(*self._arguments))
            self._workers.append(worker)
            self._ask_to_start(worker)
        # First those that have least to finish, the youngest among equals.
        staying.sort(key=lambda w: (w.starting is None, len(w.calls), -self._workers.index(w)))
        for worker in staying[: max(0, len(staying) - count)]:
            worker.leaving = True
        self.end_leaving()

    def end_leaving(self) -> None:
        """End the actors that were given up and have no call left."""
        for worker in [w for w in self._workers if w.leaving and not w.calls]:
            self._workers.remove(worker)
            self._end([worker])

    def wait_until_ready(self, stop: threading.Event) -> None:
        """Wait for all actors' first answer, or until ``stop`` is set.

        `StageStartError` if a stage cannot start there, `PoolUnavailable` after
        ``pool.actor_start_timeout_s``.
        """
        while self.starting_refs() and not stop.is_set():
            ray.wait(self.starting_refs(), num_returns=1, timeout=0.5)
            for worker in self._workers:
                if not self._has_started(worker):
                    raise PoolUnavailable(self._why_not_started())

    def starting_refs(self) -> list[Any]:
        return [worker.starting for worker in self._workers if worker.starting is not None]

    def ready(self) -> list[Worker]:
        """Those that can be given calls."""
        return [
            worker
            for worker in self._workers
            if worker.starting is None and not worker.hung and not worker.leaving
        ]

    def nodes(self) -> set[str]:
        """All nodes with an actor that can be given calls."""
        return {worker.node_id for worker in self.ready()}

    def least_loaded(self, most_calls: int) -> Worker | None:
        """Who gets the next call; None if all have ``most_calls``, or one that runs alone."""
        free = [w for w in self.ready() if not any(c.alone for c in w.calls)]
        worker = min(free, key=lambda w: len(w.calls), default=None)
        return None if worker is None or len(worker.calls) >= most_calls else worker

    def check_started(self) -> None:
        """Take the first answers that have come.

        An actor that the cluster has no room for is given up if there are more than the least,
        and otherwise waited for as long as another works. `StageStartError` if a stage cannot
        start, `PoolUnavailable` if no actor is left that works.
        """
        for worker in list(self._workers):
            if self._has_started(worker):
                continue
            if not self.ready():
                raise PoolUnavailable(self._why_not_started())
            logger.warning("going on with %d: %s", len(self.ready()), self._why_not_started())
            if len(self) > self._least:
                worker.leaving = True
            else:
                worker.start_by = time.monotonic() + self._timeout_s
        self.end_leaving()

    def _has_started(self, worker: Worker) -> bool:
        """Take an actor's first answer if it has come; False if the time for it is over."""
        if worker.starting is None or worker.leaving:
            return True
        if ray.wait([worker.starting], timeout=0)[0]:
            self._take_start(worker)
        return worker.starting is None or time.monotonic() <= worker.start_by

    def answers(self, worker: Worker) -> bool:
        """Whether an idle actor is alive now; if not, it is being restarted."""
        try:
            ray.get(worker.actor.start.remote(), timeout=ANSWER_S)
        except ray.exceptions.RayError:
            self.restart(worker)
            return False
        return True

    def restart(self, worker: Worker) -> None:
        """Wait for a dead actor to come back; Ray starts its process again by itself."""
        worker.hung = False
        if not worker.leaving:
            self._ask_to_start(worker)

    def node_is_gone(self, worker: Worker) -> bool:
        """Whether the cluster has lost the machine that the actor ran on."""
        return any(node["NodeID"] == worker.node_id and not node["Alive"] for node in ray.nodes())

    def close(self) -> None:
        """Let the idle actors release what they hold, then end all of them."""
        self._end(self._workers)

    def _end(self, workers: Sequence[Worker]) -> None:
        # A cluster that is gone has nothing left to end, and must not hide why we stop.
        with suppress(Exception):
            idle = [w for w in workers if not w.calls and w.starting is None]
            closing = [worker.actor.close.remote() for worker in idle]
            if closing:
                ray.wait(closing, num_returns=len(closing), timeout=CLOSE_S)
            for worker in workers:
                ray.kill(worker.actor, no_restart=True)

    def _ask_to_start(self, worker: Worker) -> None:
        if worker.starting is None:
            worker.start_by = time.monotonic() + self._timeout_s
        worker.starting = worker.actor.start.remote()

    def _take_start(self, worker: Worker) -> None:
        try:
            report: StartReport = ray.get(worker.starting)
        except ray.exceptions.RayActorError as error:
            if time.monotonic() > worker.start_by:
                raise PoolUnavailable(f"an actor dies while it starts: {error}") from None
            # Its process was not back yet, or died once more: ask again, until start_by.
            time.sleep(0.1)
            self._ask_to_start(worker)
            return
        except ray.exceptions.RayError as error:
            raise PoolUnavailable(f"an actor cannot start: {error}") from None
        if report.error is not None:
            raise StageStartError(report.error)
        worker.starting = None
        worker.node_id, worker.longest_s = report.node_id, report.longest_s
        self._describe(report)

    def _describe(self, report: StartReport) -> None:
        """Log what runs where, once for actors that say the same."""
        for stage in report.stages:
            # Why the actor was given none says more than that the stage sees none.
            why = stage.no_gpu and (self._kind.no_gpu or stage.no_gpu)
            line = str(replace(stage, no_gpu=why))
            if line not in self._described:
                self._described.add(line)
                logger.info("stage %s", line)

    def _why_not_started(self) -> str:
        waiting = len(self.starting_refs())
        free = ray.available_resources()
        return (
            f"{waiting} of {len(self)} actors did not answer within "
            f"{self._timeout_s:.0f} s; each wants {self._kind.cpus:g} CPUs and "
            f"{self._kind.gpus:g} GPUs, and {free.get('CPU', 0):g} and {free.get('GPU', 0):g} are "
            "free (pool.min_actors, pool.max_actors, pool.cpus_per_actor, pool.gpus_per_actor, "
            "pool.actor_start_timeout_s)"
        )
