"""One pass gives all that the stages need, and one clip's trouble is no other clip's."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clip_media import (
    PoisonedSandbox,
    all_frames,
    eat_memory,
    hang,
    panning,
    segfault,
    span,
    spin,
    texture,
)
from media import encode, write_video

from processors.clip_decoder import ClipDecoder, work_seconds
from processors.clip_pass import DecodedClip, DecodePlan
from processors.errors import DependencyFault, MediaError
from processors.frames import MAX_KEYFRAMES, FrameRequest, FrameSampling
from processors.media.probe import probe
from processors.media.sandbox import Sandbox
from processors.motion import MotionParameters
from processors.resize import Stretched
from processors.split import split_video
from schemas.operators import SplitByScene
from schemas.reasons import MediaReason
from schemas.settings import DecodeSettings

KEYFRAMES = FrameSampling("all_keyframes")
PLAN = DecodePlan(
    KEYFRAMES,
    requests=(
        FrameRequest("small", KEYFRAMES, Stretched(32, 24)),
        FrameRequest("even", FrameSampling("uniform", 3), Stretched(48, 48)),
    ),
    motion=MotionParameters(),
)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("decoder") / "video.mp4"
    return encode(path, panning(100, 96, 128, 1), options={"g": "10", "bf": "2"})


@pytest.fixture(scope="module")
def decoder() -> ClipDecoder:
    with Sandbox(DecodeSettings(), modules=PLAN.modules) as sandbox:
        yield ClipDecoder(sandbox, PLAN)


def decoded(result: DecodedClip | MediaError) -> DecodedClip:
    assert isinstance(result, DecodedClip), result
    return result


def test_one_pass_gives_frames_quality_images_and_motion(video: Path, decoder: ClipDecoder) -> None:
    clip = decoded(*decoder.decode(str(video), [span(video, 15, 45)]))
    assert clip.decoded_frames == 30
    # Its first frame, number 15, and the keyframes 20, 30 and 40 of the source.
    assert clip.frame_times_s == pytest.approx([0.6, 0.8, 1.2, 1.6])
    assert len(clip.jpegs) == len(clip.quality) == 4
    assert clip.images["small"].shape == (4, 24, 32, 3)
    assert clip.images["even"].shape == (3, 48, 48, 3)
    assert clip.images["even"].dtype == np.uint8
    assert clip.motion_score is not None
    assert clip.motion_score > 0.5
    assert clip.cpu_s > 0
    assert set(clip.seconds) == {"decode", "frames", "quality", "motion"}
    assert all(seconds >= 0 for seconds in clip.seconds.values())


def test_stored_pictures_are_the_frames_of_their_times(video: Path, decoder: ClipDecoder) -> None:
    clip = decoded(*decoder.decode(str(video), [span(video, 15, 45)]))
    pictures = list(panning(100, 96, 128, 1))
    for time_s, data in zip(clip.frame_times_s, clip.jpegs, strict=True):
        shown = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        distance = [np.abs(p.astype(int) - shown).mean() for p in pictures]
        assert int(np.argmin(distance)) == round(time_s * 25)


def test_each_stage_gets_the_frames_of_its_own_sampling(video: Path, decoder: ClipDecoder) -> None:
    clip = decoded(*decoder.decode(str(video), [span(video, 0, 100)]))
    assert len(clip.frame_times_s) == len(clip.images["small"]) == 10
    assert len(clip.images["even"]) == 3
    first, middle, last = (picture.astype(int) for picture in clip.images["even"])
    assert np.abs(first - middle).mean() > 5
    assert np.abs(middle - last).mean() > 5


def test_a_plan_without_jpeg_and_motion_takes_neither(video: Path) -> None:
    with Sandbox(DecodeSettings()) as sandbox:
        plain = ClipDecoder(sandbox, DecodePlan(KEYFRAMES, jpeg=False))
        clip = decoded(*plain.decode(str(video), [span(video, 0, 20)]))
    assert clip.jpegs == []
    assert clip.motion_score is None
    assert len(clip.quality) == 2


def test_a_clip_of_one_frame(video: Path, decoder: ClipDecoder) -> None:
    clip = decoded(*decoder.decode(str(video), [span(video, 33, 34)]))
    assert clip.frame_times_s == pytest.approx([33 / 25])
    assert len(clip.images["even"]) == 1
    assert clip.motion_score == -1.0


def test_many_clips_come_back_in_order(video: Path, decoder: ClipDecoder) -> None:
    spans = [span(video, start, start + 5) for start in range(0, 100, 5)]
    clips = [decoded(result) for result in decoder.decode(str(video), spans)]
    assert [clip.frame_times_s[0] for clip in clips] == pytest.approx(
        [start / 25 for start in range(0, 100, 5)]
    )
    assert {clip.decoded_frames for clip in clips} == {5}


def test_where_every_frame_is_a_keyframe_the_number_kept_is_bounded(
    tmp_path: Path, decoder: ClipDecoder
) -> None:
    pictures = [texture(48, 64, seed=n % 7) for n in range(2 * MAX_KEYFRAMES + 40)]
    path = encode(tmp_path / "intra.mov", pictures, codec="mjpeg", pixel_format="yuvj420p")
    clip = decoded(*decoder.decode(str(path), [span(path, 0, len(pictures))]))
    assert MAX_KEYFRAMES / 2 <= len(clip.jpegs) <= MAX_KEYFRAMES
    assert clip.frame_times_s[0] == 0
    assert clip.frame_times_s[-1] > 0.95 * len(pictures) / 25


def test_a_clip_without_frames_costs_itself_only(tmp_path: Path, decoder: ClipDecoder) -> None:
    path = encode(tmp_path / "v.mp4", panning(30, 64, 96, 1), options={"g": "10"})
    good = span(path, 0, 10)
    empty = replace(good, start_pts=good.end_pts * 50, end_pts=good.end_pts * 51, start_s=20.0)
    first, second, third = decoder.decode(str(path), [good, empty, span(path, 20, 30)])
    assert decoded(first).decoded_frames == 10
    assert isinstance(second, MediaError)
    assert second.reason is MediaReason.NO_FRAMES
    assert "from 20.000 s" in second.error
    assert second.stage == "decode"
    assert decoded(third).decoded_frames == 10


def test_damaged_packets_cost_no_more_than_their_frames(
    tmp_path: Path, decoder: ClipDecoder
) -> None:
    path = encode(tmp_path / "v.mp4", panning(60, 96, 128, 1), options={"g": "10", "bf": "0"})
    spans = [span(path, start, start + 20) for start in (0, 20, 40)]
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 8
    rng = np.random.default_rng(1)
    size = data.index(b"moov") - 4 - start if data.find(b"moov") > start else len(data) - start
    middle = slice(start + size * 2 // 5, start + size // 2)
    data[middle] = rng.bytes(middle.stop - middle.start)
    path.write_bytes(data)
    first, second, third = decoder.decode(str(path), spans)
    assert decoded(first).decoded_frames == 20
    assert isinstance(second, MediaError) or second.decoded_frames <= 20
    assert decoded(third).decoded_frames == 20


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        (os.abort, MediaReason.DECODER_CRASHED),
        (segfault, MediaReason.DECODER_CRASHED),
        (hang, MediaReason.DECODER_TIMEOUT),
        (spin, MediaReason.DECODER_TIMEOUT),
        (eat_memory, MediaReason.OUT_OF_MEMORY),
    ],
)
def test_a_clip_that_kills_the_decoder_costs_itself_only(
    way: Callable[[], object], reason: MediaReason, video: Path
) -> None:
    spans = [span(video, start, start + 10) for start in range(0, 100, 10)]
    # What hangs does so twice, and what does not has all the time that it is given otherwise.
    deadline = {"deadline_base_s": 10.0} if reason is MediaReason.DECODER_TIMEOUT else {}
    limits = DecodeSettings(memory_bytes=256 * 2**20, **deadline)
    with PoisonedSandbox(limits, spans[3].start_pts, way=way) as sandbox:
        results = ClipDecoder(sandbox, PLAN).decode(str(video), spans)
    for index, result in enumerate(results):
        if index == 3:
            assert isinstance(result, MediaError)
            assert result.reason is reason
        else:
            assert decoded(result).frame_times_s[0] == pytest.approx(index * 0.4)


def test_an_accident_that_does_not_come_back_blames_no_clip(video: Path, tmp_path: Path) -> None:
    marker = tmp_path / "once"
    marker.touch()
    wanted = span(video, 10, 20)
    with PoisonedSandbox(DecodeSettings(), wanted.start_pts, marker) as sandbox:
        (result,) = ClipDecoder(sandbox, PLAN).decode(str(video), [wanted])
    assert not marker.exists()
    assert decoded(result).decoded_frames == 10


def test_larger_pictures_and_closer_sampling_get_more_time(video: Path) -> None:
    small = replace(span(video, 10, 60), width=640, height=360)
    large = replace(small, width=1920, height=1080)
    closely = replace(PLAN, motion=MotionParameters(sampling_fps=8))
    assert work_seconds(small, PLAN) == pytest.approx(2.4)
    assert work_seconds(large, PLAN) == pytest.approx(2.4 * 1920 * 1080 / (854 * 480))
    assert work_seconds(small, closely) == pytest.approx(0.4 + 4 * 2)


def test_a_clip_that_takes_too_much_memory_is_said_to(tmp_path: Path) -> None:
    path = encode(
        tmp_path / "large.mp4",
        [texture(64, 64).repeat(56, 0).repeat(72, 1)] * 3,
        options={"preset": "ultrafast"},
    )
    limits = DecodeSettings(memory_bytes=64 * 2**20)
    with Sandbox(limits, modules=PLAN.modules) as sandbox:
        (result,) = ClipDecoder(sandbox, PLAN).decode(str(path), [span(path, 0, 3)])
    assert isinstance(result, MediaError)
    assert result.reason is MediaReason.OUT_OF_MEMORY


def test_a_clip_that_takes_too_long_is_said_to(tmp_path: Path) -> None:
    path = encode(tmp_path / "long.mp4", [texture(720, 960)] * 120, options={"preset": "ultrafast"})
    limits = DecodeSettings(deadline_base_s=0.3, deadline_per_video_second_s=0.01)
    plan = DecodePlan(KEYFRAMES, motion=MotionParameters(sampling_fps=25))
    with Sandbox(limits, modules=plan.modules) as sandbox:
        (result,) = ClipDecoder(sandbox, plan).decode(str(path), [span(path, 0, 120)])
    assert isinstance(result, MediaError)
    assert result.reason is MediaReason.DECODER_TIMEOUT


@pytest.mark.parametrize("tag", [8, 10, 14])
def test_an_unusual_colour_tag_changes_neither_cuts_nor_clips(
    tmp_path: Path, tag: int, decoder: ClipDecoder
) -> None:
    found = []
    for name, colorspace in (("plain.mp4", None), ("tagged.mp4", tag)):
        path = write_video(tmp_path / name, (30, 30), colorspace=colorspace)
        settings = DecodeSettings()
        with Sandbox(settings) as sandbox:
            info = sandbox.run(probe, path, deadline_s=60)
            scenes = split_video(path, info, SplitByScene(), settings, sandbox)
        spans = [span(path, scene.start_frame, scene.end_frame) for scene in scenes]
        clips = [decoded(result) for result in decoder.decode(str(path), spans)]
        found.append((scenes, [(clip.jpegs, clip.motion_score) for clip in clips]))
    with av.open(str(path)) as container:
        assert int(next(container.decode(video=0)).colorspace) == tag
    assert len(found[0][0]) == 2
    assert found[0] == found[1]


def test_a_file_that_is_no_video_fails_every_clip(tmp_path: Path, decoder: ClipDecoder) -> None:
    path = encode(tmp_path / "v.mp4", panning(20, 64, 96, 1))
    spans = [span(path, 0, 10), span(path, 10, 20)]
    assert len(all_frames(path)) == 20
    path.write_bytes(b"no video at all" * 100)
    results = decoder.decode(str(path), spans)
    assert [r.reason for r in results if isinstance(r, MediaError)] == [MediaReason.NOT_A_VIDEO] * 2


def test_a_decoder_that_cannot_start_blames_no_clip(
    video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with (
        Sandbox(DecodeSettings()) as sandbox,
        pytest.raises(DependencyFault, match="the decoder's process cannot run"),
    ):
        ClipDecoder(sandbox, PLAN).decode(str(video), [span(video, 0, 10)])
