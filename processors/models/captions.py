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

from processors.errors import MediaError
from processors.frames import FrameSampling, Pixels
from processors.models.device import Device, FittingBatches
from processors.models.torch_stage import Picture, TorchStage
from processors.stage import Sample
from schemas.operators import CaptionFromVideo
from schemas.reasons import MediaReason
from schemas.settings import Settings

Frames = NDArray[np.uint8]
"""Of one clip: RGB ``[n, h, w, 3]``."""


@dataclass(frozen=True)
class Caption:
    """What was generated for one clip."""

    text: str
    tokens: int
    """New tokens, special ones not counted."""


class CaptionStage(TorchStage):
    """A caption a clip, from its sampled frames; clips of a batch are captioned together."""

    makes_texts = True

    def __init__(
        self,
        operator: CaptionFromVideo,
        sampling: FrameSampling,
        pixels: Pixels,
        settings: Settings,
    ) -> None:
        super().__init__(operator.checkpoint or "", sampling, pixels, settings)
        self._operator = operator
        self.batch_size = settings.models.clips_per_batch
        self._clip_batches = FittingBatches(
            self.batch_size, stage=self.name, unit="clip", inner=self._frame_batches
        )
        self._model: Any = None
        self._tokenizer: Any = None

    def outputs(self) -> tuple[str, ...]:
        return ("caption", "caption_tokens")

    def weight(self, sample: Sample) -> int:
        return 1  # A clip, whatever its number of frames.

    def process(self, batch: Sequence[Sample]) -> list[Sample]:
        """``caption`` and ``caption_tokens`` of each sample.

        Raises `MediaError` ``no_frames`` if a sample has none.
        """
        clips = [self._turned(sample[self.frames_column]) for sample in batch]
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

    def _load(self, folder: Path, device: Device) -> None:
        self._model = self._load_model(folder, device)
        self._tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, padding_side="left"
        )

    def _try_out(self, picture: Picture) -> None:
        self._captions([np.stack([picture])], {"max_new_tokens": 1})

    def _decoded(self, generated: torch.Tensor) -> list[Caption]:
        """Texts of generated tokens ``[n, tokens]``."""
        texts = self._tokenizer.batch_decode(generated, skip_special_tokens=True)
        special = torch.tensor(self._tokenizer.all_special_ids, device=generated.device)
        counts = (~torch.isin(generated, special)).sum(dim=1).tolist()
        return [Caption(text.strip(), n) for text, n in zip(texts, counts, strict=True)]

    @abstractmethod
    def _load_model(self, folder: Path, device: Device) -> Any:
        """The model in the checkpoint's folder; `StageStartError` if there is none that runs."""

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
