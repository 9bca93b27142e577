"""How much each frame of a stretch of video differs from the one before: ContentDetector's score.

It knows nothing of cuts; those are `processors.scenes`. Pixels come from
`processors.media.pixels`.
"""

from __future__ import annotations

import cv2
import numpy as np

from processors.media.pixels import Image

_EFFECTIVE_SIZE = 256
"""PySceneDetect shrinks frames until their longer side has this many pixels."""


def analysis_size(width: int, height: int) -> tuple[int, int]:
    """Width and height at which frames are compared: PySceneDetect's automatic downscale."""
    longer = max(width, height)
    if longer < _EFFECTIVE_SIZE:
        return width, height
    factor = longer / float(_EFFECTIVE_SIZE)
    return max(1, round(width / factor)), max(1, round(height / factor))


class FrameScorer:
    """Scores frame after frame; the first has none to be compared with and gets 0."""

    def __init__(self) -> None:
        self._size: tuple[int, int] | None = None
        self._small: Image | None = None
        self._hsv: list[Image] = []
        self._difference: Image | None = None
        self._current = 0
        self._first = True

    def score(self, bgr: Image) -> float:
        """Mean absolute difference to the frame before, over hue, saturation and value.

        The same arithmetic as ContentDetector's, in the same order, so that scores are equal
        to the last bit: sums of 8-bit differences are exact in doubles.
        """
        if self._size is None:
            self._size = analysis_size(bgr.shape[1], bgr.shape[0])
            shape = (self._size[1], self._size[0], 3)
            self._small = np.empty(shape, np.uint8)
            self._hsv = [np.empty(shape, np.uint8), np.empty(shape, np.uint8)]
            self._difference = np.empty(shape, np.uint8)
        small = bgr
        if max(bgr.shape[:2]) > _EFFECTIVE_SIZE:
            small = cv2.resize(bgr, self._size, dst=self._small, interpolation=cv2.INTER_LINEAR)
        self._current ^= 1
        current, previous = self._hsv[self._current], self._hsv[self._current ^ 1]
        cv2.cvtColor(small, cv2.COLOR_BGR2HSV, dst=current)
        if self._first:
            self._first = False
            return 0.0
        cv2.absdiff(current, previous, dst=self._difference)
        hue, saturation, value, _ = cv2.sumElems(self._difference)
        pixels = float(current.shape[0] * current.shape[1])
        return float((hue / pixels + saturation / pixels + value / pixels) / 3.0)
