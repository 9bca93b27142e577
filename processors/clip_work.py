"""One clip on its way through the chain: what is known of it so far, and what is said at the end.

What runs next is up to `processors.chain`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from processors.clip_files import WrittenFiles
from processors.clip_pass import DecodedClip
from processors.errors import MediaError
from processors.gates import Gate, may_store_frames
from processors.quality import aggregate
from processors.results import ClipResult, failed, passed, rejected
from processors.shared_batches import Scored
from processors.stage import CLIP_FILE, FRAME_FILES, ModelIdentity, Sample, Stage
from processors.stores import StoreOut
from schemas.operators import MotionScoreFilter
from schemas.reasons import MediaReason
from schemas.recipe import Recipe


@dataclass
class ClipWork:
    """A row of ``clips`` with everything that was found out about it."""

    clip: Mapping[str, Any]
    media: str | None = None
    """Path of the video, as long as a stage may want files of the clip."""
    sample: Sample = field(default_factory=dict)
    """What stages look at: the row itself, pictures, and what was measured so far."""
    scores: dict[str, Any] = field(default_factory=dict)
    """Columns of ``enriched_clips`` that were measured."""
    error: MediaError | None = None
    held: str | None = None
    """What the result says of it."""
    rejected: str | None = None
    """The first reason for which it is rejected."""
    cpu_s: float = 0.0
    gpu_s: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall seconds by stage."""
    _decoded: DecodedClip | None = None

    def __post_init__(self) -> None:
        # The split judged by the recipe that it had; what comes here has passed this one's filter.
        self.sample.update(self.clip, duration_ok=True)

    def fail(self, error: MediaError, stage: str) -> None:
        """It cannot be judged; ``stage`` is named where the error names none."""
        error.stage = error.stage or stage
        self.error = error

    def hold(self, fault: StoreOut) -> None:
        """Nothing is wrong with it; the store of its video is out."""
        self.held = str(fault)
        self.fail(fault.as_media_error(), fault.STAGE)

    def take_decoded(self, decoded: DecodedClip, motion_model: ModelIdentity | None) -> None:
        """What the decoding pass gave."""
        self._decoded = decoded
        self.cpu_s += decoded.cpu_s
        self.seconds.update(decoded.seconds)
        self.sample.update(decoded.images)
        decoded.images = {}
        self.scores.update(aggregate(decoded.quality), frame_count=len(decoded.quality))
        if decoded.motion_score is not None:
            self.scores["motion_score"] = decoded.motion_score
            self._name_model(MotionScoreFilter.stage, motion_model)
        self.sample.update(self.scores)

    def take_files(self, written: WrittenFiles) -> None:
        """What stages open; `forget_files` once it is gone."""
        self.cpu_s += written.cpu_s
        self.sample.update(written.columns)

    def forget_files(self) -> None:
        for column in (CLIP_FILE, FRAME_FILES):
            self.sample.pop(column, None)

    def take_scored(self, stage: Stage, scored: Scored) -> None:
        """What a stage gave."""
        self.cpu_s += scored.cpu_s
        self.gpu_s += scored.wall_s if stage.on_gpu else 0.0
        self.seconds[stage.name] = scored.wall_s
        if isinstance(scored.outcome, MediaError):
            self.fail(scored.outcome, stage.name)
            return
        self.scores.update({column: scored.outcome[column] for column in stage.outputs()})
        self.sample.update(scored.outcome)
        self._name_model(stage.name, stage.model)
        self.rejected = self.rejected or stage.rejects(self.sample)

    def judge(self, gate: Gate) -> None:
        """Have a gate look at the scores."""
        if self.error is not None:
            return
        try:
            self.rejected = self.rejected or gate.verdict(self.scores)
        except ValueError as error:
            self.fail(MediaError(MediaReason.STAGE_ERROR, str(error)), gate.stage)

    def result(self, recipe: Recipe) -> ClipResult:
        """Its rows."""
        scores = {
            **self.scores,
            "cpu_s": self.cpu_s,
            "gpu_s": self.gpu_s,
            "stage_seconds": {name: f"{s:.6f}" for name, s in self.seconds.items()},
        }
        if self.error is not None:
            result = failed(self.clip, recipe, self.error, scores)
            result.held = self.held
            return result
        if self.rejected is not None:
            result = rejected(self.clip, recipe, self.rejected, scores)
        else:
            result = passed(self.clip, recipe, scores)
        decoded = self._decoded
        if decoded is not None and decoded.jpegs and may_store_frames(recipe, self.scores):
            result.frames = _frames_row(self.clip, decoded)
        return result

    def _name_model(self, stage: str, model: ModelIdentity | None) -> None:
        if model is not None:
            self.scores[f"{stage}_model"] = model.name
            self.scores[f"{stage}_model_revision"] = model.revision


def _frames_row(clip: Mapping[str, Any], decoded: DecodedClip) -> dict[str, Any]:
    return {
        "clip_id": clip["clip_id"],
        "video_frames": decoded.jpegs,
        "frame_times_s": decoded.frame_times_s,
        "frame_sharpness": [q.sharpness for q in decoded.quality],
        "frame_brightness": [q.brightness for q in decoded.quality],
        "frame_black_fraction": [q.black_fraction for q in decoded.quality],
        "frame_overexposed": [q.overexposed for q in decoded.quality],
    }
