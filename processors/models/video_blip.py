"""Captions by VideoBLIP: BLIP-2 over the patches of all frames of a clip.

VideoBLIP's checkpoints are those of `Blip2ForConditionalGeneration` key for key; what differs is
that the Q-Former looks at the patch tokens of all frames, one frame after the other. Frames of
all clips of a batch go through the vision model together, whatever their number a clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer, Blip2ForConditionalGeneration

from processors.errors import MediaError, StageStartError
from processors.frames import FrameRequest, FrameSampling, Pixels
from processors.models.checkpoint import resolve
from processors.models.device import Device, FittingBatches, pick_device
from processors.models.generation import Caption, generation_arguments
from processors.models.images import ImageInputs
from processors.models.loading import load_model
from processors.stage import ModelIdentity, Sample, Stage
from schemas.operators import CaptionFromVideo
from schemas.reasons import MediaReason
from schemas.settings import Settings

FRAMES_COLUMN = "caption_frames"
IMAGE_TOKEN = 50265
"""The token that stands for a query in the language model's input. The checkpoints were saved
before it was written into them; DataJuicer sets this number, the first that OPT does not use."""

Frames = NDArray[np.uint8]


class VideoBlipStage(Stage):
    """A caption a clip, from its sampled frames."""

    name = "caption"

    def __init__(
        self,
        operator: CaptionFromVideo,
        sampling: FrameSampling,
        pixels: Pixels,
        settings: Settings,
    ) -> None:
        self._operator = operator
        self._pixels = pixels
        self._settings = settings
        self._sampling = sampling
        self.batch_size = settings.models.clips_per_batch
        self._frame_batches = FittingBatches(
            settings.models.frames_per_batch, stage=self.name, unit="frame"
        )
        self._clip_batches = FittingBatches(self.batch_size, stage=self.name, unit="clip")
        self._identity: ModelIdentity | None = None
        self._inputs: ImageInputs | None = None
        self._device: Device | None = None
        self._model: Any = None
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

    @property
    def model(self) -> ModelIdentity | None:
        return self._identity

    @property
    def on_gpu(self) -> bool:
        return self._device is not None and self._device.is_gpu

    def setup(self) -> None:
        checkpoint = resolve(self._operator.hf_video_blip, stage=self.name)
        cpus = self._settings.pool.cpus_per_actor
        self._device = pick_device(self._settings.models, cpus, stage=self.name)
        self._inputs = ImageInputs(checkpoint.folder, stage=self.name)
        self._model = load_model(
            Blip2ForConditionalGeneration, checkpoint.folder, self._device, stage=self.name
        )
        if not self._model.config.use_decoder_only_language_model:
            raise StageStartError(
                f"stage {self.name}: {self._operator.hf_video_blip} has an encoder-decoder as its "
                "language model; VideoBLIP with a decoder, such as OPT, can be run"
            )
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(
                checkpoint.folder, local_files_only=True, padding_side="left"
            )
            self._identity = checkpoint.identity
            self.ping()
        except Exception as error:
            words = " ".join(str(error).split())[:300]
            raise StageStartError(
                f"stage {self.name}: {self._operator.hf_video_blip} gives no caption: {words}"
            ) from None

    def ping(self) -> None:
        if self._inputs is None:
            raise RuntimeError("setup has not been called")
        blank = self._inputs.resize(np.zeros((64, 64, 3), dtype=np.uint8))
        self._captions([np.stack([blank])], max_new_tokens=1)

    def process(self, batch: Sequence[Sample]) -> list[Sample]:
        """``caption`` and ``caption_tokens`` of each sample.

        Raises `MediaError` ``no_frames`` if a sample has none.
        """
        clips = [self._turned(sample[FRAMES_COLUMN]) for sample in batch]
        if any(len(clip) == 0 for clip in clips):
            raise MediaError(
                MediaReason.NO_FRAMES, "the clip has no frame to describe", stage=self.name
            )
        captions = self._clip_batches.run(self._captions, clips)
        return [{"caption": c.text, "caption_tokens": c.tokens} for c in captions]

    def _turned(self, frames: Frames) -> Frames:
        if self._operator.horizontal_flip:
            frames = frames[:, :, ::-1]
        return frames[:, ::-1] if self._operator.vertical_flip else frames

    def _captions(
        self, clips: Sequence[Frames], max_new_tokens: int | None = None
    ) -> list[Caption]:
        with torch.inference_mode():
            embeds, ids = self._prompt(self._queries(clips))
            generated = self._model.language_model.generate(
                inputs_embeds=embeds,
                attention_mask=torch.ones_like(ids),
                # Beside the embeddings, so that a repetition penalty sees the prompt as well.
                input_ids=ids,
                **generation_arguments(self._operator, max_new_tokens),
            )[:, ids.shape[1] :]
        texts = self._tokenizer.batch_decode(generated, skip_special_tokens=True)
        special = torch.tensor(self._tokenizer.all_special_ids, device=generated.device)
        counts = (~torch.isin(generated, special)).sum(dim=1).tolist()
        return [
            Caption(text.strip(), int(count)) for text, count in zip(texts, counts, strict=True)
        ]

    def _queries(self, clips: Sequence[Frames]) -> torch.Tensor:
        """What the language model is told of each clip: ``[clips, queries, width]``."""
        model = self._model
        frames = [frame for clip in clips for frame in clip]
        patches = torch.stack(self._frame_batches.run(self._patches, frames))
        ends = list(accumulate((len(clip) for clip in clips), initial=0))
        # Patch tokens of a clip's frames in a row; clips with fewer frames are masked at the end.
        joined = [patches[start:end].flatten(0, 1) for start, end in pairwise(ends)]
        mask = pad_sequence([torch.ones_like(j[:, 0], dtype=torch.long) for j in joined], True)
        query = model.qformer(
            query_embeds=model.query_tokens.expand(len(clips), -1, -1),
            encoder_hidden_states=pad_sequence(joined, True),
            encoder_attention_mask=mask,
            return_dict=True,
        ).last_hidden_state
        # The Q-Former may be kept in a higher precision than the rest.
        projected: torch.Tensor = model.language_projection(query.to(patches.dtype))
        return projected

    def _patches(self, frames: Sequence[Frames]) -> list[torch.Tensor]:
        """Patch tokens of each frame, ``[patches, width]``."""
        if self._inputs is None or self._device is None:
            raise RuntimeError("setup has not been called")
        pixel_values = self._inputs(frames, self._device)
        return list(self._model.vision_model(pixel_values=pixel_values).last_hidden_state)

    def _prompt(self, queries: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The language model's input: the queries, then the start token or the prompt."""
        clips, count, _ = queries.shape
        config = self._model.config.text_config
        if self._operator.prompt:
            longest = config.max_position_embeddings - count
            text = self._tokenizer(self._operator.prompt, truncation=True, max_length=longest)[
                "input_ids"
            ]
        else:
            text = [config.bos_token_id]
        ids = torch.tensor([[IMAGE_TOKEN] * count + text], device=queries.device)
        words = self._model.get_input_embeddings()(ids[:, count:]).expand(clips, -1, -1)
        return torch.cat([queries.to(words.dtype), words], dim=1), ids.expand(clips, -1)
