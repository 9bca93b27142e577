"""Captions by a small model for single pictures: BLIP, as Salesforce's captioners are.

For machines without a GPU. Each sampled frame is described, and what is said of several is said
once: with ``frame_num: 1`` a caption is that of the clip's middle frame.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from transformers import BlipForConditionalGeneration

from processors.errors import StageStartError
from processors.models.captions import Caption, CaptionStage, Frames
from processors.models.device import Device
from processors.models.loading import load_model
from processors.models.torch_stage import Picture

_BETWEEN = "; "


class ImageTextStage(CaptionStage):
    """Captions of BLIP checkpoints."""

    name = "caption"

    def _load_model(self, folder: Path, device: Device) -> Any:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
        if kind != "blip":
            raise StageStartError(
                f"stage {self.name}: {folder} is of type {kind}; engine image_text runs BLIP"
            )
        return load_model(BlipForConditionalGeneration, folder, device, stage=self.name)

    def _captions(self, clips: Sequence[Frames], how: dict[str, Any]) -> list[Caption]:
        frames = [frame for clip in clips for frame in clip]
        said = self._frame_batches.run(lambda some: self._said(some, how), frames)
        ends = accumulate((len(clip) for clip in clips), initial=0)
        return [_joined(said[start:end]) for start, end in pairwise(ends)]

    def _said(self, frames: Sequence[Picture], how: dict[str, Any]) -> list[Caption]:
        pixel_values = self._pixel_values(frames)
        if not self._operator.prompt:
            return self._decoded(self._model.generate(pixel_values=pixel_values, **how)[:, 1:])
        prompt = self._tokenizer(
            [self._operator.prompt] * len(frames), return_tensors="pt", truncation=True
        ).to(pixel_values.device)
        generated = self._model.generate(
            pixel_values=pixel_values,
            input_ids=prompt["input_ids"],
            attention_mask=prompt["attention_mask"],
            **how,
        )
        # It goes on from the prompt's words; the tokenizer's closing token is left out before.
        return self._decoded(generated[:, prompt["input_ids"].shape[1] - 1 :])


def _joined(captions: Sequence[Caption]) -> Caption:
    """What was said of a clip's frames, in order of time."""
    texts = dict.fromkeys(caption.text for caption in captions)
    return Caption(_BETWEEN.join(texts), sum(caption.tokens for caption in captions))
