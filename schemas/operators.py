"""The operators of a recipe: their parameters, by DataJuicer's names and with its defaults.

What an operator's scores and its verdict depend on is said here, for the fingerprints; what runs
it is in ``processors``, and how a recipe is put together in `schemas.recipe`.
"""

from __future__ import annotations

import math
import sys
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

FrameSampling = Literal["all_keyframes", "uniform"]
Reduce = Literal["avg", "max", "min"]
Share = Annotated[float, Field(ge=0, le=1)]


class Operator(BaseModel):
    """One operator's parameters, by DataJuicer's names and with its defaults."""

    # Defaults validated too: 2 and 2.0 are one value, and have to have one fingerprint.
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    op: ClassVar[str]
    """The operator's name in a recipe."""
    stage: ClassVar[str]
    """The stage of ours that runs it."""
    gate_parameters: ClassVar[frozenset[str]] = frozenset()
    """Parameters that change verdicts and no score."""

    @field_validator("*")
    @classmethod
    def _is_a_number(cls, value: object) -> object:
        if isinstance(value, float) and math.isnan(value):
            # Every comparison with it is false: a gate would let everything pass.
            raise ValueError("is not a number")
        return value

    def score_parameters(self) -> dict[str, Any]:
        """What the operator's scores depend on."""
        return {
            "op": self.op,
            **self.model_dump(mode="json", exclude=set(self.gate_parameters)),
        }

    def gates(self) -> dict[str, Any]:
        """What the operator's verdict depends on, beside its scores."""
        return {"op": self.op, **self.model_dump(mode="json", include=set(self.gate_parameters))}


class SplitByScene(Operator):
    """Cut a video where its content changes; a clip is a range of the video, nothing is encoded."""

    op = "video_split_by_scene_mapper"
    stage = "split"

    detector: Literal["ContentDetector"] = "ContentDetector"
    threshold: Annotated[float, Field(ge=0)] = 27.0
    min_scene_len: Annotated[int, Field(ge=0)] = 15
    """Frames."""
    show_progress: Literal[False] = False


class DurationFilter(Operator):
    """Let clips pass that last from ``min_duration`` to ``max_duration`` seconds, both included."""

    op = "video_duration_filter"
    stage = "duration"
    gate_parameters = frozenset({"min_duration", "max_duration", "any_or_all"})

    min_duration: Annotated[float, Field(ge=0)] = 0
    max_duration: Annotated[float, Field(ge=0)] = sys.maxsize
    any_or_all: Literal["any", "all"] = "any"

    @model_validator(mode="after")
    def _in_order(self) -> DurationFilter:
        if self.min_duration > self.max_duration:
            raise ValueError("min_duration is above max_duration: nothing could pass")
        return self


class ExtractFrames(Operator):
    """Sample frames of a clip; they are stored, and the image models look at them."""

    op = "video_extract_frames_mapper"
    stage = "frames"

    frame_sampling_method: FrameSampling = "all_keyframes"
    frame_num: Annotated[int, Field(ge=1)] = 3
    output_format: Literal["path", "bytes"] = "bytes"
    """Either is read; frames are always stored as JPEG in ``clip_frames``."""


class _ScoreFilter(Operator):
    gate_parameters = frozenset({"min_score", "max_score", "any_or_all"})

    min_score: float = 0.0
    max_score: float = sys.float_info.max
    any_or_all: Literal["any", "all"] = "any"

    @model_validator(mode="after")
    def _in_order(self) -> _ScoreFilter:
        if self.min_score > self.max_score:
            raise ValueError("min_score is above max_score: nothing could pass")
        return self


class NsfwFilter(_ScoreFilter):
    """Score a clip's frames for safety; fails closed."""

    op = "video_nsfw_filter"
    stage = "safety"

    engine: Literal["transformers", "open_nsfw_onnx"] = "transformers"
    """``open_nsfw_onnx`` is Yahoo's Open NSFW from the package registry; ours, not DataJuicer's."""
    hf_nsfw_model: str = "Falconsai/nsfw_image_detection"
    trust_remote_code: Literal[False] = False
    min_score: float = 0.0
    max_score: float = 0.5
    frame_sampling_method: FrameSampling = "all_keyframes"
    frame_num: Annotated[int, Field(ge=1)] = 3
    reduce_mode: Reduce = "avg"


class MotionScoreFilter(_ScoreFilter):
    """Score a clip's motion by Farneback's optical flow."""

    op = "video_motion_score_filter"
    stage = "motion"

    min_score: float = 0.25
    sampling_fps: Annotated[float, Field(gt=0)] = 2
    size: Annotated[int, Field(gt=0)] | None = None
    """Length of the shorter edge to which frames are resized; null leaves them as they are."""
    max_size: Annotated[int, Field(gt=0)] | None = None
    divisible: Annotated[int, Field(ge=1)] = 1
    relative: bool = False
    """Divide by the frame's diagonal."""


class AestheticsFilter(_ScoreFilter):
    """Score a clip's frames for aesthetics."""

    op = "video_aesthetics_filter"
    stage = "aesthetics"

    hf_scorer_model: str = ""
    trust_remote_code: Literal[False] = False
    min_score: float = 0.4
    max_score: float = 1.0
    frame_sampling_method: FrameSampling = "uniform"
    frame_num: Annotated[int, Field(ge=1)] = 3
    reduce_mode: Reduce = "avg"


class CaptionFromVideo(Operator):
    """Write a caption of a clip."""

    op = "video_captioning_from_video_mapper"
    stage = "caption"

    hf_video_blip: str = "kpyu/video-blip-opt-2.7b-ego4d"
    trust_remote_code: Literal[False] = False
    caption_num: Literal[1] = 1
    keep_original_sample: bool = False
    prompt: str | None = None
    frame_sampling_method: FrameSampling = "all_keyframes"
    frame_num: Annotated[int, Field(ge=1)] = 3
    horizontal_flip: bool = False
    vertical_flip: bool = False


class FrameQualityFilter(Operator):
    """Gate on the measured quality of the sampled frames; an operator of ours.

    Quality is always measured; only a recipe that names this operator rejects by it.
    """

    op = "cliplake_frame_quality_filter"
    stage = "quality"
    gate_parameters = frozenset({"min_sharpness", "max_black_fraction", "max_overexposed_fraction"})

    min_sharpness: Annotated[float, Field(ge=0)] = 0.0
    max_black_fraction: Share = 1.0
    max_overexposed_fraction: Share = 1.0


OPERATORS: dict[str, type[Operator]] = {
    operator.op: operator
    for operator in (
        SplitByScene,
        DurationFilter,
        ExtractFrames,
        NsfwFilter,
        MotionScoreFilter,
        AestheticsFilter,
        CaptionFromVideo,
        FrameQualityFilter,
    )
}
