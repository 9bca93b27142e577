"""What the captioners that run with torch share: checkpoint, frames, batches of clips."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoTokenizer

from processors.errors import MediaError, StageStartError
from processors.frames import FrameRequest, FrameSampling, Pixels
from processors.models.checkpoint import resolve
from processors.models.device import Device, FittingBatches, pick_device
from processors.models.images import ImageInputs
from processors.stage import ModelIdentity, Sample, Stage
from schemas.operators import CaptionFromVideo
from schemas.reasons import MediaReason
from schemas.settings import Settings

FRAMES_COLUMN = "caption_frames"

Frames = NDArray[np.uint8]
"""Of one clip: RGB ``[n, h, w, 3]``."""


@dataclass(frozen=True)
class Caption:
    """What was generated for one clip."""

    text: str
    tokens: int
    """New tokens, special ones not counted."""


class CaptionStage(Stage):
    """A caption a clip, from its sampled frames; clips of a batch are captioned together."""

    def __init__(
        self,
        operator: CaptionFromVideo,
        checkpoint: str,
        sampling: FrameSampling,
        pixels: Pixels,
        settings: Settings,
    ) -> None:
        self._operator = operator
        self._checkpoint = checkpoint
        self._sampling = sampling
        self._pixels = pixels
        self._settings = settings
        self.batch_size = settings.models.clips_per_batch
        self._clip_batches = FittingBatches(self.batch_size, stage=self.name, unit="clip")
        self._frame_batches = FittingBatches(
            settings.models.frames_per_batch, stage=self.name, unit="frame"
        )
        self._identity: ModelIdentity | None = None
        self._inputs: ImageInputs | None = None
        self._device: Device | None = None
        self._tokenizer: Any = None

    def inputs(self) -> tuple[str, ...]:
        return (FRAMES_COLUMN,)

    def outputs(self) -> tuple[str, ...]:
        return ("caption", "caption_tokens")

    def frames(self) -> FrameRequest:
        """Known after `setup`: the size is the checkpoint's."""
        if self._inputs is None:
            raise RuntimeError("setup has not been called")
        return FrameRequest(FRAMES_COLUMN, self._sampling, self._inputs.resize, self._pixels)

    def weight(self, sample: Sample) -> int:
        return 1  # A clip, whatever its number of frames.

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
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(
                checkpoint.folder,
                local_files_only=True,
                trust_remote_code=False,
                padding_side="left",
            )
            self.ping()
        except Exception as error:
            words = " ".join(str(error).split())[:300]
            raise StageStartError(
                f"stage {self.name}: {self._checkpoint} gives no caption: {words}"
            ) from None
        self._identity = checkpoint.identity

    def ping(self) -> None:
        if self._inputs is None:
            raise RuntimeError("setup has not been called")
        blank = self._inputs.resize(np.zeros((64, 64, 3), dtype=np.uint8))
        with torch.inference_mode():
            self._captions([np.stack([blank])], {"max_new_tokens": 1})

    def process(self, batch: Sequence[Sample]) -> list[Sample]:
        """``caption`` and ``caption_tokens`` of each sample.

        Raises `MediaError` ``no_frames`` if a sample has none.
        """
        clips = [self._turned(sample[FRAMES_COLUMN]) for sample in batch]
        if any(len(clip) == 0 for clip in clips):
            raise MediaError(
                MediaReason.NO_FRAMES, "the clip has no frame to describe", stage=self.name
            )
        how = _generation(self._operator)
        with torch.inference_mode():
            captions = self._clip_batches.run(lambda some: self._captions(some, how), clips)
        return [{"caption": c.text, "caption_tokens": c.tokens} for c in captions]

    def _turned(self, frames: Frames) -> Frames:
        if self._operator.horizontal_flip:
            frames = frames[:, :, ::-1]
        return frames[:, ::-1] if self._operator.vertical_flip else frames

    def _pixel_values(self, frames: Sequence[Frames]) -> torch.Tensor:
        if self._inputs is None or self._device is None:
            raise RuntimeError("setup has not been called")
        return self._inputs(frames, self._device)

    def _decoded(self, generated: torch.Tensor) -> list[Caption]:
        """Texts of generated tokens ``[n, tokens]``."""
        texts = self._tokenizer.batch_decode(generated, skip_special_tokens=True)
        special = torch.tensor(self._tokenizer.all_special_ids, device=generated.device)
        counts = (~torch.isin(generated, special)).sum(dim=1).tolist()
        return [Caption(text.strip(), n) for text, n in zip(texts, counts, strict=True)]

    @abstractmethod
    def _load(self, folder: Path, device: Device) -> None:
        """Load the model from the checkpoint's folder; `StageStartError` if that fails."""

    @abstractmethod
    def _captions(self, clips: Sequence[Frames], how: dict[str, Any]) -> list[Caption]:
        """One caption a clip; ``how`` are arguments of transformers' ``generate``."""


def _generation(operator: CaptionFromVideo) -> dict[str, Any]:
    """A recipe's parameters as ``generate`` takes them; seeds torch if it draws with a seed."""
    arguments: dict[str, Any] = {
        "max_new_tokens": operator.max_new_tokens,
        "num_beams": operator.num_beams,
        "do_sample": operator.do_sample,
        "repetition_penalty": operator.repetition_penalty,
    }
    if operator.do_sample:
        arguments |= {"temperature": operator.temperature, "top_p": operator.top_p}
        if operator.seed is not None:
            torch.manual_seed(operator.seed)
    return arguments
