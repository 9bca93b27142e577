"""From a recipe to what runs: its stages, and what one decoding pass has to give them.

An operator that nothing here runs stops the start; none is skipped or replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from processors.clip_pass import DecodePlan
from processors.custom import COLUMNS_OF_EVERY_CLIP, stage_of
from processors.custom_host import HostedStage
from processors.datajuicer.hosts import DataJuicerHost
from processors.datajuicer.stage import DataJuicerStage
from processors.errors import StageStartError
from processors.frames import FrameSampling, Pixels
from processors.models.openai_caption import OpenAiCaptionStage
from processors.motion import MotionParameters
from processors.safety import OpenNsfwStage
from processors.stage import Stage
from schemas.operators import (
    AestheticsFilter,
    CaptionFromVideo,
    CustomStage,
    DataJuicerOperator,
    ExtractFrames,
    FrameQualityFilter,
    MotionScoreFilter,
    NsfwFilter,
    Operator,
)
from schemas.problems import ConfigError
from schemas.recipe import Recipe
from schemas.settings import Settings

_MEASURED_IN_DECODING = (ExtractFrames, MotionScoreFilter, FrameQualityFilter)
"""Operators whose work is done where the frames are decoded."""

_Kind = TypeVar("_Kind", bound=Operator)
_Looking = NsfwFilter | AestheticsFilter | CaptionFromVideo


def find(recipe: Recipe, kind: type[_Kind]) -> _Kind | None:
    """The recipe's operator of that kind, or None."""
    return next((o for o in recipe.operators if isinstance(o, kind)), None)


def stages_of(recipe: Recipe, settings: Settings) -> dict[str, Stage]:
    """The stages of a recipe by operator, not yet set up.

    Raises `StageStartError` with one line that names what cannot run, and why.
    """
    further = [o for o in recipe.operators if isinstance(o, DataJuicerOperator)]
    # One process for all of them: it takes seconds to start, and hundreds of megabytes.
    host = DataJuicerHost(settings, [(o.name, o.parameters) for o in further])
    try:
        stages: dict[str, Stage] = dict(custom_stages(recipe))
    except ConfigError as error:
        raise StageStartError(f"recipe {recipe.name}: {error}") from None
    for operator in recipe.operators:
        if isinstance(operator, DataJuicerOperator):
            stages[operator.op] = DataJuicerStage(operator, host, settings)
        elif not isinstance(operator, (*_MEASURED_IN_DECODING, CustomStage)):
            stages[operator.op] = _stage(operator, recipe, settings)
    return stages


def custom_stages(recipe: Recipe) -> dict[str, HostedStage]:
    """The recipe's stages of the user's own by operator: their files are run and checked.

    `ConfigError` if a declaration is wrong for its place in the recipe.
    """
    stages: dict[str, HostedStage] = {}
    there = [*COLUMNS_OF_EVERY_CLIP]
    result_names = {
        name
        for operator in recipe.operators
        if isinstance(operator, DataJuicerOperator)
        for name in operator.result_names()
    }
    for operator in recipe.operators:
        if isinstance(operator, CustomStage):
            names = [other.name for other in stages.values()]
            stage = stage_of(operator, there, names, result_names)
            stages[operator.op] = stage
            there += stage.gives
        there += operator.columns
    return stages


def _stage(operator: Operator, recipe: Recipe, settings: Settings) -> Stage:
    if isinstance(operator, NsfwFilter) and operator.engine == "open_nsfw_onnx":
        return OpenNsfwStage(operator, settings.model_dir, _sampling(operator, recipe))
    if isinstance(operator, CaptionFromVideo) and operator.engine == "openai":
        return OpenAiCaptionStage(operator, _sampling(operator, recipe), "upright")
    if operator.checkpoint is not None:
        return _torch_stage(operator, recipe, settings)
    raise StageStartError(f"recipe {recipe.name}: this version has no stage for {operator.op}")


def _torch_stage(operator: Operator, recipe: Recipe, settings: Settings) -> Stage:
    # Imported here: torch takes seconds to load, and recipes without it need not have it.
    try:
        from processors.models.aesthetics import AestheticsStage
        from processors.models.image_text import ImageTextStage
        from processors.models.safety import ImageClassifierSafetyStage
        from processors.models.video_blip import VideoBlipStage
    except ImportError as error:
        raise StageStartError(
            f"stage {operator.stage}: {operator.op} needs torch and transformers ({error}); "
            "run `make setup-models`"
        ) from None
    pixels = _pixels(recipe)
    match operator:
        case NsfwFilter():
            return ImageClassifierSafetyStage(
                operator, _sampling(operator, recipe), pixels, settings
            )
        case AestheticsFilter():
            return AestheticsStage(operator, _sampling(operator, recipe), pixels, settings)
        case CaptionFromVideo(engine="image_text"):
            return ImageTextStage(operator, _sampling(operator, recipe), pixels, settings)
        case CaptionFromVideo():
            return VideoBlipStage(operator, _sampling(operator, recipe), pixels, settings)
    raise StageStartError(f"recipe {recipe.name}: this version has no stage for {operator.op}")


def _pixels(recipe: Recipe) -> Pixels:
    """Which pixels the models of the hub look at; those that DataJuicer's do, unless mended."""
    return "coded" if recipe.compat == "dj" else "upright"


def _sampling(operator: _Looking, recipe: Recipe) -> FrameSampling:
    """The frames an operator looks at: its own, or some of those that were extracted before."""
    extract = find(recipe, ExtractFrames)
    if operator.frame_field is None or extract is None:
        return FrameSampling(operator.frame_sampling_method, operator.frame_num)
    return replace(_extracted(extract), at_most=operator.frame_num)


def _extracted(extract: ExtractFrames) -> FrameSampling:
    return FrameSampling(extract.frame_sampling_method, extract.frame_num)


def decode_plan(recipe: Recipe, stages: Sequence[Stage]) -> DecodePlan:
    """What to take from every clip in its one decoding pass."""
    extract, motion = find(recipe, ExtractFrames), find(recipe, MotionScoreFilter)
    requests = tuple(request for stage in stages if (request := stage.frames()) is not None)
    return DecodePlan(
        # Quality is measured in any case, and on frames that no other stage decides about: those
        # that video_extract_frames_mapper takes by default.
        frames=_extracted(ExtractFrames() if extract is None else extract),
        jpeg=extract is not None and recipe.store_frames,
        requests=requests,
        motion=None if motion is None else MotionParameters.of(motion),
    )
