"""The split: a video's scenes, found in segments that can be decoded apart.

probe → segments → scores of consecutive frames → joined → `processors.scenes`. A segment starts
at a keyframe of the source and gives each frame's score once; joined they are the scores of one
pass over the video. `score_segment` decodes and is meant for `Sandbox.run`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from processors.duration import duration_verdict
from processors.errors import MediaError
from processors.media.container import frame_step
from processors.media.probe import VideoInfo
from processors.media.reader import FrameReader
from processors.media.scoring import FrameScorer
from processors.scenes import Scene, detect_scenes
from schemas.ids import clip_id
from schemas.reasons import MediaReason
from schemas.tables import KAFKA_COLUMN_NAMES

if TYPE_CHECKING:
    # Only for types: the child process starts without pydantic.
    from processors.media.sandbox import Sandbox
    from schemas.operators import SplitByScene
    from schemas.recipe import Recipe
    from schemas.settings import DecodeSettings

MODULES = ("processors.media.planes",)
"""What a sandbox has to import, before its limits are set, for `score_segment`."""

_MAX_FRAME_S = 1.0
"""A frame counts for no more of a segment's length: times in a file may be anything."""


@dataclass(frozen=True)
class Segment:
    """A stretch of a video that one process decodes, ``[start_pts, end_pts)``."""

    index: int
    count: int
    start_pts: int
    end_pts: int


@dataclass(frozen=True)
class SegmentScores:
    """Scores of a segment's frames: those after its first one, to the next segment's first."""

    index: int
    count: int
    pts: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]
    end_pts: int | None
    """End of the last of these frames, exclusive; None if there is none."""
    errors: int
    """Packets that could not be decoded."""
    first_error: str | None


@dataclass(frozen=True)
class VideoScores:
    """The joined scores of all segments: what one pass over the video gives."""

    pts: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]
    end_pts: int


def plan_segments(info: VideoInfo, segment_s: float) -> list[Segment]:
    """Segments of at least ``segment_s`` seconds (the last may be shorter), cut at keyframes.

    A video whose keyframes are further apart, or whose timestamps cannot be trusted, gets
    longer segments, in the end a single one.
    """
    length = segment_s / info.time_base
    starts = [info.start_pts]
    for pts in info.cut_pts:
        if pts - starts[-1] >= length:
            starts.append(pts)
    ends = [*starts[1:], info.last_pts_end]
    return [
        Segment(index, len(starts), start, end)
        for index, (start, end) in enumerate(zip(starts, ends, strict=True))
    ]


def score_segment(path: str | Path, info: VideoInfo, segment: Segment) -> SegmentScores:
    """Decode one segment and score its frames.

    The first segment's first frame scores 0. Any other segment begins with the score of its
    *second* frame, since the segment before it ends with the score of this one's first; leading
    frames of an open GOP, shown before the keyframe, belong to the segment before as well.

    What cannot be decoded is skipped, as OpenCV does, and counted.
    Raises `MediaError` (stage ``split``): ``out_of_memory``.
    """
    is_first, is_last = segment.index == 0, segment.index == segment.count - 1
    scorer = FrameScorer(info.rotation)
    step = frame_step(info.fps, info.time_base)
    pts_found: list[int] = []
    scores: list[float] = []
    end_pts: int | None = None
    with FrameReader(path) as reader:
        try:
            frames = reader.frames(None if is_first else segment.start_pts)
            for number, (pts, frame) in enumerate(frames):
                score = scorer.score(frame)
                if number > 0 or is_first:
                    pts_found.append(pts)
                    scores.append(score)
                    end_pts = pts + (frame.duration or step)
                if not is_last and pts >= segment.end_pts:
                    break
        except MemoryError:
            raise MediaError(
                MediaReason.OUT_OF_MEMORY, "decoding took too much memory", stage="split"
            ) from None
    return SegmentScores(
        index=segment.index,
        count=segment.count,
        pts=np.array(pts_found, np.int64),
        scores=np.array(scores, np.float64),
        end_pts=end_pts,
        errors=reader.errors,
        first_error=reader.first_error,
    )


def join_scores(parts: Sequence[SegmentScores]) -> VideoScores:
    """The scores of a whole video from those of all its segments, in any order.

    Raises `MediaError` (stage ``split``): ``no_frames`` or, where libav complained,
    ``decode_error`` if no segment has a frame.
    """
    ordered = sorted(parts, key=lambda part: part.index)
    if not ordered or [part.index for part in ordered] != list(range(ordered[0].count)):
        raise ValueError("the segments of a video are joined only when all are there, once each")
    ends = [part.end_pts for part in ordered if part.end_pts is not None]
    if not ends:
        errors = sum(part.errors for part in ordered)
        if errors:
            first = next(part.first_error for part in ordered if part.errors)
            raise MediaError(
                MediaReason.DECODE_ERROR,
                f"no frame could be decoded; {errors} packets failed, the first with: {first}",
                stage="split",
            )
        raise MediaError(MediaReason.NO_FRAMES, "decoding gave no frame", stage="split")
    return VideoScores(
        pts=np.concatenate([part.pts for part in ordered]),
        scores=np.concatenate([part.scores for part in ordered]),
        end_pts=max(ends),
    )


def split_video(
    path: str | Path,
    info: VideoInfo,
    split: SplitByScene,
    settings: DecodeSettings,
    sandbox: Sandbox,
) -> list[Scene]:
    """The scenes of a video, its segments decoded one after the other in the sandbox."""
    parts = [
        sandbox.run(
            score_segment,
            str(path),
            info,
            segment,
            deadline_s=sandbox.deadline_for(segment_seconds(info, segment)),
        )
        for segment in plan_segments(info, settings.segment_s)
    ]
    joined = join_scores(parts)
    return detect_scenes(joined.pts, joined.scores, info, split, end_pts=joined.end_pts)


def segment_seconds(info: VideoInfo, segment: Segment) -> float:
    """Seconds of video in a segment, for its deadline: never more than its frames can fill."""
    seconds = float((segment.end_pts - segment.start_pts) * info.time_base)
    return min(seconds, info.frame_count * _MAX_FRAME_S)


def clip_rows(
    video: Mapping[str, Any],
    info: VideoInfo,
    scenes: Sequence[Scene],
    *,
    recipe: Recipe,
    content_sha256: str,
    created_at: datetime,
) -> list[dict[str, Any]]:
    """One row of the table ``clips`` a scene, every column set.

    ``video`` is a row of ``videos``. Times in seconds count from the video's first frame.
    """
    time_base = f"{info.time_base.numerator}/{info.time_base.denominator}"
    zero = scenes[0].start_pts if scenes else info.start_pts
    rows = []
    for index, scene in enumerate(scenes):
        duration_s = float((scene.end_pts - scene.start_pts) * info.time_base)
        verdict = duration_verdict(duration_s, recipe.duration)
        rows.append(
            {
                "clip_id": clip_id(
                    video["video_key"],
                    recipe.split_fingerprint,
                    scene.start_pts,
                    scene.end_pts,
                    time_base,
                ),
                "video_key": video["video_key"],
                "video_id": video["video_id"],
                "uri": video["uri"],
                "etag": video.get("etag"),
                "content_sha256": content_sha256,
                "clip_index": index,
                "start_s": float((scene.start_pts - zero) * info.time_base),
                "end_s": float((scene.end_pts - zero) * info.time_base),
                "start_pts": scene.start_pts,
                "end_pts": scene.end_pts,
                "time_base": time_base,
                "start_frame": scene.start_frame,
                "end_frame": scene.end_frame,
                "duration_s": duration_s,
                "fps": float(info.fps),
                "width": info.width,
                "height": info.height,
                "codec": info.codec,
                "rotation": info.rotation,
                "splitter": recipe.splitter,
                "split_fingerprint": recipe.split_fingerprint,
                "duration_ok": verdict is None,
                "duration_reject_reason": None if verdict is None else str(verdict),
                **{name: video.get(name) for name in KAFKA_COLUMN_NAMES},
                "created_at": created_at,
            }
        )
    return rows
