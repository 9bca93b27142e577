"""The benchmark of fetching has the video that it says, and clips that cover it."""

from __future__ import annotations

from pathlib import Path

from benchmarks.fetching import SCENE_S, long_video, rows
from benchmarks.inputs import FPS
from processors.media.probe import probe


def test_the_long_video_has_as_many_scenes_as_asked_for(tmp_path: Path) -> None:
    video = long_video(tmp_path, 3)
    info = probe(str(video))
    assert info.frame_count == 3 * SCENE_S * FPS
    clips = rows(video, "http://127.0.0.1/0.mp4", 0)
    assert [clip["duration_s"] for clip in clips] == [SCENE_S] * 3
    assert clips[0]["start_pts"] == info.start_pts
    assert clips[-1]["end_pts"] == info.last_pts_end
    assert [clip["start_pts"] for clip in clips[1:]] == [clip["end_pts"] for clip in clips[:-1]]
