"""Captions by VideoBLIP: BLIP-2 over the patches of all frames of a clip.

VideoBLIP's checkpoints are those of `Blip2ForConditionalGeneration` key for key; what differs is
that the Q-Former looks at the patch tokens of all frames, one frame after the other. Frames of
all clips of a batch go through the vision model together, whatever their number a clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import Blip2ForConditionalGeneration

from processors.errors import StageStartError
from processors.models.captions import Caption, CaptionStage, Frames
from processors.models.device import Device
from processors.models.loading import load_model
from processors.models.torch_stage import Picture

IMAGE_TOKEN = 50265
"""The token that stands for a query in the language model's input. The checkpoints were saved
before it was written into them; DataJuicer sets this number, the first that OPT does not use."""


class VideoBlipStage(CaptionStage):
    """Captions of VideoBLIP checkpoints whose language model is a decoder, such as OPT."""

    name = "caption"

    def _load_model(self, folder: Path, device: Device) -> Any:
        model = load_model(Blip2ForConditionalGeneration, folder, device, stage=self.name)
        if not model.config.use_decoder_only_language_model:
            raise StageStartError(
                f"stage {self.name}: the language model of {folder} is an encoder-decoder; "
                "VideoBLIP with a decoder, such as OPT, can be run"
            )
        return model

    def _captions(self, clips: Sequence[Frames], how: dict[str, Any]) -> list[Caption]:
        embeds, ids = self._prompt(self._queries(clips))
        generated = self._model.language_model.generate(
            inputs_embeds=embeds,
            attention_mask=torch.ones_like(ids),
            # Beside the embeddings, so that a repetition penalty sees the prompt as well.
            input_ids=ids,
            **how,
        )
        return self._decoded(generated[:, ids.shape[1] :])

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

    def _patches(self, frames: Sequence[Picture]) -> list[torch.Tensor]:
        """Patch tokens of each frame, ``[patches, width]``."""
        pixel_values = self._pixel_values(frames)
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
