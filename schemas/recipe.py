"""Recipes: DataJuicer's YAML, with its operators' names and parameters, read strictly.

A recipe lists operators under ``process`` in the order in which they judge a clip. The first is
the split; what follows is about clips. Parameters that an operator of DataJuicer has and that
mean nothing here are refused, not ignored: what a recipe says is what happens.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from schemas.ids import fingerprint
from schemas.problems import ConfigError, explain, nearest, read_yaml

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


class _RecipeFile(BaseModel):
    """Keys at the top of a recipe file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    project_name: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    description: str | None = None
    process: list[dict[str, dict[str, Any] | None] | str]
    video_key: Literal["videos"] = "videos"
    np: Annotated[int, Field(ge=1)] | None = None
    """Read, and without effect: how many workers there are is a setting."""
    skip_op_error: bool = False
    score_rejected: bool = False
    """Score a clip with every stage even after a gate rejected it."""
    store_frames: bool = True
    store_unsafe_frames: bool = False
    """Whether frames of clips that safety rejected are stored."""


class Recipe(BaseModel):
    """A checked recipe; ``operators`` are those after split and duration filter, in order."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    name: str
    split: SplitByScene
    duration: DurationFilter
    operators: tuple[Operator, ...]
    score_rejected: bool = False
    store_frames: bool = True
    store_unsafe_frames: bool = False

    @property
    def split_fingerprint(self) -> str:
        """Changes when clips would be cut elsewhere; part of every clip_id."""
        return fingerprint(self.split.score_parameters())

    @property
    def splitter(self) -> str:
        """The split's parameters as JSON, for the ``splitter`` column."""
        return json.dumps(self.split.score_parameters(), sort_keys=True)

    @property
    def scores_fingerprint(self) -> str:
        """Changes when a clip's scores would."""
        return fingerprint(
            {
                "operators": [operator.score_parameters() for operator in self.operators],
                "score_rejected": self.score_rejected,
            }
        )

    @property
    def gates_fingerprint(self) -> str:
        """Changes when a clip's verdict would, from the same scores."""
        return fingerprint(
            {"gates": [self.duration.gates(), *(operator.gates() for operator in self.operators)]}
        )

    def operator(self, op: str) -> Operator | None:
        """The operator of that name, or None if the recipe lacks it."""
        return next((operator for operator in self.operators if operator.op == op), None)


def load_recipe(path: str | Path) -> Recipe:
    """A recipe from a file; `ConfigError` names the key that is wrong and the nearest right one."""
    file = Path(path).expanduser()
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe {file} cannot be read: {error}") from None
    return parse_recipe(text, where=str(file), default_name=file.stem)


def parse_recipe(text: str, *, where: str, default_name: str) -> Recipe:
    """As `load_recipe`, from YAML text; ``where`` stands in the errors."""
    document = read_yaml(text, where)
    if not isinstance(document, dict):
        raise ConfigError(f"{where}: a recipe is a mapping with a list under 'process'")
    try:
        head = _RecipeFile.model_validate(document)
    except ValidationError as error:
        raise explain(error, _RecipeFile, where) from None
    if head.skip_op_error:
        raise ConfigError(
            f"{where}: skip_op_error: true would drop clips without a word; leave it out: "
            "a clip that fails becomes a dead letter of its own here"
        )
    operators = [
        _operator(entry, f"{where}: process[{index}]") for index, entry in enumerate(head.process)
    ]
    return _assemble(head, operators, where, default_name)


def dump_recipe(recipe: Recipe) -> str:
    """A recipe as text that `parse_recipe` makes an equal one of, for another process."""
    operators = (recipe.split, recipe.duration, *recipe.operators)
    return json.dumps(
        {
            "project_name": recipe.name,
            "process": [{o.op: o.model_dump(mode="json")} for o in operators],
            "score_rejected": recipe.score_rejected,
            "store_frames": recipe.store_frames,
            "store_unsafe_frames": recipe.store_unsafe_frames,
        }
    )


def _operator(entry: dict[str, dict[str, Any] | None] | str, where: str) -> Operator:
    if isinstance(entry, str):
        entry = {entry: None}
    if len(entry) != 1:
        raise ConfigError(f"{where}: one operator an entry, and this has {', '.join(entry)}")
    ((name, parameters),) = entry.items()
    kind = OPERATORS.get(name)
    if kind is None:
        raise ConfigError(f"{where}: unknown operator {name!r}{nearest(name, OPERATORS)}")
    try:
        return kind.model_validate(parameters or {})
    except ValidationError as error:
        raise explain(error, kind, f"{where}.{name}") from None


def _assemble(
    head: _RecipeFile, operators: list[Operator], where: str, default_name: str
) -> Recipe:
    names = [operator.op for operator in operators]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{where}: {name} is there twice")
    if not operators or not isinstance(operators[0], SplitByScene):
        raise ConfigError(
            f"{where}: the first operator should be {SplitByScene.op}: "
            "all that follows is about its clips"
        )
    rest = operators[1:]
    duration = next((o for o in rest if isinstance(o, DurationFilter)), DurationFilter())
    if duration in rest and rest.index(duration) != 0:
        raise ConfigError(
            f"{where}: {DurationFilter.op} should follow {SplitByScene.op}: "
            "it drops clips before any is decoded again"
        )
    return Recipe(
        name=head.project_name or default_name,
        split=operators[0],
        duration=duration,
        operators=tuple(o for o in rest if o is not duration),
        score_rejected=head.score_rejected,
        store_frames=head.store_frames,
        store_unsafe_frames=head.store_unsafe_frames,
    )
