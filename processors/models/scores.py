"""What the stages that score clips by their frames share: one pass for all, one score a clip."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from processors.errors import MediaError, StageStartError
from processors.frames import FrameRequest, FrameSampling, Pixels
from processors.models.checkpoint import resolve
from processors.models.device import Device, FittingBatches, pick_device
from processors.models.images import ImageInputs
from processors.scores import reduce_scores
from processors.stage import ModelIdentity, Sample, Stage
from schemas.operators import Reduce
from schemas.reasons import MediaReason
from schemas.settings import Settings


class FrameScoreStage(Stage):
    """A number a clip, reduced from those that a vision model gives its frames.

    The frames of all clips of a batch go through the model together.
    """

    score_column: str

    def __init__(
        self,
        checkpoint: str,
        sampling: FrameSampling,
        reduce: Reduce,
        pixels: Pixels,
        settings: Settings,
    ) -> None:
        self._checkpoint = checkpoint
        self._sampling = sampling
        self._reduce = reduce
        self._pixels = pixels
        self._settings = settings
        self.batch_size = settings.models.frames_per_batch
        self._batches = FittingBatches(self.batch_size, stage=self.name, unit="frame")
        self._identity: ModelIdentity | None = None
        self._inputs: ImageInputs | None = None
        self._device: Device | None = None

    @property
    def frames_column(self) -> str:
        """The sample's column that holds its frames."""
        return f"{self.name}_frames"

    def inputs(self) -> tuple[str, ...]:
        return (self.frames_column,)

    def outputs(self) -> tuple[str, ...]:
        return (self.score_column,)

    def frames(self) -> FrameRequest:
        """Known after `setup`: the size is the checkpoint's."""
        if self._inputs is None:
            raise RuntimeError("setup has not been called")
        return FrameRequest(self.frames_column, self._sampling, self._inputs.resize, self._pixels)

    @property
    def model(self) -> ModelIdentity | None:
        return self._identity

    @property
    def on_gpu(self) -> bool:
        return self._device is not None and self._device.is_gpu

    def setup(self) -> None:
        checkpoint = resolve(self._checkpoint, stage=self.name)
        cpus = self._settings.pool.cpus_per_actor
        self._device = pick_device(self._settings.models, cpus, stage=self.name)
        self._inputs = ImageInputs(checkpoint.folder, stage=self.name)
        self._load(checkpoint.folder, self._device)
        self._identity = checkpoint.identity
        try:
            self.ping()
        except Exception as error:
            raise StageStartError(
                f"stage {self.name}: {self._checkpoint} gives no score: {error}"
            ) from None

    def ping(self) -> None:
        if self._inputs is None:
            raise RuntimeError("setup has not been called")
        blank = np.zeros((64, 64, 3), dtype=np.uint8)
        (score,) = self._score([self._inputs.resize(blank)])
        if not np.isfinite(score):
            raise RuntimeError(f"the model scores a black picture {score}")

    def process(self, batch: Sequence[Sample]) -> list[Sample]:
        """The score of each sample over its frames.

        Raises `MediaError`: ``no_frames``; ``stage_error`` for a score that is no finite number.
        """
        counts = [len(sample[self.frames_column]) for sample in batch]
        if 0 in counts:
            raise MediaError(
                MediaReason.NO_FRAMES, "the clip has no frame to judge", stage=self.name
            )
        frames = [frame for sample in batch for frame in sample[self.frames_column]]
        scores = np.array(self._batches.run(self._score, frames), dtype=np.float64)
        if not np.isfinite(scores).all():
            raise MediaError(
                MediaReason.STAGE_ERROR, "the model gave a score that is no number", stage=self.name
            )
        ends = np.cumsum(counts)
        return [
            {self.score_column: reduce_scores(scores[end - count : end], self._reduce)}
            for end, count in zip(ends, counts, strict=True)
        ]

    def _score(self, frames: Sequence[NDArray[np.uint8]]) -> list[float]:
        if self._inputs is None or self._device is None:
            raise RuntimeError("setup has not been called")
        with torch.inference_mode():
            scores = self._scores(self._inputs(frames, self._device))
            return [float(score) for score in scores.float().cpu()]

    @abstractmethod
    def _load(self, folder: Path, device: Device) -> None:
        """Load the model from the checkpoint's folder; `StageStartError` if that fails."""

    @abstractmethod
    def _scores(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """One score a picture, ``[n]``, from ``[n, 3, h, w]``."""
