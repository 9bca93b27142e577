"""Which frames of a clip are taken, and what their pixels are turned into.

Samplers say yes or no to one frame at a time, so that a clip is decoded once and never held as
a whole. Reading the file is in `processors.clip_reader`, pixels come from
`processors.media.pixels`; what is computed from the pixels is in
`processors.quality`, `processors.motion` and the model stages.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from processors.media.pixels import Image
from processors.resize import Resize

Pixels = Literal["upright", "coded"]

JPEG_QUALITY = 90
"""Of stored frames. High enough that models judge a stored frame nearly as the decoded one."""

MAX_KEYFRAMES = 128
"""Most frames that `KeyframeSampler` keeps of one clip.

Where every frame is a keyframe (MJPEG, ProRes) a minute has thousands. Beyond this number every
other one is let go, as often as needed, so that they still cover the clip evenly.
"""


@dataclass(frozen=True)
class FrameSampling:
    """How frames are sampled from a clip: DataJuicer's two methods."""

    method: Literal["all_keyframes", "uniform"] = "all_keyframes"
    frame_num: int = 3
    """Frames that ``uniform`` takes."""
    at_most: int | None = None
    """Of the frames taken, this many are kept, evenly; None: all."""

    def sampler(self, duration: int, frame_count: int | None) -> Sampler:
        """A sampler for one clip of ``duration`` (in units of its time base)."""
        if self.method == "uniform":
            return UniformSampler(self.frame_num, duration, frame_count)
        return KeyframeSampler()

    def chosen(self, taken: int) -> list[int]:
        """Which of the frames taken are kept, by number: DataJuicer's choice of stored frames."""
        if self.at_most is None or taken <= self.at_most:
            return list(range(taken))
        return [int(index) for index in np.linspace(0, taken - 1, self.at_most, dtype=int)]


@dataclass(frozen=True)
class FrameRequest:
    """The frames that a model stage looks at, as the decoder should hand them over."""

    column: str
    """Where they come in a sample: uint8 ``[n, height, width, 3]``, RGB, in order of time."""
    sampling: FrameSampling
    resize: Resize
    """How they are brought to the model's size."""
    pixels: Pixels = "upright"
    """``upright``: as players show them, turned and with the colour matrix that they state.
    ``coded``: as they are stored, by libav's default conversion, which is what DataJuicer's
    models look at."""


class Sampler(ABC):
    """Chooses frames of one clip while they pass by, in order of time."""

    @abstractmethod
    def take(self, offset: int, key_frame: bool) -> bool:
        """Whether to take the frame ``offset`` time base units after the clip's first one."""

    def take_last(self) -> bool:
        """At the clip's end: whether to take its last frame, even if it was taken before."""
        return False

    def thin(self, taken: int) -> bool:
        """Whether to let go of every other frame of those ``taken`` so far."""
        return False


class KeyframeSampler(Sampler):
    """The first frame, and every keyframe of the source.

    DataJuicer's clips are re-encoded and so begin with a keyframe; a virtual clip often holds
    none, and its first frame stands for it.
    """

    def __init__(self, limit: int = MAX_KEYFRAMES) -> None:
        self._limit = limit
        self._seen = 0
        self._stride = 1

    def take(self, offset: int, key_frame: bool) -> bool:
        if self._seen and not key_frame:
            return False
        number = self._seen
        self._seen += 1
        return number % self._stride == 0

    def thin(self, taken: int) -> bool:
        if taken <= self._limit:
            return False
        self._stride *= 2
        return True


class UniformSampler(Sampler):
    """``frame_num`` frames evenly over the clip: DataJuicer's ``extract_video_frames_uniformly``.

    Their times are ``duration * i / (frame_num - 1)``; each is served by the first frame at or
    after it that serves no earlier one, and what remains at the end by the last frame. One
    frame: the one at or after the middle. A clip with fewer frames gives as many as it has.
    """

    def __init__(self, frame_num: int, duration: int, frame_count: int | None) -> None:
        wanted = frame_num if frame_count is None else max(1, min(frame_num, frame_count))
        # Fractions with one denominator, so that no rounding moves a time past a frame.
        self._denominator, targets = (2, [duration]) if wanted == 1 else (wanted - 1, None)
        self._targets = targets or [duration * i for i in range(wanted)]
        self._next = 0

    def take(self, offset: int, key_frame: bool) -> bool:
        if self._next >= len(self._targets):
            return False
        if offset * self._denominator < self._targets[self._next]:
            return False
        self._next += 1
        return True

    def take_last(self) -> bool:
        return self._next < len(self._targets)


def to_luma(bgr: Image) -> NDArray[np.uint8]:
    """Luma of a picture by BT.601's weights, uint8 ``[h, w]``, 0 to 255."""
    luma: NDArray[np.uint8] = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)
    return luma


def encode_jpeg(bgr: Image) -> bytes:
    """A picture as JPEG at `JPEG_QUALITY`."""
    done, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise ValueError(f"a picture of {bgr.shape[1]} by {bgr.shape[0]} cannot be a JPEG")
    data: bytes = encoded.tobytes()
    return data
