"""How much each frame of a stretch of video differs from the one before: ContentDetector's score.

It knows nothing of cuts; those are `processors.scenes`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from av.video.frame import VideoFrame

from processors.media.pixels import BgrConverter

if TYPE_CHECKING:
    # Imported where frames are scored: it brings numba along.
    from processors.media.planes import Hsv, Kind, PlaneReader

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

    def __init__(self, rotation: int) -> None:
        """``rotation``: how far a player turns the video, degrees clockwise."""
        from processors.media import planes

        self._planes = planes
        self._rotation = rotation
        self._to_bgr = BgrConverter(rotation)
        self._first_size: tuple[int, int] | None = None
        self._hsv: list[Hsv] = []
        """Of this frame and the one before, in turns; transposed where they are turned by a
        quarter, which is all the same to a sum of differences."""
        self._current = 0
        self._readers: dict[Kind, PlaneReader | None] = {}

    def score(self, frame: VideoFrame) -> float:
        """Mean absolute difference to the frame before, over hue, saturation and value.

        The same arithmetic as ContentDetector's, in the same order, so that scores are equal
        to the last bit: sums of 8-bit differences are exact in doubles.
        """
        is_first = self._first_size is None
        if is_first:
            self._first_size = frame.width, frame.height
            width, height = analysis_size(*self._first_size)
            self._hsv = [np.empty((3, height, width), np.uint8) for _ in range(2)]
        self._current ^= 1
        current, previous = self._hsv[self._current], self._hsv[self._current ^ 1]
        self._read(frame, current)
        if is_first:
            return 0.0
        hue, saturation, value = (
            cv2.norm(new, old, cv2.NORM_L1) for new, old in zip(current, previous, strict=True)
        )
        pixels = float(current.shape[1] * current.shape[2])
        return float((hue / pixels + saturation / pixels + value / pixels) / 3.0)

    def _read(self, frame: VideoFrame, hsv: Hsv) -> None:
        reader = self._reader_for(frame)
        if reader is None:
            self._read_bgr(frame, hsv)
        else:
            reader.read(frame, hsv)

    def _read_bgr(self, frame: VideoFrame, hsv: Hsv) -> None:
        bgr = self._to_bgr(frame)
        if max(bgr.shape[:2]) > _EFFECTIVE_SIZE:
            size = analysis_size(bgr.shape[1], bgr.shape[0])
            bgr = cv2.resize(bgr, size, interpolation=cv2.INTER_LINEAR)
        upright = cv2.cvtColor(bgr, cv2.COLOR_BGR2HSV)
        cv2.split(cv2.transpose(upright) if self._rotation % 180 else upright, tuple(hsv))

    def _reader_for(self, frame: VideoFrame) -> PlaneReader | None:
        # Frames of another size than the first one's are scaled to that, which only libswscale can.
        if (frame.width, frame.height) != self._first_size:
            return None
        kind = self._planes.Kind.of(frame)
        if kind is None:
            return None
        if kind not in self._readers:
            size = (self._hsv[0].shape[2], self._hsv[0].shape[1])
            reader = self._planes.PlaneReader(kind, size, self._rotation)
            self._readers[kind] = reader if reader.agrees(self._read_bgr) else None
        return self._readers[kind]
