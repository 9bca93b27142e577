"""Segments of a video, scored apart, give what one pass over it gives."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from processors.errors import MediaError
from processors.media.probe import VideoInfo, probe
from processors.media.sandbox import Sandbox
from processors.scenes import detect_scenes
from processors.split import (
    VideoScores,
    clip_rows,
    join_scores,
    plan_segments,
    score_segment,
    segment_seconds,
    split_video,
)
from schemas.operators import SplitByScene
from schemas.reasons import MediaReason
from schemas.recipe import parse_recipe
from schemas.settings import DecodeSettings
from schemas.tables import CLIPS
from tests.media import cut_frames, sample, write_video

SHOTS = (31, 22, 40, 17, 30)
FRAMES = sum(SHOTS)
UNEVEN = [0, *np.cumsum(np.random.default_rng(3).choice([300, 900, 3003], FRAMES - 1)).tolist()]

RECIPE = parse_recipe(
    "process: [video_split_by_scene_mapper: {}, video_duration_filter: {min_duration: 1}]",
    where="test",
    default_name="test",
)


def _score(path: Path, info: VideoInfo, segment_s: float) -> VideoScores:
    segments = plan_segments(info, segment_s)
    # The last first: segments depend on nothing but themselves.
    return join_scores([score_segment(path, info, s) for s in reversed(segments)])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("plain.mp4", {}),
        ("b_frames.mp4", {"b_frames": 3}),
        ("open_gop.mp4", {"b_frames": 3, "open_gop": True}),
        ("open_gop.mkv", {"b_frames": 3, "open_gop": True}),
        ("open_gop.ts", {"b_frames": 3, "open_gop": True}),
        ("open_gop.mpg", {"codec": "mpeg2video", "b_frames": 2}),
        ("uneven.mp4", {"pts": UNEVEN, "time_base": Fraction(1, 90000), "b_frames": 3}),
        ("uneven.mkv", {"pts": UNEVEN, "time_base": Fraction(1, 1000), "open_gop": True}),
        ("late_start.ts", {"pts": [9000 + 3600 * i for i in range(FRAMES)]}),
        ("intra_only.mov", {"codec": "mjpeg", "pixel_format": "yuvj420p"}),
    ],
)
def test_segments_give_the_scores_of_one_pass(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    if "pts" in options:
        options = {"time_base": Fraction(1, 90000), **options}
    path = write_video(tmp_path / name, SHOTS, **options)
    info = probe(path)
    assert len(plan_segments(info, segment_s=0.4)) > 3
    whole, joined = _score(path, info, 1e9), _score(path, info, 0.4)
    assert len(whole.pts) == FRAMES
    assert joined.pts.tolist() == whole.pts.tolist()
    assert joined.scores.tolist() == whole.scores.tolist()
    assert joined.end_pts == whole.end_pts


def test_segments_of_a_real_clip_give_the_scores_of_one_pass() -> None:
    path = sample("bikes.mp4")
    info = probe(path)
    assert len(plan_segments(info, 1.0)) > 1
    whole, joined = _score(path, info, 1e9), _score(path, info, 1.0)
    assert joined.scores.tolist() == whole.scores.tolist()


def test_segments_start_at_keyframes_and_cover_the_video(tmp_path: Path) -> None:
    info = probe(write_video(tmp_path / "video.mp4", SHOTS, gop=10))
    segments = plan_segments(info, segment_s=1.0)
    assert segments[0].start_pts == info.start_pts
    assert segments[-1].end_pts == info.last_pts_end
    for segment, following in itertools.pairwise(segments):
        assert segment.end_pts == following.start_pts
        assert following.start_pts in info.keyframe_pts
        assert (segment.end_pts - segment.start_pts) * info.time_base >= 1
    assert [segment.count for segment in segments] == [len(segments)] * len(segments)


def test_a_video_with_one_keyframe_is_one_segment(tmp_path: Path) -> None:
    info = probe(write_video(tmp_path / "video.mp4", SHOTS, gop=1000))
    assert len(plan_segments(info, segment_s=0.1)) == 1


def test_a_damaged_stretch_costs_its_frames_and_not_the_rest(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mp4", SHOTS, container_options={"movflags": "faststart"})
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + len(data) // 4
    data[start : start + len(data) // 3] = bytes(len(data) // 3)
    path.write_bytes(data)
    info = probe(path)
    parts = [score_segment(path, info, s) for s in plan_segments(info, 0.4)]
    joined = join_scores(parts)
    assert 0 < len(joined.pts) < FRAMES
    assert sum(part.errors for part in parts) > 0
    assert joined.pts[-1] == _score(path, info, 1e9).pts[-1]
    assert np.all(np.diff(joined.pts) > 0)


def test_a_file_of_which_nothing_decodes_is_a_decode_error(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mp4", (20,), container_options={"movflags": "faststart"})
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    data[start:] = bytes(len(data) - start)
    path.write_bytes(data)
    info = probe(path)
    with pytest.raises(MediaError, match="20 packets") as caught:
        _score(path, info, 1e9)
    assert caught.value.reason is MediaReason.DECODE_ERROR
    assert caught.value.stage == "split"


def test_a_missing_segment_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mp4", SHOTS)
    info = probe(path)
    parts = [score_segment(path, info, s) for s in plan_segments(info, 0.4)]
    for wrong in (parts[1:], parts[:-1], [*parts, parts[0]], []):
        with pytest.raises(ValueError, match="segments"):
            join_scores(wrong)


def test_split_in_the_sandbox_finds_the_cuts(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mp4", SHOTS, b_frames=2)
    settings = DecodeSettings(segment_s=1.0)
    with Sandbox(settings) as sandbox:
        info = sandbox.run(probe, path, deadline_s=60)
        scenes = split_video(path, info, SplitByScene(), settings, sandbox)
    assert [(scene.start_frame, scene.end_frame) for scene in scenes] == cut_frames(SHOTS)


def test_rows_have_every_column_and_times_from_the_first_frame(tmp_path: Path) -> None:
    pts = [9000 + 3600 * i for i in range(FRAMES)]
    path = write_video(
        tmp_path / "video.mp4", SHOTS, pts=pts, time_base=Fraction(1, 90000), rotation=90
    )
    info = probe(path)
    joined = _score(path, info, 1e9)
    scenes = detect_scenes(joined.pts, joined.scores, info, RECIPE.split, end_pts=joined.end_pts)
    video = {
        "video_key": "k",
        "video_id": "v",
        "uri": "file:///v.mp4",
        "etag": None,
        "kafka_topic": "t",
        "kafka_partition": 1,
        "kafka_offset": 7,
        "kafka_timestamp": datetime(2026, 1, 1, tzinfo=UTC),
    }
    now = datetime.now(UTC)
    rows = clip_rows(video, info, scenes, recipe=RECIPE, content_sha256="abc", created_at=now)
    assert all(set(row) == set(CLIPS.column_names) for row in rows)
    assert [row["clip_index"] for row in rows] == list(range(len(SHOTS)))
    assert [row["start_s"] for row in rows] == pytest.approx([0, 1.24, 2.12, 3.72, 4.4])
    assert rows[-1]["end_s"] == pytest.approx(FRAMES / 25)
    assert [row["duration_s"] for row in rows] == pytest.approx([n / 25 for n in SHOTS])
    assert [row["duration_ok"] for row in rows] == [True, False, True, False, True]
    assert [row["duration_reject_reason"] for row in rows][:2] == [None, "too_short"]
    assert len({row["clip_id"] for row in rows}) == len(SHOTS)
    assert rows[0]["time_base"] == "1/90000"
    assert (rows[0]["width"], rows[0]["height"], rows[0]["rotation"]) == (320, 180, 90)
    again = clip_rows(video, info, scenes, recipe=RECIPE, content_sha256="abc", created_at=now)
    assert again == rows


def test_times_that_make_no_sense_do_not_stretch_the_deadline(tmp_path: Path) -> None:
    pts = [0, 512, 2**50]
    path = write_video(tmp_path / "v.mkv", (3,), pts=pts, time_base=Fraction(1, 1000))
    info = probe(path)
    assert info.duration_s > 1e6
    (segment,) = plan_segments(info, 1e18)
    assert segment_seconds(info, segment) == info.frame_count
