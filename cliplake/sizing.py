"""From a stream of videos and measured costs to slots, workers and GPUs. Arithmetic alone.

What has no measured cost is named and left out, never guessed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from cliplake.costs import Costs, StageCost, parameters_of
from schemas.operators import AestheticsFilter, CaptionFromVideo, NsfwFilter
from schemas.problems import ConfigError, nearest
from schemas.recipe import Recipe

ARRIVALS, SPLIT = "arrivals", "split"
WITH_EVERY_CLIP = ("fetch", "decode", "frames", "quality")
"""Stages of a worker that any recipe has."""
BESIDE = ("the broker", "the pool's driver", "the way of bytes over a network")
"""What takes time as well, and is in no stage's cost."""


class Place(StrEnum):
    """What a stage keeps busy."""

    FLINK = "Flink"
    WORKER = "CPU workers"
    GPU = "GPUs"


@dataclass(frozen=True)
class Stream:
    """What comes in."""

    videos_per_hour: float
    mean_seconds: float
    resolution: str
    clip_seconds: float
    """Mean length of a clip; only costs that were given for each clip depend on it."""

    @property
    def messages_per_s(self) -> float:
        return self.videos_per_hour / 3600

    @property
    def video_seconds_per_s(self) -> float:
        return self.messages_per_s * self.mean_seconds


@dataclass(frozen=True)
class Load:
    """One stage of the plan."""

    stage: str
    place: Place
    seconds_per_s: float | None
    """CPU or GPU seconds a second: how many would be busy all the time. None: not measured."""
    source: str
    """``measured``, ``given``, or why there is no number."""


@dataclass(frozen=True)
class Plan:
    """What a stream needs."""

    loads: tuple[Load, ...]
    flink_slots: int
    cpu_workers: int
    gpus: int
    bottleneck: str
    """A stage, with why."""
    not_measured: tuple[str, ...] = field(default=())
    """Stages without a cost: the numbers above are without them."""


def plan(
    stream: Stream, recipe: Recipe, costs: Costs, given: Mapping[str, float], *, busy: float
) -> Plan:
    """Slots, workers and GPUs that are busy for the share ``busy`` of their time.

    ``given``: seconds for each clip, by stage; these win over what was measured. Every clip is
    counted in every stage, as if no gate rejected any. `ConfigError` for a resolution that was
    not measured, or a given stage that the recipe does not have.
    """
    measured = costs.resolutions.get(stream.resolution)
    if measured is None:
        known = sorted(costs.resolutions, key=lambda name: int(name.removesuffix("p")))
        raise ConfigError(
            f"nothing was measured at {stream.resolution}, only at {', '.join(known)}; "
            "`cliplake size --measure --video FILE` measures at that of a file"
        )
    stages = dict.fromkeys((SPLIT, *WITH_EVERY_CLIP), "")
    # The parameters of quality change what is a gate, and not what is computed.
    stages |= {o.stage: parameters_of(o) for o in recipe.operators if o.stage not in stages}
    _require_known(given, list(stages))
    loads = [_arrivals(stream, costs)]
    on_gpu = {
        o.stage
        for o in recipe.operators
        if isinstance(o, (AestheticsFilter, CaptionFromVideo, NsfwFilter))
        and o.checkpoint is not None
    }
    for stage, parameters in stages.items():
        loads.append(_load(stream, stage, parameters, measured, given, stage in on_gpu))
    return _plan(tuple(loads), busy)


def _arrivals(stream: Stream, costs: Costs) -> Load:
    if costs.arrivals is None:
        return Load(ARRIVALS, Place.FLINK, None, "not measured")
    return Load(ARRIVALS, Place.FLINK, stream.messages_per_s * costs.arrivals.seconds, "measured")


def _load(
    stream: Stream,
    stage: str,
    parameters: str,
    measured: Mapping[str, StageCost],
    given: Mapping[str, float],
    on_gpu: bool,
) -> Load:
    place = Place.FLINK if stage == SPLIT else Place.GPU if on_gpu else Place.WORKER
    if stage in given:
        clips_per_s = stream.video_seconds_per_s / stream.clip_seconds
        return Load(stage, place, clips_per_s * given[stage], "given")
    cost = measured.get(stage)
    if cost is None:
        return Load(stage, place, None, "not measured")
    if parameters and cost.parameters != parameters:
        return Load(stage, place, None, "measured with another model or other parameters")
    if place is not Place.FLINK:
        place = Place.GPU if cost.unit == "gpu" else Place.WORKER
    return Load(stage, place, stream.video_seconds_per_s * cost.seconds, "measured")


def _plan(loads: tuple[Load, ...], busy: float) -> Plan:
    def needed(place: Place, *but: str) -> int:
        return math.ceil(_sum(loads, place, *but) / busy)

    # The arrivals job is one task in one slot, however little there is to do.
    slots = 1 + max(1, needed(Place.FLINK, ARRIVALS))
    return Plan(
        loads=loads,
        flink_slots=slots,
        cpu_workers=max(1, needed(Place.WORKER)),
        gpus=needed(Place.GPU),
        bottleneck=_bottleneck(loads, busy),
        not_measured=tuple(load.stage for load in loads if load.seconds_per_s is None),
    )


def _sum(loads: tuple[Load, ...], place: Place, *but: str) -> float:
    return sum(
        load.seconds_per_s or 0.0 for load in loads if load.place == place and load.stage not in but
    )


def _bottleneck(loads: tuple[Load, ...], busy: float) -> str:
    """What stops growth first: the one task that cannot be spread, else the largest load."""
    arrivals = loads[0]
    if (arrivals.seconds_per_s or 0.0) > busy:
        return (
            f"{ARRIVALS}: {arrivals.seconds_per_s:.2f} CPU seconds a second in one task, which "
            "cannot be spread over slots"
        )
    known = [load for load in loads if load.seconds_per_s is not None]
    on_gpu = [load for load in known if load.place is Place.GPU]
    largest = max(on_gpu or known, key=lambda load: load.seconds_per_s or 0.0)
    kind = "GPU" if on_gpu else "CPU"
    total = sum(load.seconds_per_s or 0.0 for load in (on_gpu or known))
    share = (largest.seconds_per_s or 0.0) / total if total else 0.0
    return f"{largest.stage}: {share:.0%} of the {kind} time that was measured or given"


def _require_known(given: Mapping[str, float], known: list[str]) -> None:
    for stage in given:
        if stage not in known:
            raise ConfigError(
                f"--cost {stage}: the recipe has no such stage{nearest(stage, known)}; "
                f"it has {', '.join(known)}"
            )


def document(
    stream: Stream, recipe: Recipe, costs: Costs, found: Plan, *, busy: float
) -> dict[str, Any]:
    """The plan as JSON."""
    return {
        "videos_per_hour": stream.videos_per_hour,
        "mean_seconds": stream.mean_seconds,
        "resolution": stream.resolution,
        "clip_seconds": stream.clip_seconds,
        "recipe": recipe.name,
        "busy": busy,
        "flink_slots": found.flink_slots,
        "cpu_workers": found.cpu_workers,
        "gpus": found.gpus,
        "bottleneck": found.bottleneck,
        "not_measured": list(found.not_measured),
        "not_counted": list(BESIDE),
        "stages": [
            {
                "stage": load.stage,
                "place": load.place,
                "seconds_per_s": load.seconds_per_s,
                "source": load.source,
            }
            for load in found.loads
        ],
        "measured": costs.origin.model_dump(mode="json"),
        "arrivals_measured": costs.arrivals and costs.arrivals.origin.model_dump(mode="json"),
    }
