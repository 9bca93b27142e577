"""How good a frame is as a picture: sharpness, brightness, black and overexposed shares.

Measured on the luma of the full-size frame. Recorded for every clip; whether it rejects one is
up to the recipe (`schemas.operators.FrameQualityFilter`).
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

BLACK_BELOW = 17
"""Luma (0 to 255) below which a pixel is black: video black with a little noise."""
OVEREXPOSED_ABOVE = 250
"""Luma above which a pixel is blown out."""
BLACK_FRAME_SHARE = 0.98
"""Share of black pixels from which a frame is black, as ffmpeg's blackframe filter has it."""


@dataclass(frozen=True)
class FrameQuality:
    """Of one frame; the columns ``frame_*`` of ``clip_frames``."""

    sharpness: float
    """Variance of the Laplacian (3 by 3, of OpenCV); higher is sharper; depends on the size."""
    brightness: float
    """Mean luma, 0 to 255."""
    black_fraction: float
    """Share of pixels below `BLACK_BELOW`."""
    overexposed: float
    """Share of pixels above `OVEREXPOSED_ABOVE`."""


def measure(luma: NDArray[np.uint8]) -> FrameQuality:
    """Quality of one frame from its luma, uint8 ``[h, w]``, full range."""
    # 16 bits hold the Laplacian of 8-bit pixels exactly, at a quarter of the memory of doubles.
    _, deviation = cv2.meanStdDev(cv2.Laplacian(luma, cv2.CV_16S))
    return FrameQuality(
        sharpness=float(deviation[0, 0]) ** 2,
        brightness=float(cv2.sumElems(luma)[0]) / luma.size,
        black_fraction=float(np.count_nonzero(luma < BLACK_BELOW)) / luma.size,
        overexposed=float(np.count_nonzero(luma > OVEREXPOSED_ABOVE)) / luma.size,
    )


def aggregate(frames: Sequence[FrameQuality]) -> dict[str, float]:
    """The clip's columns of ``enriched_clips`` from those of its frames, at least one."""
    return {
        "sharpness": statistics.median(f.sharpness for f in frames),
        "brightness": statistics.fmean(f.brightness for f in frames),
        "black_fraction": statistics.fmean(
            float(f.black_fraction >= BLACK_FRAME_SHARE) for f in frames
        ),
        "overexposed_fraction": statistics.fmean(f.overexposed for f in frames),
    }
