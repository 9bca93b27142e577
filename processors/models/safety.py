"""Safety by an image classifier of transformers, such as Falconsai/nsfw_image_detection.

Fails closed: a checkpoint that does not say which of its labels is the unsafe one is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageClassification

from processors.errors import StageStartError
from processors.frames import FrameSampling, Pixels
from processors.models.device import Device
from processors.models.loading import load_model
from processors.models.scores import FrameScoreStage
from processors.safety import SCORE_COLUMN
from schemas.operators import NsfwFilter
from schemas.settings import Settings

UNSAFE_LABEL = "nsfw"
_DATAJUICER_INDEX = 1
"""The class whose probability DataJuicer takes, whatever it is called."""


class ImageClassifierSafetyStage(FrameScoreStage):
    """Probability of the label ``nsfw``, reduced over a clip's frames; 0 safe to 1 unsafe."""

    name = "safety"
    score_column = SCORE_COLUMN

    def __init__(
        self, operator: NsfwFilter, sampling: FrameSampling, pixels: Pixels, settings: Settings
    ) -> None:
        super().__init__(
            operator.checkpoint or "", sampling, operator.reduce_mode, pixels, settings
        )
        self._as_datajuicer = pixels == "coded"
        self._unsafe = -1
        self._model: Any = None

    def _load(self, folder: Path, device: Device) -> None:
        self._model = load_model(AutoModelForImageClassification, folder, device, stage=self.name)
        labels = {int(k): str(v).lower() for k, v in self._model.config.id2label.items()}
        found = [index for index, label in labels.items() if label == UNSAFE_LABEL]
        if len(found) != 1:
            raise StageStartError(
                f"stage {self.name}: the labels of {folder} are {', '.join(labels.values())}; "
                f"one of them has to be {UNSAFE_LABEL}"
            )
        if self._as_datajuicer and found != [_DATAJUICER_INDEX]:
            raise StageStartError(
                f"stage {self.name}: {UNSAFE_LABEL} is label {found[0]} of {folder}, and "
                f"DataJuicer takes label {_DATAJUICER_INDEX}; `compat: fixed` takes the right one"
            )
        self._unsafe = found[0]

    def _scores(self, pixel_values: torch.Tensor) -> torch.Tensor:
        logits = self._model(pixel_values=pixel_values).logits
        return torch.softmax(logits.float(), dim=-1)[:, self._unsafe]
