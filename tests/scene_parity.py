"""Our cuts beside those of PySceneDetect, run by its own API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import scenedetect

from processors.media.probe import VideoInfo, probe
from processors.scenes import Scene, detect_scenes, frame_number, frame_positions
from processors.split import VideoScores, join_scores, plan_segments, score_segment
from schemas.operators import SplitByScene


def all_scores(path: Path, segment_s: float = 1e9) -> tuple[VideoInfo, VideoScores]:
    """A video's scores, from segments of ``segment_s`` seconds."""
    info = probe(path)
    parts = [score_segment(path, info, s) for s in plan_segments(info, segment_s)]
    return info, join_scores(parts)


def scenes_of(info: VideoInfo, joined: VideoScores, **split: Any) -> list[Scene]:
    return detect_scenes(
        joined.pts, joined.scores, info, SplitByScene(**split), end_pts=joined.end_pts
    )


def assert_same_cuts(path: Path, segment_s: float = 1e9, **split: Any) -> int:
    """Compare all cuts as frame numbers and as times; returns how many scenes there are."""
    info, joined = all_scores(path, segment_s)
    ours = scenes_of(info, joined, **split)
    theirs = scenedetect.detect(
        str(path), scenedetect.ContentDetector(**split), start_in_scene=True
    )
    positions = frame_positions(joined.pts, info)
    starts = [int(positions[scene.start_frame]) for scene in ours]
    assert [frame_number(start, info) for start in starts] == [a.frame_num for a, _ in theirs]
    assert starts == pytest.approx([a.seconds * 1e6 for a, _ in theirs], abs=1)
    return len(theirs)
