"""Motion score by Farneback's dense optical flow, with DataJuicer's sampling and arithmetic.

Follows ``video_motion_score_filter`` of DataJuicer 1.6.1: the mean over frame pairs of the mean
length of the flow vectors, in pixels. It runs where the frames are decoded, frame by frame. One
thing differs on purpose: with ``size`` or ``max_size`` DataJuicer hands OpenCV height and width
in the wrong order and so distorts the picture; here its shape is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from processors.frames import to_luma

if TYPE_CHECKING:
    # Not at run time: the decoder's child process would load all that recipes need.
    from schemas.operators import MotionScoreFilter

MODEL_NAME = "farneback"
MODULES = ("processors.farneback",)
"""What a process that measures motion imports beforehand: compiling takes time and memory."""
_REVISION = 2
"""Of `processors.farneback`; 1 was OpenCV's own function."""
NO_PAIR_SCORE = -1.0
"""Score of a clip with fewer than two frames, as DataJuicer gives it: below any threshold."""


@dataclass(frozen=True)
class MotionParameters:
    """The parameters of the operator that its score depends on."""

    sampling_fps: float = 2.0
    size: int | None = None
    max_size: int | None = None
    divisible: int = 1
    relative: bool = False

    @classmethod
    def of(cls, operator: MotionScoreFilter) -> MotionParameters:
        return cls(
            sampling_fps=operator.sampling_fps,
            size=operator.size,
            max_size=operator.max_size,
            divisible=operator.divisible,
            relative=operator.relative,
        )


def motion_revision() -> str:
    """What the score's last digits depend on: our arithmetic, and the version of OpenCV, which
    scales the pictures."""
    return f"{_REVISION}-opencv-{cv2.__version__}"


def sampling_step(fps: float, sampling_fps: float) -> int:
    """Frames from one measured frame to the next; 1 where the rate is unknown."""
    if not fps > 0:
        return 1
    return max(round(fps / min(sampling_fps, fps)), 1)


def resized(
    height: int, width: int, size: int | None, max_size: int | None, divisible: int
) -> tuple[int, int]:
    """Height and width after resizing: DataJuicer's ``calculate_resized_dimensions``."""
    short, long = sorted((height, width))
    new_short, new_long = short, long
    if size is not None:
        new_short, new_long = size, int(size * long / short)
    if max_size is not None and new_long > max_size:
        new_short, new_long = int(new_short * max_size / new_long), max_size
    first, second = (new_short, new_long) if width >= height else (new_long, new_short)
    # Never nothing: a very long picture would otherwise have no pixels left.
    return (
        max(first // divisible * divisible, divisible),
        max(second // divisible * divisible, divisible),
    )


class MotionMeter:
    """Measures one clip's motion while its frames pass by.

    DataJuicer's reader takes frames 0, 1, step, 2·step, …: it moves on by the step only after a
    pair is complete. A clip shorter than the step takes 0, 1 and its last frame. With a step of
    one, frame 1 is read twice. All of that is kept, since the score depends on it.
    """

    def __init__(self, parameters: MotionParameters, fps: float) -> None:
        self._parameters = parameters
        self._step = sampling_step(fps, parameters.sampling_fps)
        # Here, not above: it takes half a second and 65 MB, and few processes measure motion.
        from processors.farneback import FarnebackFlow

        self._flow = FarnebackFlow()
        self._size: tuple[int, int] | None = None
        self._scores: list[float] = []
        self._stepped = False

    def wants(self, index: int) -> bool:
        """Whether `add` needs frame ``index`` of the clip, counted from 0."""
        return index <= 1 or index % self._step == 0

    def add(self, index: int, bgr: NDArray[np.uint8]) -> None:
        """Take in frame ``index``, uint8 ``[h, w, 3]``, of those that `wants` named, in order."""
        luma = self._luma(bgr)
        self._pair(luma)
        if index > 0 and index % self._step == 0:
            self._stepped = True
            if index == 1:
                self._pair(luma)

    def wants_last(self, last_index: int) -> bool:
        """At the clip's end: whether `add_last` needs its last frame once more."""
        return last_index >= 1 and not self._stepped

    def add_last(self, bgr: NDArray[np.uint8]) -> None:
        """Take in the last frame of a clip that is shorter than the step."""
        self._pair(self._luma(bgr))

    def score(self) -> float:
        """The clip's score, pixels (or a share of the diagonal) a sampled pair of frames."""
        return float(np.mean(self._scores)) if self._scores else NO_PAIR_SCORE

    def _luma(self, bgr: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = bgr.shape[:2]
        if self._size is None:
            p = self._parameters
            self._size = resized(height, width, p.size, p.max_size, p.divisible)
        # A stream may change its size half-way; flow needs two pictures of one size.
        if self._size != (height, width):
            size = (self._size[1], self._size[0])
            bgr = cv2.resize(bgr, size, interpolation=cv2.INTER_AREA)
        return to_luma(bgr)

    def _pair(self, luma: NDArray[np.uint8]) -> None:
        flow = self._flow.add(luma)
        if flow is None:
            return
        magnitude, _ = cv2.cartToPolar(flow[0], flow[1])
        mean = float(np.mean(magnitude))
        if self._parameters.relative:
            mean /= float(np.hypot(*luma.shape[:2]))
        self._scores.append(mean)
