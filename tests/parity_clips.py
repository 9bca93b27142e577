"""Clip files on which DataJuicer and this project are compared: real and made, of many kinds.

Each is encoded anew and begins with a keyframe, as the clips of DataJuicer's split do; then both
sides read the very same files.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from clip_media import Picture, panning
from media import encode, pictures, sample

_BT709 = 1
_FULL_RANGE = 2
NTSC, FILM = Fraction(30000, 1001), Fraction(24000, 1001)

# Frames of 20 to 80 ms: a camera that records when it can.
_STEPS = np.random.default_rng(11).integers(20, 80, 70)
_UNEVEN = [0, *np.cumsum(_STEPS).tolist()]

VARIABLE_RATE = ("uneven",)
"""Clips whose frames are not evenly spaced."""


def make_clips(folder: Path) -> dict[str, Path]:
    """The clip files by name, 2 to 4 seconds each."""
    made: dict[str, tuple[Iterator[Picture], dict[str, Any]]] = {
        "ride": (_real("bikes.mp4", 76, 137), _options(gop=250)),
        "turn": (_real("bikes.mp4", 187, 242), _options(gop=25, b_frames=3)),
        "rabbit": (_real("bigbuckbunny.mp4", 0, 50), _options(gop=30)),
        "grass": (_real("bigbuckbunny.mp4", 70, 130, size=(640, 360)), _options(gop=20)),
        "car": (_real("carphone_pristine.mp4", 0, 90), _options(gop=40) | {"fps": NTSC}),
        "car_later": (_real("carphone_pristine.mp4", 40, 105), _options(gop=250) | {"fps": FILM}),
        "tagged": (
            _real("bikes.mp4", 0, 60),
            _options(gop=24, b_frames=2) | {"colorspace": _BT709},
        ),
        "full_range": (
            _real("carphone_pristine.mp4", 20, 85),
            _options(gop=20) | {"colorspace": _BT709, "color_range": _FULL_RANGE},
        ),
        "pan": (panning(75, 180, 320, 2), _options(gop=30)),
        "shots": (pictures((30, 30, 30)), _options(gop=250)),
        "rotated": (_real("carphone_pristine.mp4", 0, 60), _options(gop=20) | {"rotation": 90}),
        "uneven": (
            panning(len(_UNEVEN), 144, 256, 1, seed=4),
            _options(gop=20) | {"pts": _UNEVEN, "time_base": Fraction(1, 1000)},
        ),
    }
    return {
        name: encode(folder / f"{name}.mp4", frames, **options)
        for name, (frames, options) in made.items()
    }


def _options(gop: int, b_frames: int = 0) -> dict[str, Any]:
    return {"options": {"g": str(gop), "bf": str(b_frames), "preset": "veryfast"}}


def _real(
    name: str, start: int, end: int, size: tuple[int, int] | None = None
) -> Iterator[Picture]:
    """Frames [start, end) of a real clip, RGB."""
    with av.open(str(sample(name))) as container:
        for frame in itertools.islice(container.decode(video=0), start, end):
            picture = frame.to_ndarray(format="rgb24")
            yield picture if size is None else cv2.resize(picture, size)
