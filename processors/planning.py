"""From a recipe to what runs: its stages, and what one decoding pass has to give them.

An operator that nothing here runs stops the start; none is skipped or replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from processors.clip_pass import DecodePlan
from processors.datajuicer.hosts import DataJuicerHost
from processors.datajuicer.stage import DataJuicerStage
from processors.errors import StageStartError
from processors.frames import FrameSampling
from processors.motion import MotionParameters
from processors.safety import OpenNsfwStage
from processors.stage import Stage
from schemas.operators import (
    CaptionFromVideo,
    DataJuicerOperator,
    ExtractFrames,
    FrameQualityFilter,
    MotionScoreFilter,
    NsfwFilter,
    Operator,
)
from schemas.recipe import Recipe
from schemas.settings import Settings

_MEASURED_IN_DECODING = (ExtractFrames, MotionScoreFilter, FrameQualityFilter)
"""Operators whose work is done where the frames are decoded."""
_RUNNABLE_RECIPE = "recipes/laptop.yaml"

_Kind = TypeVar("_Kind", bound=Operator)


def find(recipe: Recipe, kind: type[_Kind]) -> _Kind | None:
    """The recipe's operator of that kind, or None."""
    return next((o for o in recipe.operators if isinstance(o, kind)), None)


def stages_of(recipe: Recipe, settings: Settings) -> dict[str, Stage]:
    """The model stages of a recipe by operator, not yet set up.

    Raises `StageStartError` with one line that names every operator that cannot run.
    """
    stages: dict[str, Stage] = {}
    missing = []
    further = [o for o in recipe.operators if isinstance(o, DataJuicerOperator)]
    # One process for all of them: it takes seconds to start, and hundreds of megabytes.
    host = DataJuicerHost(settings, [(o.name, o.parameters) for o in further])
    captioned = False
    for operator in recipe.operators:
        captioned = captioned or isinstance(operator, CaptionFromVideo)
        if isinstance(operator, _MEASURED_IN_DECODING):
            continue
        if isinstance(operator, DataJuicerOperator):
            stages[operator.op] = DataJuicerStage(operator, host, settings, captioned=captioned)
            continue
        if isinstance(operator, NsfwFilter) and operator.engine == "open_nsfw_onnx":
            stages[operator.op] = OpenNsfwStage(operator, settings.model_dir)
        elif isinstance(operator, NsfwFilter):
            missing.append(
                f"{operator.op} with engine {operator.engine} ({operator.hf_nsfw_model}); "
                "engine open_nsfw_onnx runs"
            )
        else:
            missing.append(operator.op)
    if missing:
        raise StageStartError(
            f"recipe {recipe.name}: this version has no stage for {', nor for '.join(missing)}. "
            f"{_RUNNABLE_RECIPE} runs as it is"
        )
    return stages


def decode_plan(recipe: Recipe, stages: Sequence[Stage]) -> DecodePlan:
    """What to take from every clip in its one decoding pass."""
    extract, motion = find(recipe, ExtractFrames), find(recipe, MotionScoreFilter)
    requests = tuple(request for stage in stages if (request := stage.frames()) is not None)
    if extract is not None:
        frames = FrameSampling(extract.frame_sampling_method, extract.frame_num)
    else:
        # Quality is measured in any case, then on the frames that a model looks at.
        frames = requests[0].sampling if requests else FrameSampling()
    return DecodePlan(
        frames=frames,
        jpeg=extract is not None and recipe.store_frames,
        requests=requests,
        motion=None if motion is None else MotionParameters.of(motion),
    )
