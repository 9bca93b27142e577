"""What the stages that score clips by their frames share: one pass for all, one score a clip."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import torch

from processors.errors import MediaError
from processors.frames import FrameSampling, Pixels
from processors.models.torch_stage import Picture, TorchStage
from processors.scores import reduce_scores
from processors.stage import Sample
from schemas.operators import Reduce
from schemas.reasons import MediaReason
from schemas.settings import Settings


class FrameScoreStage(TorchStage):
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
        super().__init__(checkpoint, sampling, pixels, settings)
        self._reduce = reduce
        self.batch_size = settings.models.frames_per_batch

    def outputs(self) -> tuple[str, ...]:
        return (self.score_column,)

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
        with torch.inference_mode():
            scores = np.array(self._frame_batches.run(self._score, frames), dtype=np.float64)
        if not np.isfinite(scores).all():
            raise MediaError(
                MediaReason.STAGE_ERROR, "the model gave a score that is no number", stage=self.name
            )
        ends = np.cumsum(counts)
        return [
            {self.score_column: reduce_scores(scores[end - count : end], self._reduce)}
            for end, count in zip(ends, counts, strict=True)
        ]

    def _score(self, frames: Sequence[Picture]) -> list[float]:
        scores: list[float] = self._scores(self._pixel_values(frames)).float().tolist()
        return scores

    def _try_out(self, picture: Picture) -> None:
        (score,) = self._score([picture])
        if not np.isfinite(score):
            raise RuntimeError(f"it scores a black picture {score}")

    @abstractmethod
    def _scores(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """One score a picture, ``[n]``, from ``[n, 3, h, w]``."""
