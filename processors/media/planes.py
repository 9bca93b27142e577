"""From a decoded frame's planes to the small picture that frames are compared by, in one pass.

The way over full-size BGR (`processors.media.pixels`) converts every pixel, of which shrinking
then looks at few: at 1920×1080 at one in fourteen. Only those are converted here, and to the same
bytes: rounding is libswscale's and OpenCV's. Whether it is on the machine at hand is tried, on
a picture of random pixels, before a kind of frame is read this way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange

from processors.media.plane_kernels import LANES, shrink_to_hsv

Plane = npt.NDArray[np.uint8]
Hsv = npt.NDArray[np.uint8]
"""``[3, height, width]``, each channel by itself."""

_FORMATS = frozenset({"yuv420p", "yuvj420p"})
_RED_AND_BLUE = {
    # Colour matrices by their number in H.273: the weights of red and blue in luma.
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}
_BT601 = (0.299, 0.114)
"""For the rest, as libswscale has it."""
_ONE = 1 << 16
_SHARES = 2048
"""A pixel's share is a number of these parts."""


@dataclass(frozen=True)
class Kind:
    """What decides how a frame is converted."""

    format: str
    width: int
    height: int
    matrix: int
    full_range: bool

    @classmethod
    def of(cls, frame: VideoFrame) -> Kind | None:
        """None for frames that have to take the way over BGR."""
        name = frame.format.name
        # libswscale interpolates chroma where the height is odd. Rows stored from the bottom up
        # have negative sizes.
        if name not in _FORMATS or frame.height % 2 or frame.width < 3:
            return None
        if any(plane.line_size < plane.width for plane in frame.planes):
            return None
        full_range = name == "yuvj420p" or int(frame.color_range) == ColorRange.JPEG
        return cls(name, frame.width, frame.height, int(frame.colorspace), full_range)


class PlaneReader:
    """Reads frames of one `Kind` as small pictures in HSV."""

    def __init__(self, kind: Kind, size: tuple[int, int], rotation: int = 0) -> None:
        """``size``: what frames are shrunk to, width and height as they are stored.

        ``rotation``: how far the frames are turned before they are shrunk, degrees clockwise:
        interpolation rounds in the order that pixels have then. Pictures that are turned by a
        quarter are read transposed.
        """
        width, height = size
        self._kind = kind
        self._shape = (height, width)
        self._matrix = np.array(_coefficients(kind.matrix, kind.full_range), np.int16)
        columns, column_shares = _axis(kind.width, width, backwards=rotation in (180, 270))
        self._rows, self._row_shares = _axis(kind.height, height, backwards=rotation in (90, 180))
        self._turned = rotation in (90, 270)
        pairs, self._column_shares = _pairs(columns, column_shares, kind.width)
        chroma = np.minimum(pairs >> 1, (kind.width + 1) // 2 - 2)
        padded = -(-width // LANES) * LANES
        self._starts = np.zeros((2, padded), np.uint64)
        self._starts[:, :width] = pairs, chroma
        # The chroma of a pair's two columns is one byte's or two's.
        of_columns = np.stack([pairs, pairs + 1]) >> 1
        self._picks = -(of_columns > chroma).astype(np.int16)
        self._room = (
            np.empty(padded, np.int16),
            np.empty((3, 2, width), np.int16),
            np.zeros((2, 3, 2, width), np.int16),
            np.empty((3, width), np.uint8),
        )

    def read(self, frame: VideoFrame, hsv: Hsv) -> None:
        """Fill ``hsv``, uint8 ``[3, height, width]``; the frame has to be of this kind."""
        shrink_to_hsv(
            *_planes(frame), self._matrix, self._starts, self._picks, self._column_shares,
            self._rows, self._row_shares, self._turned, *self._room, hsv,
        )  # fmt: skip

    def agrees(self, other: Callable[[VideoFrame, Hsv], None]) -> bool:
        """Whether ``other`` fills in the same bytes, for a random frame of this kind."""
        frame = random_frame(self._kind)
        pictures = np.zeros((2, 3, *self._shape), np.uint8)
        self.read(frame, pictures[0])
        other(frame, pictures[1])
        return bool((pictures[0] == pictures[1]).all())


def _planes(frame: VideoFrame) -> tuple[Plane, Plane, Plane]:
    """Luma, U and V, ``[height, width with padding]``, not copied."""
    luma, u, v = (
        np.ndarray((plane.height, plane.line_size), np.uint8, buffer=memoryview(plane))
        for plane in frame.planes
    )
    return luma, u, v


def random_frame(kind: Kind) -> VideoFrame:
    """A frame of this kind in which any value may stand beside any other."""
    frame = VideoFrame(kind.width, kind.height, kind.format)
    frame.colorspace = kind.matrix
    if kind.full_range:
        frame.color_range = ColorRange.JPEG
    random = np.random.default_rng(0)
    for plane in _planes(frame):
        plane[:] = np.resize(random.integers(0, 256, 1 << 16, np.uint8), plane.shape)
    return frame


def _coefficients(matrix: int, full_range: bool) -> tuple[int, ...]:
    """libswscale's fixed point: factors in 8192nds, and eight times luma's black.

    Its tables are of BT.601's and the others' weights, for video of limited range; full range
    needs 224/255 of the chroma and all of the luma.
    """
    red, blue = _RED_AND_BLUE.get(matrix, _BT601)
    green = 1 - red - blue
    chroma = [
        2 * (1 - red),
        2 * (1 - blue),
        -2 * blue * (1 - blue) / green,
        -2 * red * (1 - red) / green,
    ]
    factors = [round(weight * _ONE * 255 / 224) for weight in chroma]
    luma, black = _ONE * 255 // 219, 16
    if full_range:
        factors = [int(factor * 224 / 255) for factor in factors]
        luma, black = _ONE, 0
    scaled = [((factor << 13) + (1 << 15)) >> 16 for factor in (luma, *factors)]
    return scaled[0], black * 8, *scaled[1:]


def _axis(
    length: int, target: int, *, backwards: bool
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int16]]:
    """Which two pixels each of ``target`` is blended from, and their shares: both ``[2, target]``.

    OpenCV's INTER_LINEAR: pixels have centres, and positions are single precision. ``backwards``:
    they are counted from the other end.
    """
    step = 1 / (target / length)
    centres = ((np.arange(target) + 0.5) * step - 0.5).astype(np.float32)
    first = np.floor(centres).astype(np.int64)
    beyond = (centres - first.astype(np.float32)).astype(np.float32)
    beyond[(first < 0) | (first >= length - 1)] = 0
    first = first.clip(0, length - 1)
    pixels = np.stack([first, np.minimum(first + 1, length - 1)])
    shares = np.stack([np.float32(1) - beyond, beyond]) * np.float32(_SHARES)
    return length - 1 - pixels if backwards else pixels, np.rint(shares).astype(np.int16)


def _pairs(
    columns: npt.NDArray[np.int64], shares: npt.NDArray[np.int16], width: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int16]]:
    """Where a pair of bytes begins that holds both columns and is within the row, and the shares
    of its two bytes."""
    starts = columns.min(axis=0).clip(0, width - 2)
    of_bytes = [np.where(columns == byte, shares, 0).sum(axis=0) for byte in (starts, starts + 1)]
    return starts, np.stack(of_bytes).astype(np.int16)
