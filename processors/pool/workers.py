"""The actors as processes: started, asked whether they live, restarted; not what they work on."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ray

from processors.errors import StageStartError
from processors.planning import gpus_wanted
from processors.pool.actors import EnrichActor, StartReport
from processors.pool.errors import PoolUnavailable
from schemas.recipe import Recipe, dump_recipe
from schemas.settings import CHECKOUT, Settings, dump_settings

if TYPE_CHECKING:
    from processors.pool.dispatch import Call

ANSWER_S = 10.0
"""An idle actor that does not answer a ping within this is taken for dead."""

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
    hung: bool = False


class Workers:
    """As many actors as the settings say, for one recipe."""

    def __init__(self, recipe: Recipe, settings: Settings, chain: str) -> None:
        """``chain`` is ``module:class``, imported by each actor."""
        pool = settings.pool
        self._timeout_s = pool.actor_start_timeout_s
        self._cpus, self._gpus = pool.cpus_per_actor, gpus_per_actor(recipe, settings)
        actor_class = ray.remote(EnrichActor).options(
            num_cpus=pool.cpus_per_actor,
            num_gpus=self._gpus,
            # One thread more, so that a busy actor still answers whether it lives.
            max_concurrency=pool.calls_in_flight + 1,
            # Restarted whenever it dies; a call that it died with is never repeated by Ray,
            # because only the dispatcher knows whom to suspect.
            max_restarts=-1,
            max_task_retries=0,
            runtime_env={"env_vars": {"PYTHONPATH": str(CHECKOUT)}},
        )
        arguments = (chain, dump_recipe(recipe), dump_settings(settings))
        self._workers = [Worker(actor_class.remote(*arguments)) for _ in range(pool.actors)]
        for worker in self._workers:
            self._ask_to_start(worker)

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._workers)

    def wait_until_ready(self, stop: threading.Event) -> None:
        """Wait for all actors' first answer, or until ``stop`` is set.

        `StageStartError` if a stage cannot start there, `PoolUnavailable` after
        ``pool.actor_start_timeout_s``.
        """
        while self.starting_refs() and not stop.is_set():
            ray.wait(self.starting_refs(), num_returns=1, timeout=0.5)
            self.check_started()

    def starting_refs(self) -> list[Any]:
        return [worker.starting for worker in self._workers if worker.starting is not None]

    def ready(self) -> list[Worker]:
        return [worker for worker in self._workers if worker.starting is None and not worker.hung]

    def check_started(self) -> None:
        """Take the first answers that have come; errors as in `wait_until_ready`."""
        for worker in self._workers:
            if worker.starting is None:
                continue
            ready, _ = ray.wait([worker.starting], timeout=0)
            if ready:
                self._take_start(worker)
            elif time.monotonic() > worker.start_by:
                raise PoolUnavailable(self._why_not_started())

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
        self._ask_to_start(worker)

    def node_is_gone(self, worker: Worker) -> bool:
        """Whether the cluster has lost the machine that the actor ran on."""
        return any(node["NodeID"] == worker.node_id and not node["Alive"] for node in ray.nodes())

    def close(self, timeout_s: float = 5.0) -> None:
        """Let the idle actors release what they hold, then end all of them."""
        # A cluster that is gone has nothing left to end, and must not hide why we stop.
        with suppress(Exception):
            idle = [w for w in self._workers if not w.calls and w.starting is None]
            closing = [worker.actor.close.remote() for worker in idle]
            if closing:
                ray.wait(closing, num_returns=len(closing), timeout=timeout_s)
            for worker in self._workers:
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
        worker.node_id = report.node_id

    def _why_not_started(self) -> str:
        waiting = len(self.starting_refs())
        free = ray.available_resources()
        return (
            f"{waiting} of {len(self._workers)} actors did not answer within "
            f"{self._timeout_s:.0f} s; each wants {self._cpus:g} CPUs and {self._gpus:g} GPUs, and "
            f"{free.get('CPU', 0):g} and {free.get('GPU', 0):g} are free (pool.actors, "
            "pool.cpus_per_actor, pool.gpus_per_actor, pool.actor_start_timeout_s)"
        )


def gpus_per_actor(recipe: Recipe, settings: Settings) -> float:
    """GPUs that an actor reserves: what the settings say, else what it has use for."""
    if settings.pool.gpus_per_actor is not None:
        return settings.pool.gpus_per_actor
    if settings.models.device == "cpu" or not ray.cluster_resources().get("GPU", 0):
        return 0.0
    return gpus_wanted(recipe)
