"""Where a recipe's stages run: in which kind of actor, on how many CPUs and GPUs, and why no GPU.

All stages share one kind of actor, however many there are: between two kinds a clip's frames
would have to be handed on, and each would idle while the other works. Only DataJuicer's operators
run apart, since their environment is another one: in an actor beside each worker, on its CPUs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from processors.custom_host import HostedStage
from processors.planning import custom_stages
from schemas.operators import DataJuicerOperator
from schemas.recipe import Recipe
from schemas.settings import Settings


@dataclass(frozen=True)
class ActorKind:
    """Actors that are alike, and what Ray reserves for one of them."""

    name: str
    stages: tuple[str, ...]
    """In the recipe's order."""
    cpus: float
    gpus: float
    no_gpu: str = ""
    """Why none is reserved, if its stages have use for one."""

    def __str__(self) -> str:
        amount = f"{self.cpus:g} CPUs, {self.gpus:g} GPUs" if self.cpus else "the worker's CPUs"
        why = f" ({self.no_gpu})" if self.no_gpu else ""
        return f"{self.name} ({', '.join(self.stages)}) on {amount}{why}"


def place(recipe: Recipe, settings: Settings, cluster_gpus: float) -> list[ActorKind]:
    """The kinds of actors that a recipe's stages need, the workers first.

    ``cluster_gpus``: GPUs of all the cluster's nodes, whether or not they are free now.
    """
    custom = list(custom_stages(recipe).values())
    beside = [o for o in recipe.operators if isinstance(o, DataJuicerOperator)]
    inside = [o.stage for o in recipe.operators if o not in beside]
    wanted = _gpus_wanted(recipe, custom, settings)
    gpus, no_gpu = wanted, ""
    if settings.pool.gpus_per_actor is not None:
        gpus = settings.pool.gpus_per_actor
        no_gpu = "" if gpus else "pool.gpus_per_actor is 0"
    elif wanted and not cluster_gpus:
        gpus, no_gpu = 0.0, "no node of the cluster has a GPU"
    # Stages take turns at the CPUs, so the largest claim is enough; GPU memory they hold together.
    cpus = max([settings.pool.cpus_per_actor, *(stage.resources.cpus for stage in custom)])
    cpus, gpus = _can_be_reserved(cpus), _can_be_reserved(gpus)
    kinds = [ActorKind("worker", ("fetch", "decode", *inside), cpus, gpus, no_gpu)]
    if beside:
        kinds.append(ActorKind("DataJuicer", tuple(o.stage for o in beside), 0.0, 0.0))
    return kinds


def _gpus_wanted(recipe: Recipe, custom: Iterable[HostedStage], settings: Settings) -> float:
    """GPUs that one worker has use for.

    Models by torch share one, and with stages of the user's own that declare less than a whole
    one; from a whole one on, those have GPUs of their own.
    """
    own = sum(stage.resources.gpus for stage in custom)
    by_torch = any(o.checkpoint is not None for o in recipe.operators)
    if not by_torch or settings.models.device == "cpu":
        return own
    return 1.0 + own if own >= 1 else 1.0


def _can_be_reserved(amount: float) -> float:
    """Ray gives fractions only below one."""
    return amount if amount <= 1 else float(math.ceil(amount))
