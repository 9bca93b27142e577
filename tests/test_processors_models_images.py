"""Pictures are prepared for a model as its checkpoint's own image processor prepares them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clip_media import texture
from PIL import Image
from transformers import (
    AutoImageProcessor,
    BlipImageProcessor,
    CLIPImageProcessor,
    ViTImageProcessor,
)

from processors.models.device import Device
from processors.models.images import ImageInputs

CPU = Device(torch.device("cpu"), torch.float32)
PROCESSORS: dict[str, Any] = {
    "vit": lambda: ViTImageProcessor(),
    "clip": lambda: CLIPImageProcessor(),
    "blip_224": lambda: BlipImageProcessor(size={"height": 224, "width": 224}),
    "blip_364": lambda: BlipImageProcessor(size={"height": 364, "width": 364}),
}
SIZES = [(360, 640), (640, 360), (144, 176), (224, 224), (101, 333), (1080, 1920), (32, 500)]
"""Height and width of pictures."""


@pytest.mark.parametrize("name", PROCESSORS)
def test_pixels_are_the_processor_s_bit_for_bit(tmp_path: Path, name: str) -> None:
    PROCESSORS[name]().save_pretrained(tmp_path)
    theirs = AutoImageProcessor.from_pretrained(tmp_path)
    inputs = ImageInputs(tmp_path, stage="test")
    pictures = [texture(*size, seed=index) for index, size in enumerate(SIZES)]
    made = inputs([inputs.resize(picture) for picture in pictures], CPU)
    # One by one and as Pillow's images, which is how DataJuicer hands them over.
    for ours, picture in zip(made, pictures, strict=True):
        expected = theirs(images=[Image.fromarray(picture)], return_tensors="pt")
        np.testing.assert_array_equal(ours.numpy(), expected["pixel_values"][0].numpy())


class Inverted(ViTImageProcessor):
    """A processor with a step of its own after the usual ones."""

    def _preprocess(self, images: list[torch.Tensor], **how: Any) -> Any:
        made = super()._preprocess(images, **how)
        made["pixel_values"] = -made["pixel_values"]
        return made


def test_a_processor_with_steps_of_its_own_takes_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ViTImageProcessor().save_pretrained(tmp_path)
    plain, picture = ImageInputs(tmp_path, stage="test"), texture(224, 224)
    monkeypatch.setattr(AutoImageProcessor, "from_pretrained", lambda *_, **__: Inverted())
    inverted = ImageInputs(tmp_path, stage="test")
    np.testing.assert_array_equal(inverted([picture], CPU).numpy(), -plain([picture], CPU).numpy())
