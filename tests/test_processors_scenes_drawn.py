"""Two hundred videos that chance has drawn are cut, in segments, where PySceneDetect cuts them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.media import write_video
from tests.scene_parity import assert_same_cuts

VIDEOS = 200
_SIZES = ((64, 48), (176, 144), (256, 144), (320, 180), (427, 240), (640, 360), (854, 480))
_RATES = (12, Fraction(24000, 1001), 25, Fraction(30000, 1001), 50, 60)
_CODECS = {
    "libx264": (".mp4", ".mkv", ".ts", ".mov"),
    "libx265": (".mp4", ".mkv"),
    "libvpx-vp9": (".webm", ".mkv"),
    "mpeg4": (".avi", ".mp4"),
    "mpeg2video": (".mpg", ".ts"),
}
_SHARES = (0.6, 0.1, 0.1, 0.1, 0.1)
_OPTIONS = {
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
}


def drawn(number: int) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Name, `write_video`'s arguments and `assert_same_cuts`'s of one video."""
    rng = np.random.default_rng(number)
    codec = str(rng.choice(list(_CODECS), p=_SHARES))
    suffix = str(rng.choice(_CODECS[codec]))
    rate = _RATES[rng.integers(len(_RATES))]
    if codec == "mpeg2video":
        rate = Fraction(25)  # it knows few others
    size = _SIZES[rng.integers(len(_SIZES))]
    shots = rng.integers(1, 60, rng.integers(1, 12))
    made: dict[str, Any] = {
        "shots": tuple(int(frames) for frames in shots),
        "size": (size[0] - size[0] % 2, size[1]),
        "fps": rate,
        "codec": codec,
        "gop": int(rng.integers(1, 80)),
        "motion": int(rng.integers(0, 9)),
        "options": _OPTIONS.get(codec),
    }
    if codec == "libx264":
        made |= {"b_frames": int(rng.integers(0, 4)), "open_gop": bool(rng.integers(2))}
    if codec == "libx264" and suffix in (".mp4", ".mkv") and rng.random() < 0.3:
        steps = rng.choice([300, 400, 900, 1500, 3003], int(shots.sum()))
        made |= {"pts": [0, *np.cumsum(steps[:-1]).tolist()], "time_base": Fraction(1, 90000)}
    read = {
        "segment_s": float(rng.choice([0.3, 1, 3, 1e9])),
        "threshold": float(rng.choice([27.0, rng.uniform(5, 60)])),
        "min_scene_len": int(rng.choice([15, rng.integers(0, 40)])),
    }
    if suffix in (".mp4", ".mov"):
        made |= {"rotation": int(rng.choice([0, 90, 180, 270], p=(0.4, 0.2, 0.2, 0.2)))}
    if codec == "libx264":
        made |= {"colorspace": int(rng.choice([1, 2, 4, 5, 7, 9]))}
    return f"{number}{suffix}", made, read


@pytest.mark.long
def test_drawn_videos_are_cut_as_pyscenedetect_cuts_them(tmp_path: Path) -> None:
    scenes = 0
    for number in range(VIDEOS):
        name, made, read = drawn(number)
        path = write_video(tmp_path / name, **made)
        try:
            scenes += assert_same_cuts(path, **read)
        except AssertionError as error:
            pytest.fail(f"{name}: {made} {read}: {error}")
        path.unlink()
    # Otherwise there was hardly anything to compare.
    assert scenes > 3 * VIDEOS
