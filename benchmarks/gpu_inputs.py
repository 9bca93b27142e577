"""The videos of the GPU benchmark, and their scenes as files for those that take files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.inputs import KEYFRAMES, Made, cut
from benchmarks.inputs import make as make_videos

_FULL, _TINY = (250, 250, 250), (30, 20)
"""Frames of each scene: of 10 s, as the article's clips are on average, and just enough."""
_KEYFRAMES = "streamed"


def make(folder: Path, *, tiny: bool, height: int) -> dict[str, Any]:
    """Paths of ``videos`` and ``clips``, and seconds of each clip: ``seconds_of``.

    A clip has a keyframe where its scene has one, so that a model that looks at keyframes sees as
    many whether it is given a file or a stretch of a video.
    """
    shots = _TINY if tiny else _FULL
    (video,) = make_videos([Made(height, "h264", _KEYFRAMES, shots)], folder / "videos")
    clips, first = [], 0
    (folder / "clips").mkdir(exist_ok=True)
    for number, frames in enumerate(shots):
        path = folder / "clips" / f"{video.name}-{number}.mp4"
        gop = KEYFRAMES[_KEYFRAMES]
        clips.append(str(cut(video, first, first + frames, path, gop=gop)))
        first += frames
    seconds = [float(frames / video.info.fps) for frames in shots]
    return {"videos": [str(video.path)], "clips": clips, "seconds_of": seconds}
