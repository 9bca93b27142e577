"""Quality of frames by construction: black, white, sharp, blurred."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from clip_media import texture

from processors.frames import to_luma
from processors.quality import FrameQuality, aggregate, measure


def flat(value: int) -> np.ndarray:
    return np.full((40, 60), value, dtype=np.uint8)


def test_a_black_frame() -> None:
    assert measure(flat(3)) == FrameQuality(0.0, 3.0, 1.0, 0.0)


def test_a_blown_out_frame() -> None:
    assert measure(flat(255)) == FrameQuality(0.0, 255.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("value", "black", "overexposed"), [(16, 1, 0), (17, 0, 0), (250, 0, 0), (251, 0, 1)]
)
def test_the_limits_of_black_and_overexposed(value: int, black: float, overexposed: float) -> None:
    quality = measure(flat(value))
    assert (quality.black_fraction, quality.overexposed) == (black, overexposed)


def test_shares_are_of_all_pixels() -> None:
    luma = flat(128)
    luma[:10] = 0
    luma[-4:] = 255
    quality = measure(luma)
    assert quality.black_fraction == pytest.approx(0.25)
    assert quality.overexposed == pytest.approx(0.1)


def test_blur_lowers_sharpness_more_the_stronger_it_is() -> None:
    luma = to_luma(texture(120, 160))
    values = [measure(cv2.GaussianBlur(luma, (0, 0), s)).sharpness for s in (0.5, 1.5, 4.0)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 10 * values[-1]


def test_sharpness_is_the_variance_of_the_laplacian() -> None:
    luma = to_luma(texture(50, 70)).astype(np.float64)
    padded = np.pad(luma, 1, mode="reflect")
    laplacian = (
        padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] - 4 * luma
    )
    assert measure(luma.astype(np.uint8)).sharpness == pytest.approx(laplacian.var())


def test_a_clips_columns_from_its_frames() -> None:
    frames = [
        FrameQuality(10.0, 100.0, 0.5, 0.0),
        FrameQuality(90.0, 50.0, 0.99, 0.3),
        FrameQuality(20.0, 0.0, 1.0, 0.0),
    ]
    assert aggregate(frames) == {
        "sharpness": 20.0,
        "brightness": 50.0,
        "black_fraction": pytest.approx(2 / 3),
        "overexposed_fraction": pytest.approx(0.1),
    }
