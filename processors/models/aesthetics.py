"""Aesthetics scores by the predictors on top of CLIP that LAION trained and shunk031 packaged.

The architectures are those of the package simple-aesthetics-predictor, whose pins are too old to
install it: CLIP's image embedding, normalised, through a small head.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import CLIPVisionModelWithProjection

from processors.errors import StageStartError
from processors.frames import FrameSampling, Pixels
from processors.models.device import Device
from processors.models.loading import load_model
from processors.models.scores import FrameScoreStage
from schemas.operators import AestheticsFilter
from schemas.settings import Settings

SCORE_COLUMN = "aesthetics_score"
_HIGHEST = 10.0
"""The predictors were trained on marks from 0 to 10; thresholds are from 0 to 1."""
_WIDTHS = (1024, 128, 64, 16)
_DROPOUTS = (0.2, 0.2, 0.1, None)


class _Predictor(CLIPVisionModelWithProjection):  # type: ignore[misc]
    """CLIP's vision tower and projection; subclasses add the head."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._add_head(config.projection_dim)
        self.post_init()

    def marks(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """``[n]``, about 0 to 10, from ``[n, 3, h, w]``."""
        embeds = self(pixel_values=pixel_values).image_embeds
        embeds = embeds / embeds.norm(dim=-1, keepdim=True)
        return self._head()(embeds).squeeze(-1)

    def _add_head(self, width: int) -> None:
        raise NotImplementedError

    def _head(self) -> nn.Module:
        raise NotImplementedError


class AestheticsPredictorV1(_Predictor):
    """One linear layer."""

    def _add_head(self, width: int) -> None:
        self.predictor = nn.Linear(width, 1)

    def _head(self) -> nn.Module:
        return self.predictor


class AestheticsPredictorV2Linear(_Predictor):
    """Five linear layers. Dropout does nothing here, and numbers the layers as they are saved."""

    activation: type[nn.Module] | None = None

    def _add_head(self, width: int) -> None:
        layers: list[nn.Module] = []
        for size, dropout in zip(_WIDTHS, _DROPOUTS, strict=True):
            layers.append(nn.Linear(width, size))
            if self.activation is not None:
                layers.append(self.activation())
            if dropout is not None:
                layers.append(nn.Dropout(dropout))
            width = size
        self.layers = nn.Sequential(*layers, nn.Linear(width, 1))

    def _head(self) -> nn.Module:
        return self.layers


class AestheticsPredictorV2ReLU(AestheticsPredictorV2Linear):
    """As the linear one, with rectifiers."""

    activation = nn.ReLU


_ARCHITECTURES = {
    kind.__name__: kind
    for kind in (AestheticsPredictorV1, AestheticsPredictorV2Linear, AestheticsPredictorV2ReLU)
}


class AestheticsStage(FrameScoreStage):
    """Aesthetics score, 0 to 1, reduced over a clip's frames."""

    name = "aesthetics"
    score_column = SCORE_COLUMN

    def __init__(
        self,
        operator: AestheticsFilter,
        sampling: FrameSampling,
        pixels: Pixels,
        settings: Settings,
    ) -> None:
        super().__init__(operator.checkpoint, sampling, operator.reduce_mode, pixels, settings)
        self._model: Any = None

    def _load(self, folder: Path, device: Device) -> None:
        self._model = load_model(_architecture(folder, self.name), folder, device, stage=self.name)

    def _scores(self, pixel_values: torch.Tensor) -> torch.Tensor:
        # DataJuicer divides only where the model's name says what it is; the architecture always
        # does, so that a folder of any name gives scores of one scale.
        marks: torch.Tensor = self._model.marks(pixel_values)
        return marks.float() / _HIGHEST


def _architecture(folder: Path, stage: str) -> type[_Predictor]:
    """By what the checkpoint says it is; names of folders and repositories say nothing."""
    configuration = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    names = configuration.get("architectures") or []
    for name in names:
        if name in _ARCHITECTURES:
            return _ARCHITECTURES[name]
    raise StageStartError(
        f"stage {stage}: {folder} is of architecture {', '.join(map(str, names)) or 'unknown'}; "
        f"{', '.join(_ARCHITECTURES)} can be run"
    )
