"""Cuts and scores are those of PySceneDetect, run by its own API with its defaults."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scenedetect
from scenedetect.stats_manager import StatsManager

from processors.errors import MediaError
from processors.scenes import detect_scenes
from schemas.operators import SplitByScene
from schemas.reasons import MediaReason
from tests.media import cut_frames, sample, write_video
from tests.scene_parity import all_scores, assert_same_cuts, scenes_of

# Scenes shorter and longer than min_scene_len, flashes, and lengths right at the limit.
SHOTS = (40, 7, 30, 3, 3, 40, 20, 14, 15, 16, 50)
FRAMES = sum(SHOTS)
_STEPS = np.random.default_rng(7).choice([300, 400, 900, 1500, 3003], FRAMES)
UNEVEN = [0, *np.cumsum(_STEPS[:-1]).tolist()]

GENERATED: dict[str, dict[str, Any]] = {
    "plain.mp4": {},
    "b_frames.mp4": {"b_frames": 3},
    "open_gop.mp4": {"b_frames": 3, "open_gop": True},
    "open_gop.mkv": {"b_frames": 3, "open_gop": True},
    "open_gop.ts": {"b_frames": 3, "open_gop": True},
    "uneven.mp4": {"pts": UNEVEN, "time_base": Fraction(1, 90000)},
    "uneven_b_frames.mp4": {
        "pts": UNEVEN,
        "time_base": Fraction(1, 90000),
        "b_frames": 3,
        "open_gop": True,
    },
    "uneven.mkv": {"pts": UNEVEN, "time_base": Fraction(1, 1000), "b_frames": 2},
    "rotated_90.mp4": {"rotation": 90, "size": (640, 360)},
    "rotated_180.mp4": {"rotation": 180},
    "rotated_270.mp4": {"rotation": 270},
    "ntsc.mp4": {"fps": Fraction(30000, 1001)},
    "film.mkv": {"fps": Fraction(24000, 1001), "b_frames": 2},
    "slow.mp4": {"fps": 1},
    "fragmented.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "late_start.mp4": {
        "pts": [5000 + 1000 * i for i in range(FRAMES)],
        "time_base": Fraction(1, 25000),
    },
    "bt709.mp4": {"colorspace": 1},
    "full_range.mp4": {"colorspace": 1, "color_range": 2},
    "ten_bit.mp4": {"pixel_format": "yuv420p10le"},
    "odd_size.mp4": {"codec": "mpeg4", "size": (427, 239)},
    "mpeg4.avi": {"codec": "mpeg4"},
    "h264_b_frames.avi": {"b_frames": 2},
    "mpeg2.mpg": {"codec": "mpeg2video", "b_frames": 2},
    "large.mp4": {"size": (1280, 720), "shots": (20, 20, 20)},
    "tiny.mp4": {"size": (64, 48)},
    "width_256.mp4": {"size": (256, 144)},
    "one_frame.mp4": {"shots": (1,)},
    "two_frames.mp4": {"shots": (1, 1)},
    "cut_at_last_frame.mp4": {"shots": (40, 1)},
    "cuts_in_last_frames.mp4": {"shots": (40, 20, 5, 2)},
    "first_cut_too_early.mp4": {"shots": (14, 30)},
    "first_cut_just_in_time.mp4": {"shots": (15, 30)},
}


@pytest.mark.parametrize("name", GENERATED)
def test_generated_videos_are_cut_as_pyscenedetect_cuts_them(name: str, tmp_path: Path) -> None:
    options = {"shots": SHOTS, **GENERATED[name]}
    assert_same_cuts(write_video(tmp_path / name, **options))


@pytest.mark.parametrize("name", ["bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4"])
def test_real_clips_are_cut_as_pyscenedetect_cuts_them(name: str) -> None:
    assert_same_cuts(sample(name))


@pytest.mark.parametrize("threshold", [5.0, 15.0, 40.0])
@pytest.mark.parametrize("min_scene_len", [0, 1, 40])
def test_threshold_and_length_mean_the_same(threshold: float, min_scene_len: int) -> None:
    assert_same_cuts(sample("bikes.mp4"), threshold=threshold, min_scene_len=min_scene_len)


@pytest.mark.parametrize("options", [{}, {"rotation": 90}, {"b_frames": 3}, {"colorspace": 1}])
def test_scores_are_equal_to_the_last_bit(options: dict[str, Any], tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mp4", (20, 20, 5), size=(640, 360), **options)
    _, joined = all_scores(path)
    manager = scenedetect.SceneManager(StatsManager())
    manager.add_detector(scenedetect.ContentDetector())
    video = scenedetect.open_video(str(path))
    manager.detect_scenes(video)
    base = video.base_timecode
    theirs = [
        manager.stats_manager.get_metrics(base + frame, ["content_val"])[0]
        for frame in range(1, len(joined.pts))
    ]
    assert joined.scores[0] == 0
    assert joined.scores[1:].tolist() == theirs


def test_cuts_known_by_construction_are_found(tmp_path: Path) -> None:
    shots = (30, 25, 60, 16)
    info, joined = all_scores(write_video(tmp_path / "video.mp4", shots, b_frames=2))
    scenes = scenes_of(info, joined)
    assert [(scene.start_frame, scene.end_frame) for scene in scenes] == cut_frames(shots)


def test_scenes_follow_each_other_without_gap_to_the_end(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mp4", SHOTS, pts=UNEVEN, time_base=Fraction(1, 90000))
    info, joined = all_scores(path)
    scenes = scenes_of(info, joined)
    assert scenes[0].start_pts == joined.pts[0]
    assert scenes[-1].end_pts == joined.end_pts == info.last_pts_end
    assert scenes[-1].end_frame == FRAMES
    for scene, following in itertools.pairwise(scenes):
        assert scene.end_pts == following.start_pts > scene.start_pts
        assert scene.end_frame == following.start_frame


def test_a_video_without_a_cut_is_one_scene(tmp_path: Path) -> None:
    info, joined = all_scores(write_video(tmp_path / "video.mp4", (30,)))
    assert [(s.start_frame, s.end_frame) for s in scenes_of(info, joined)] == [(0, 30)]


def test_no_frames_is_an_error_not_an_empty_list(tmp_path: Path) -> None:
    info, _ = all_scores(write_video(tmp_path / "video.mp4", (5,)))
    with pytest.raises(MediaError) as caught:
        detect_scenes(np.array([], np.int64), np.array([]), info, SplitByScene())
    assert caught.value.reason is MediaReason.NO_FRAMES


def test_frames_that_share_a_time_give_no_empty_scene(tmp_path: Path) -> None:
    info, _ = all_scores(write_video(tmp_path / "video.mp4", (5,)))
    pts = np.array([0, 512, 512, 512, 1024])
    scores = np.array([0.0, 0.0, 0.0, 90.0, 90.0])
    scenes = detect_scenes(pts, scores, info, SplitByScene(min_scene_len=0), end_pts=1536)
    assert [(s.start_pts, s.end_pts) for s in scenes] == [(0, 512), (512, 1024), (1024, 1536)]
