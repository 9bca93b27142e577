"""From a video's frame scores to its scenes: ContentDetector's cuts, found in joined scores.

Frame scores come from `processors.split`; nothing here decodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from processors.errors import MediaError
from processors.media.probe import VideoInfo
from schemas.reasons import MediaReason

if TYPE_CHECKING:
    from schemas.operators import SplitByScene

_MICROSECONDS = 1_000_000


@dataclass(frozen=True)
class Scene:
    """One scene; ends are exclusive. Timestamps are in the stream's time base."""

    start_pts: int
    end_pts: int
    start_frame: int
    """Number, from 0, of its first frame among the video's decoded frames."""
    end_frame: int


def detect_scenes(
    pts: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float64],
    info: VideoInfo,
    split: SplitByScene,
    *,
    end_pts: int | None = None,
) -> list[Scene]:
    """The scenes of a video, in order, without gaps; one scene if there is no cut.

    ``pts`` and ``scores`` hold one entry a decoded frame, in the order of output. The cuts are
    those of PySceneDetect 0.7.2's ``detect(path, ContentDetector(threshold, min_scene_len))``.
    ``end_pts`` is the end of the last frame; without it ``info.last_pts_end`` is taken.

    Raises `MediaError` (stage ``split``, ``no_frames``) if there is no frame.
    """
    if len(pts) == 0:
        raise MediaError(MediaReason.NO_FRAMES, "no frame could be decoded", stage="split")
    cuts = _cuts(frame_positions(pts, info), scores, info, split)
    starts = [0]
    for frame in cuts:
        if pts[frame] > pts[starts[-1]]:
            starts.append(frame)
    end = max(end_pts if end_pts is not None else info.last_pts_end, int(pts.max()) + 1)
    ends = [*starts[1:], len(pts)]
    return [
        Scene(
            start_pts=int(pts[first]),
            end_pts=int(pts[after]) if after < len(pts) else end,
            start_frame=first,
            end_frame=after,
        )
        for first, after in zip(starts, ends, strict=True)
    ]


def frame_positions(pts: npt.NDArray[np.int64], info: VideoInfo) -> npt.NDArray[np.int64]:
    """Each frame's position in whole microseconds, as PySceneDetect reads it from OpenCV.

    OpenCV counts milliseconds in floating point from the stream's start time. Where that is not
    above zero, PySceneDetect falls back to the frame's number.
    """
    unit = info.time_base.numerator / info.time_base.denominator
    frame_us = _MICROSECONDS / float(info.nominal_fps)
    by_number: npt.NDArray[np.int64] = np.rint(np.arange(len(pts)) * frame_us).astype(np.int64)
    if info.clock_start is None:
        return by_number
    milliseconds = (pts - info.clock_start).astype(np.float64) * unit * 1000
    positions: npt.NDArray[np.int64] = np.rint(milliseconds * 1000).astype(np.int64)
    return np.where(positions > 0, positions, by_number)


def frame_number(microseconds: int, info: VideoInfo) -> int:
    """The frame number that PySceneDetect gives a position; an estimate if the rate varies."""
    return round(microseconds / _MICROSECONDS * float(info.nominal_fps))


def _cuts(
    positions: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float64],
    info: VideoInfo,
    split: SplitByScene,
) -> list[int]:
    """Numbers of the frames that start a scene: threshold, then the flash filter (MERGE).

    Short flashes are merged: above-threshold frames closer than ``min_scene_len`` frames belong
    together, and the cut is at the last of them, once that many frames have passed quietly.
    """
    above = np.flatnonzero(scores >= split.threshold).tolist()
    length = split.min_scene_len
    if length <= 0:
        return [int(frame) for frame in above]
    flash = _FlashFilter(positions.tolist(), info, length)
    return flash.cuts(set(above))


class _FlashFilter:
    """The state machine of PySceneDetect's FlashFilter in its MERGE mode, lengths in frames."""

    def __init__(self, positions: list[int], info: VideoInfo, length: int) -> None:
        self._positions = positions
        self._info = info
        self._length = length

    def _long_enough(self, start: int, end: int) -> bool:
        passed = max(0, self._positions[end] - self._positions[start])
        return frame_number(passed, self._info) >= self._length

    def cuts(self, above: set[int]) -> list[int]:
        found: list[int] = []
        last_above = 0
        merging_since: int | None = None
        for frame in range(len(self._positions)):
            is_above = frame in above
            if not is_above and merging_since is None:
                continue
            quiet = self._long_enough(last_above, frame)
            if is_above:
                last_above = frame
            if merging_since is not None:
                if quiet and not is_above and self._long_enough(merging_since, last_above):
                    merging_since = None
                    found.append(last_above)
            elif is_above:
                if quiet:
                    found.append(frame)
                elif found:
                    merging_since = frame
        return sorted(set(found))
