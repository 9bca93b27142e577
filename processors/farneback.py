"""Dense optical flow by Farneback's method, of one picture after another.

The numbers are those of ``cv2.calcOpticalFlowFarneback`` with the parameters of DataJuicer's
motion filter, to the last digits, for a third of the time: the loops are compiled for the processor
at hand, and what was made of a picture serves as the next pair's first half. The method is that
of G. Farneback, Two-Frame Motion Estimation Based on Polynomial Expansion, SCIA 2003. What a
score is, is `processors.motion`'s concern.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from processors import flow_kernels as kernels

_COARSER_LEVELS = 3
_SMALLEST_SIDE = 32
"""Pixels: no level is made that has fewer on a side, but for the picture itself."""
_FADE = (0.14, 0.14, 0.4472, 0.4472, 0.4472)
"""What the outermost pixels count, from the edge inwards: their surroundings are made up."""


class FarnebackFlow:
    """The flow from each picture to the next; holds about 70 bytes a pixel.

    The parameters are those of OpenCV's function: ``pyr_scale`` 0.5, ``levels`` 3, ``winsize`` 15,
    ``iterations`` 3, ``poly_n`` 5, ``poly_sigma`` 1.2 and no flags.
    """

    def __init__(self) -> None:
        self._shape: tuple[int, ...] | None = None
        self._levels: list[_Level] = []

    def add(self, luma: NDArray[np.uint8]) -> NDArray[np.float32] | None:
        """Take in the next picture, uint8 ``[height, width]``, of the size of those before.

        Returns the flow from the one before, in pixels: float32 ``[2, height, width]``, x then
        y, valid until the next call. None for the first picture.
        """
        is_first = self._shape is None
        if is_first:
            self._shape = luma.shape
            self._levels = _levels(luma.shape[0], luma.shape[1])
        elif luma.shape != self._shape:
            raise ValueError(f"pictures of one size are needed: {luma.shape} after {self._shape}")
        pixels = luma.astype(np.float32)
        for level in self._levels:
            level.expand(pixels)
        flow: NDArray[np.float32] | None = None
        if not is_first:
            for level in reversed(self._levels):
                flow = level.flow_from(flow)
        for level in self._levels:
            level.keep()
        return flow


def _levels(height: int, width: int) -> list[_Level]:
    """The picture's own size first."""
    levels = []
    for halvings in range(_COARSER_LEVELS + 1):
        scale = 0.5**halvings
        if halvings and min(height, width) * scale < _SMALLEST_SIDE:
            break
        levels.append(_Level(round(height * scale), round(width * scale), scale))
    return levels


class _Level:
    """One resolution: the expansions of the last two pictures, and the flow between them."""

    def __init__(self, height: int, width: int, scale: float) -> None:
        self._size = (width, height)
        self._sigma = (1 / scale - 1) * 0.5
        self._kernel = max(round(self._sigma * 5) | 1, 3)
        reach, channels = kernels.REACH, kernels.CHANNELS
        self._image = np.empty((height + 2 * reach, width), np.float32)
        self._sums = np.empty((3, width + 2 * reach), np.float32)
        self._planes = np.empty((channels, width), np.float32)
        self._previous = np.empty((height, channels, width), np.float32)
        # Vectors read beyond the last pixel, and a row below it where the picture is one row.
        self._current = np.zeros(
            (height + 1) * width * channels + channels + kernels.LANES, np.float32
        )
        self._flow = np.empty((2, height, width), np.float32)
        self._fades, self._fade_of = _fades(height, width)
        self._room = (
            np.empty(kernels.LANES * width, np.float32),
            np.empty((4, width), np.float32),
            np.empty(width, np.int32),
            np.empty((kernels.ROUNDS, channels, width + kernels.WINDOW), np.float64),
            np.empty((channels, width), np.float64),
        )
        self._equations = np.empty((kernels.ROUNDS, kernels.KEPT_ROWS, channels, width), np.float32)

    def expand(self, pixels: NDArray[np.float32]) -> None:
        """Fit the polynomials of a picture, given at its own size."""
        reach = kernels.REACH
        smooth = cv2.GaussianBlur(
            pixels, (self._kernel, self._kernel), self._sigma, sigmaY=self._sigma
        )
        image = self._image
        image[reach:-reach] = cv2.resize(smooth, self._size, interpolation=cv2.INTER_LINEAR)
        image[:reach] = image[reach]
        image[-reach:] = image[-reach - 1]
        kernels.expand(image, self._sums, self._planes, self._current)

    def flow_from(self, coarser: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """The flow from the kept picture to the one expanded last, beginning with a coarser one."""
        flow = self._flow
        if coarser is None:
            flow[:] = 0
        else:
            # As one picture of two channels: OpenCV interpolates those in an order of its own.
            larger = cv2.resize(
                np.stack((coarser[0], coarser[1]), axis=-1),
                self._size,
                interpolation=cv2.INTER_LINEAR,
            )
            for axis in (0, 1):
                np.multiply(larger[..., axis], 2, out=flow[axis])
        kernels.refine(
            self._previous, self._current, flow, self._equations, self._fades, self._fade_of,
            *self._room,
        )  # fmt: skip
        return flow

    def keep(self) -> None:
        """Make the picture that was expanded last the first of the next pair."""
        kernels.unpack(self._current, self._previous)


def _fades(height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Weights of a row's pixels for every kind of row, and the kind of every row.

    In pictures below ten pixels OpenCV fades only those that are within five of both sides; so
    does this.
    """
    border = len(_FADE)
    kinds = np.arange(height)
    if height > 2 * border + 1:
        kinds = np.r_[:border + 1, height - border : height]  # fmt: skip
    fade_of = np.arange(height)
    if height > 2 * border + 1:
        fade_of = np.clip(fade_of, None, border)
        fade_of[height - border :] = np.arange(border + 1, 2 * border + 1)
    left = _edge(np.arange(width))
    right = _edge(width - 1 - np.arange(width))
    fades = np.empty((len(kinds), width), np.float32)
    for row, y in enumerate(kinds):
        above, below = _edge(np.array([y]))[0], _edge(np.array([height - 1 - y]))[0]
        faded = _is_faded(np.arange(width), width) | _is_faded(np.array([y]), height)
        fades[row] = np.where(faded, left * right * above * below, np.float32(1))
    return fades, fade_of


def _edge(distance: NDArray[np.int64]) -> NDArray[np.float32]:
    """Weights at distances from an edge, in pixels."""
    table = np.array([*_FADE, 1], np.float32)
    return table[np.minimum(distance, len(_FADE))]


def _is_faded(at: NDArray[np.int64], length: int) -> NDArray[np.bool_]:
    border = len(_FADE)
    if length >= 2 * border:
        return (at < border) | (at >= length - border)
    return (at < border) & (at >= length - border)
