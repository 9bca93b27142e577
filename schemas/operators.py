"""The operators that are built in: their parameters, by DataJuicer's names and with its defaults.

What an operator's scores and its verdict depend on is said here, for the fingerprints; what runs
it is in ``processors``, and how a recipe is put together in `schemas.recipe`. A parameter of
DataJuicer is a field, or one of those without effect, or refused: a test compares them with
DataJuicer's signatures.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from schemas.captioning import CaptionFromVideo
from schemas.operator import (
    BuiltIn,
    FrameSampling,
    LooksAtFrames,
    Operator,
    unread_of_sampling,
)
from schemas.plugins import CustomStage, DataJuicerOperator

__all__ = [
    "OPERATORS",
    "AestheticsFilter",
    "BuiltIn",
    "CaptionFromVideo",
    "CustomStage",
    "DataJuicerOperator",
    "DurationFilter",
    "ExtractFrames",
    "FrameQualityFilter",
    "MotionScoreFilter",
    "NsfwFilter",
    "Operator",
    "SplitByScene",
]

Reduce = Literal["avg", "max", "min"]
Share = Annotated[float, Field(ge=0, le=1)]

DEFAULT_SCORER = "shunk031/aesthetics-predictor-v2-sac-logos-ava1-l14-linearMSE"
_DECODED_ONCE = "a clip is decoded once, by PyAV, for all operators"
_BOTH_BOUNDS = dict.fromkeys(
    ("min_closed_interval", "max_closed_interval", "reversed_range"),
    "a clip passes from the lower to the upper bound, both included",
)
"""Parameters that all filters of DataJuicer have."""


class SplitByScene(BuiltIn):
    """Cut a video where its content changes; a clip is a range of the video, nothing is encoded."""

    op = "video_split_by_scene_mapper"
    stage = "split"
    without_effect: ClassVar[Mapping[str, str]] = {
        "show_progress": "the split runs in Flink, which shows its own",
        **dict.fromkeys(
            ("save_dir", "save_field", "ffmpeg_extra_args", "output_format"),
            "clips are ranges of their video, and no file is written",
        ),
    }

    detector: Literal["ContentDetector"] = "ContentDetector"
    threshold: Annotated[float, Field(ge=0)] = 27.0
    min_scene_len: Annotated[int, Field(ge=0)] = 15
    """Frames."""
    show_progress: Literal[False] = False
    """Not for a recipe to change; here because it is a part of every clip_id."""


class DurationFilter(BuiltIn):
    """Let clips pass that last from ``min_duration`` to ``max_duration`` seconds, both included."""

    op = "video_duration_filter"
    stage = "duration"
    gate_parameters = frozenset({"min_duration", "max_duration", "any_or_all"})
    without_effect: ClassVar[Mapping[str, str]] = {"video_backend": _DECODED_ONCE}
    refused: ClassVar[Mapping[str, str]] = _BOTH_BOUNDS

    min_duration: Annotated[float, Field(ge=0)] = 0
    max_duration: Annotated[float, Field(ge=0)] = sys.maxsize
    any_or_all: Literal["any", "all"] = "any"

    @model_validator(mode="after")
    def _in_order(self) -> DurationFilter:
        if self.min_duration > self.max_duration:
            raise ValueError("min_duration is above max_duration: nothing could pass")
        return self


class ExtractFrames(BuiltIn):
    """Sample frames of a clip; they are stored, and the image models look at them."""

    op = "video_extract_frames_mapper"
    stage = "frames"
    running_parameters = frozenset({"output_format", "frame_field"})
    without_effect: ClassVar[Mapping[str, str]] = {
        "frame_dir": "frames are stored in the table clip_frames",
        "frame_key": "frames are stored in the table clip_frames",
        "legacy_split_by_text_token": "a clip has no text with special tokens",
        "video_backend": _DECODED_ONCE,
    }
    refused: ClassVar[Mapping[str, str]] = {"duration": "frames are sampled over the whole clip"}

    frame_sampling_method: FrameSampling = "all_keyframes"
    frame_num: Annotated[int, Field(ge=1)] = 3
    output_format: Literal["path", "bytes"] = "bytes"
    """Either is read; frames are always stored as JPEG in ``clip_frames``."""
    frame_field: Annotated[str, Field(min_length=1)] = "video_frames"
    """The name by which later operators may ask for these frames."""

    def unread(self) -> frozenset[str]:
        return unread_of_sampling(self.frame_sampling_method)


class _ScoreFilter(BuiltIn):
    gate_parameters = frozenset({"min_score", "max_score", "any_or_all"})
    refused: ClassVar[Mapping[str, str]] = _BOTH_BOUNDS

    min_score: float = 0.0
    max_score: float = sys.float_info.max
    any_or_all: Literal["any", "all"] = "any"

    @model_validator(mode="after")
    def _in_order(self) -> _ScoreFilter:
        if self.min_score > self.max_score:
            raise ValueError("min_score is above max_score: nothing could pass")
        return self


class NsfwFilter(_ScoreFilter, LooksAtFrames):
    """Score a clip's frames for safety; fails closed."""

    op = "video_nsfw_filter"
    stage = "safety"
    columns = ("nsfw_score",)
    without_effect: ClassVar[Mapping[str, str]] = {"video_backend": _DECODED_ONCE}

    engine: Literal["transformers", "open_nsfw_onnx"] = "transformers"
    """``open_nsfw_onnx`` is Yahoo's Open NSFW from the package registry; ours, not DataJuicer's."""
    hf_nsfw_model: str = "Falconsai/nsfw_image_detection"
    trust_remote_code: Literal[False] = False
    min_score: float = 0.0
    max_score: float = 0.5
    reduce_mode: Reduce = "avg"

    def unread(self) -> frozenset[str]:
        return super().unread() | ({"hf_nsfw_model"} if self.checkpoint is None else set())

    @property
    def checkpoint(self) -> str | None:
        return self.hf_nsfw_model if self.engine == "transformers" else None


class MotionScoreFilter(_ScoreFilter):
    """Score a clip's motion by Farneback's optical flow."""

    op = "video_motion_score_filter"
    stage = "motion"
    columns = ("motion_score",)
    without_effect: ClassVar[Mapping[str, str]] = {
        "original_fps": "motion is measured on the clip's own frames, at their own rate",
        "optical_flow_key": "the flow itself is not kept",
    }
    refused: ClassVar[Mapping[str, str]] = {
        **_BOTH_BOUNDS,
        "frame_field": "motion is measured on the clip's own frames",
        "if_output_optical_flow": "the flow itself is not kept, only its score",
        **dict.fromkeys(
            ("pyr_scale", "levels", "winsize", "iterations", "poly_n", "poly_sigma", "flags"),
            "the flow is measured as DataJuicer measures it by default",
        ),
    }

    min_score: float = 0.25
    sampling_fps: Annotated[float, Field(gt=0)] = 2
    size: Annotated[int, Field(gt=0)] | None = None
    """Length of the shorter edge to which frames are resized; null leaves them as they are."""
    max_size: Annotated[int, Field(gt=0)] | None = None
    divisible: Annotated[int, Field(ge=1)] = 1
    relative: bool = False
    """Divide by the frame's diagonal."""


class AestheticsFilter(_ScoreFilter, LooksAtFrames):
    """Score a clip's frames for aesthetics."""

    op = "video_aesthetics_filter"
    stage = "aesthetics"
    columns = ("aesthetics_score",)

    hf_scorer_model: str = ""
    """Empty: the article's, as DataJuicer has it."""
    trust_remote_code: Literal[False] = False
    min_score: float = 0.4
    max_score: float = 1.0
    frame_sampling_method: FrameSampling = "uniform"
    reduce_mode: Reduce = "avg"

    def score_parameters(self) -> dict[str, Any]:
        return {**super().score_parameters(), "hf_scorer_model": self.checkpoint}

    @property
    def checkpoint(self) -> str:
        return self.hf_scorer_model or DEFAULT_SCORER


class FrameQualityFilter(BuiltIn):
    """Gate on the measured quality of the sampled frames; an operator of ours.

    Quality is always measured; only a recipe that names this operator rejects by it.
    """

    op = "cliplake_frame_quality_filter"
    stage = "quality"
    gate_parameters = frozenset({"min_sharpness", "max_black_fraction", "max_overexposed_fraction"})

    min_sharpness: Annotated[float, Field(ge=0)] = 0.0
    max_black_fraction: Share = 1.0
    max_overexposed_fraction: Share = 1.0


OPERATORS: dict[str, type[BuiltIn]] = {
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
