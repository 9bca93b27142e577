"""Decoded frames as pixels: the one place where libswscale is asked for BGR.

Split and enrichment both compute what a peer computes on OpenCV's pixels; these are OpenCV's,
byte for byte. What is done with them is elsewhere.
"""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter

Image = npt.NDArray[np.uint8]

_ROTATIONS = {
    90: cv2.ROTATE_90_CLOCKWISE,
    180: cv2.ROTATE_180,
    270: cv2.ROTATE_90_COUNTERCLOCKWISE,
}
# swscale knows the coefficients of these only (RGB, BT.709, unspecified, FCC, BT.470BG,
# SMPTE 170M, SMPTE 240M, BT.2020 non-constant); it refuses a frame with any other tag.
_KNOWN_MATRICES = frozenset({0, 1, 2, 4, 5, 6, 7, 9})


class BgrConverter:
    """Decoded frames as BGR, upright, full range, as OpenCV's VideoCapture gives them.

    Bicubic chroma; the frame's own colour matrix and range, of which OpenCV honours the tags.
    """

    def __init__(self, rotation: int | None = None) -> None:
        """``rotation``: how far a player turns the whole video, degrees clockwise.

        All frames are then turned by it and scaled to the first one's size. None: every frame
        stands for itself, with its own size and the rotation that it states.
        """
        self._reformatter = VideoReformatter()
        self._rotation = rotation
        self._size: tuple[int, int] | None = None

    def __call__(self, frame: VideoFrame) -> Image:
        """uint8 ``[height, width, 3]``, read-only; rows may be padded, pixels are not copied."""
        width, height = frame.width, frame.height
        if self._rotation is not None:
            self._size = self._size or (width, height)
            width, height = self._size
        # A tag outside the list is no reason to lose a video: players take the default then.
        colorspace = None if int(frame.colorspace) in _KNOWN_MATRICES else Colorspace.DEFAULT
        bgr = self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="bgr24",
            src_colorspace=colorspace,
            dst_colorspace=colorspace,
            interpolation=Interpolation.BICUBIC,
            threads=1,
        )
        image = _view(bgr)
        rotation = self._rotation
        turn = _ROTATIONS.get(frame_rotation(frame) if rotation is None else rotation)
        return image if turn is None else cv2.rotate(image, turn)


def coded_rgb(frame: VideoFrame) -> Image:
    """uint8 RGB ``[height, width, 3]`` as PyAV 13 converts by default, which DataJuicer pins.

    Not turned, and BT.601's matrix whatever the frame states; its range is honoured. The same
    bytes, but for 4:2:0 of an odd height or more than 8 bits: there its libswscale put chroma
    half a line too low, which no option brings back.
    """
    rgb = frame.reformat(
        format="rgb24",
        src_colorspace=Colorspace.DEFAULT,
        dst_colorspace=Colorspace.DEFAULT,
        interpolation=Interpolation.BILINEAR,
        threads=1,
    )
    return cast(Image, rgb.to_ndarray())


def frame_rotation(frame: VideoFrame) -> int:
    """Degrees clockwise, 0, 90, 180 or 270, by which a player turns the frame."""
    return round(-frame.rotation / 90) * 90 % 360


def _view(bgr: VideoFrame) -> Image:
    plane = bgr.planes[0]
    image: Image = np.ndarray(
        (bgr.height, bgr.width, 3),
        dtype=np.uint8,
        buffer=memoryview(plane).toreadonly(),
        strides=(abs(plane.line_size), 3, 1),
    )
    # A raw picture that is stored bottom-up comes as it is; OpenCV takes no negative strides.
    return image if plane.line_size > 0 else np.ascontiguousarray(image[::-1])
