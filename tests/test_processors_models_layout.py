"""The layout of the real checkpoints, by docs/checkpoints.json, is what our loaders ask for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from tiny_models import make_aesthetics, make_safety, make_video_blip
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    CLIPVisionConfig,
    ViTConfig,
    ViTForImageClassification,
)
from transformers.core_model_loading import revert_weight_conversion

from processors.errors import StageStartError
from processors.models.aesthetics import AestheticsPredictorV2Linear
from processors.models.device import Device
from processors.models.loading import load_model
from schemas.settings import CHECKOUT

EXPECTED: dict[str, dict[str, Any]] = json.loads(
    (CHECKOUT / "docs" / "checkpoints.json").read_text(encoding="utf-8")
)
KINDS: dict[str, tuple[Any, Any]] = {
    "safety": (ViTForImageClassification, ViTConfig),
    "aesthetics": (AestheticsPredictorV2Linear, CLIPVisionConfig),
    "video_blip": (Blip2ForConditionalGeneration, Blip2Config),
}
"""The class that a stage loads, and that of its configuration."""
MAKERS = {"safety": make_safety, "aesthetics": make_aesthetics, "video_blip": make_video_blip}
TIED = {"language_model.lm_head.weight"}
"""The embedding under another name; not saved a second time."""

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)(?:/(\d+))?\}")


def tensors(name: str) -> dict[str, tuple[int, ...]]:
    """The expected tensors of a checkpoint with their shapes, one entry each."""
    return {
        key: tuple(shape)
        for pattern, shape in EXPECTED[name]["tensors"].items()
        for key in _expanded(pattern)
    }


def _expanded(pattern: str) -> Iterator[str]:
    match = _RANGE.search(pattern)
    if match is None:
        yield pattern
        return
    first, last, step = (int(group or 1) for group in match.groups())
    for number in range(first, last + 1, step):
        yield f"{pattern[: match.start()]}{number}{pattern[match.end() :]}"


@pytest.mark.parametrize("name", EXPECTED)
def test_the_loader_asks_for_what_the_real_checkpoint_holds(name: str) -> None:
    model_class, config_class = KINDS[name]
    assert model_class.__name__ == EXPECTED[name]["architecture"]
    configuration = {k: v for k, v in EXPECTED[name]["configuration"].items() if k != "model_type"}
    with torch.device("meta"):
        model = model_class(config_class(**configuration))
    asked = revert_weight_conversion(model, model.state_dict())
    found = {key: tuple(tensor.shape) for key, tensor in asked.items() if key not in TIED}
    assert found == tensors(name)


@pytest.mark.parametrize("name", EXPECTED)
def test_tiny_checkpoints_are_laid_out_as_the_real_ones(tmp_path: Path, name: str) -> None:
    folder = MAKERS[name](tmp_path / name)
    with safe_open(folder / "model.safetensors", "pt") as file:
        tiny = {key: len(file.get_slice(key).get_shape()) for key in sorted(file.keys())}
    real = {key: len(shape) for key, shape in tensors(name).items()}
    # The tiny ones have two layers of each kind.
    assert tiny == {key: rank for key, rank in real.items() if not _is_beyond_two_layers(key)}


def _is_beyond_two_layers(key: str) -> bool:
    layer = re.search(r"\.layers?\.(\d+)\.", key)
    return layer is not None and int(layer.group(1)) >= 2


def test_a_checkpoint_without_a_tensor_is_refused(tmp_path: Path) -> None:
    folder = make_safety(tmp_path / "vit")
    with pytest.raises(StageStartError, match=r"it lacks layers\.0\.bias"):
        load_model(
            AestheticsPredictorV2Linear,
            folder,
            Device(torch.device("cpu"), torch.float32),
            stage="aesthetics",
        )
