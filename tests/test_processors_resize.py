"""Pictures for models: sizes and shapes, and what stages share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import CLIPImageProcessor

from processors.frames import FrameRequest, FrameSampling
from processors.models.device import Device
from processors.models.images import ImageInputs
from processors.resize import Fitted, ProcessorResize, Stretched


def pictures(*sizes: tuple[int, int]) -> list[np.ndarray]:
    random = np.random.default_rng(7)
    return [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def test_a_crop_that_is_larger_than_the_picture_has_the_processors_margin(tmp_path: Path) -> None:
    processor = CLIPImageProcessor(
        size={"shortest_edge": 100}, crop_size={"height": 131, "width": 120}
    )
    processor.save_pretrained(tmp_path)
    inputs = ImageInputs(tmp_path, stage="safety")
    device = Device(torch.device("cpu"), torch.float32)
    for picture in pictures((120, 201), (257, 90), (63, 64)):
        expected = processor(images=[picture], return_tensors="pt")["pixel_values"]
        assert torch.equal(inputs([inputs.resize(picture)], device), expected)


def test_requests_that_agree_share_one_picture() -> None:
    sampling = FrameSampling()
    one, other = (
        FrameRequest(column, sampling, ProcessorResize(224, 224, "bicubic")) for column in "ab"
    )
    assert hash(one.resize) == hash(other.resize)
    assert one.resize == other.resize != ProcessorResize(224, 224, "bilinear")


def test_fitted_pictures_keep_their_shape_and_are_never_enlarged() -> None:
    wide, tall, small = pictures((100, 400), (400, 100), (40, 50))
    fitted = Fitted(200)
    assert fitted(wide).shape == (50, 200, 3)
    assert fitted(tall).shape == (200, 50, 3)
    assert np.array_equal(fitted(small), small)


def test_stretched_pictures_have_the_size_asked_for() -> None:
    (picture,) = pictures((100, 400))
    assert Stretched(64, 48)(picture).shape == (48, 64, 3)
