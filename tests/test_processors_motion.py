"""Motion scores: known displacements, and DataJuicer's algorithm on a file of just the clip."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clip_media import all_frames, cut_losslessly, panning, span, texture
from media import encode, sample, write_video

from processors.clip_pass import DecodePlan, decode_clips
from processors.clip_reader import ClipReader
from processors.errors import MediaError
from processors.frames import FrameSampling
from processors.media.pixels import BgrConverter
from processors.media.reader import FrameReader
from processors.motion import MotionMeter, MotionParameters, resized, sampling_step


def datajuicer_score(path: Path, sampling_fps: float = 2, relative: bool = False) -> float:
    """DataJuicer's published algorithm, run by OpenCV on a file of its own."""
    capture = cv2.VideoCapture(str(path))
    fps = capture.get(cv2.CAP_PROP_FPS)
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    step = max(min(round(fps / min(sampling_fps, fps)), count - 1), 1)
    scores, before, position = [], None, 0
    while True:
        read, picture = capture.read()
        if not read:
            break
        luma = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
        if before is not None:
            flow = cv2.calcOpticalFlowFarneback(before, luma, None, 0.5, 3, 15, 3, 5, 1.2, 0)
            length = np.mean(cv2.cartToPolar(flow[..., 0], flow[..., 1])[0])
            scores.append(float(length / np.hypot(*luma.shape) if relative else length))
            position += step
            capture.set(cv2.CAP_PROP_POS_FRAMES, position)
        before = luma
    capture.release()
    return float(np.mean(scores or [-1]))


def our_score(
    path: Path, start: int, end: int, parameters: MotionParameters | None = None
) -> float:
    plan = DecodePlan(FrameSampling(), jpeg=False, motion=parameters or MotionParameters())
    (clip,) = decode_clips(str(path), (span(path, start, end),), plan)
    assert not isinstance(clip, MediaError), clip
    assert clip.motion_score is not None
    return clip.motion_score


def metered(
    pictures: Iterable[np.ndarray], fps: float, parameters: MotionParameters | None = None
) -> float:
    meter = MotionMeter(parameters or MotionParameters(), fps)
    index = -1
    for index, picture in enumerate(pictures):
        if meter.wants(index):
            meter.add(index, picture)
    if meter.wants_last(index):
        meter.add_last(picture)
    return meter.score()


@pytest.mark.parametrize(
    ("name", "start", "end"),
    [
        ("bikes.mp4", 76, 137),
        ("bikes.mp4", 187, 242),
        ("carphone_pristine.mp4", 10, 70),
        ("carphone_pristine.mp4", 0, 9),
        ("carphone_pristine.mp4", 3, 5),
        ("carphone_pristine.mp4", 3, 4),
    ],
)
def test_a_virtual_clip_scores_as_datajuicer_scores_its_file(
    tmp_path: Path, name: str, start: int, end: int
) -> None:
    path = sample(name)
    alone = cut_losslessly(path, tmp_path / "clip.mp4", start, end)
    assert our_score(path, start, end) == pytest.approx(datajuicer_score(alone), abs=1e-9)


@pytest.mark.parametrize(("fps", "sampling_fps"), [(1, 2), (2, 2), (3, 2), (10, 3), (24, 24)])
def test_any_sampling_rate_scores_as_datajuicer_does(
    tmp_path: Path, fps: int, sampling_fps: float
) -> None:
    path = encode(tmp_path / "pan.mp4", panning(25, 96, 128, 2), fps=fps)
    ours = our_score(path, 0, 25, MotionParameters(sampling_fps=sampling_fps))
    assert ours == pytest.approx(datajuicer_score(path, sampling_fps), abs=1e-9)


def test_relative_scores_are_shares_of_the_diagonal(tmp_path: Path) -> None:
    path = encode(tmp_path / "pan.mp4", panning(30, 96, 128, 2))
    ours = our_score(path, 0, 30, MotionParameters(relative=True))
    assert ours == pytest.approx(datajuicer_score(path, relative=True), abs=1e-9)
    assert ours == pytest.approx(our_score(path, 0, 30) / np.hypot(96, 128))


def test_a_still_picture_does_not_move() -> None:
    assert metered([texture(96, 128)] * 40, fps=25) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("pixels", [1, 2, 4])
def test_a_pan_scores_about_its_speed(pixels: int) -> None:
    # At two frames a second every pair is one frame apart here.
    score = metered(panning(12, 160, 240, pixels), fps=2)
    pairs = [pixels, 0, *[pixels] * 10]
    assert score == pytest.approx(np.mean(pairs), rel=0.15)


def test_a_single_frame_scores_below_any_threshold() -> None:
    assert metered([texture(96, 128)], fps=25) == -1.0


def test_frames_0_1_step_and_its_multiples_are_measured() -> None:
    meter = MotionMeter(MotionParameters(), fps=25)
    assert [index for index in range(60) if meter.wants(index)] == [0, 1, 12, 24, 36, 48]


@pytest.mark.parametrize(
    ("fps", "step"), [(25, 12), (24, 12), (29.97, 15), (60, 30), (2, 1), (1, 1), (0, 1), (3, 2)]
)
def test_the_step_rounds_as_datajuicer_does(fps: float, step: int) -> None:
    assert sampling_step(fps, 2) == step


def test_an_unknown_rate_is_no_crash() -> None:
    assert sampling_step(float("nan"), 2) == 1


@pytest.mark.parametrize(
    ("size", "max_size", "divisible", "expected"),
    [
        (None, None, 1, (360, 640)),
        (180, None, 1, (180, 320)),
        (180, 200, 1, (112, 200)),
        (None, 64, 1, (36, 64)),
        (180, None, 32, (160, 320)),
        (8, None, 32, (32, 32)),
    ],
)
def test_resized_pictures_keep_their_shape(
    size: int | None, max_size: int | None, divisible: int, expected: tuple[int, int]
) -> None:
    assert resized(360, 640, size, max_size, divisible) == expected
    assert resized(640, 360, size, max_size, divisible) == expected[::-1]


def test_smaller_pictures_move_by_fewer_pixels() -> None:
    full = metered(panning(12, 160, 240, 4), fps=2)
    half = metered(panning(12, 160, 240, 4), fps=2, parameters=MotionParameters(size=80))
    assert half == pytest.approx(full / 2, rel=0.25)


def test_a_stream_that_changes_its_size_is_measured_on_the_first_ones() -> None:
    pictures = [texture(96, 128)] * 2 + [cv2.resize(texture(96, 128), (256, 192))] * 2
    assert metered(pictures, fps=2) < 2


def test_uneven_frames_are_sampled_at_the_rate_that_opencv_reports(tmp_path: Path) -> None:
    steps = np.random.default_rng(7).choice([1, 2001], 89)
    path = write_video(
        tmp_path / "uneven.mp4", (90,), pts=[0, *np.cumsum(steps)], time_base=Fraction(1, 90000)
    )
    with av.open(str(path)) as container:
        assert container.streams.video[0].guessed_rate == 90000
    reported = cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FPS)
    assert reported < 100
    with ClipReader(str(path)) as reader:
        assert reader.fps == reported
    pictures = [BgrConverter()(frame).copy() for _, frame in FrameReader(path).frames()]
    assert our_score(path, 0, 90) == metered(pictures, fps=reported)


def test_a_rotated_video_scores_as_opencv_sees_it(tmp_path: Path) -> None:
    path = encode(tmp_path / "turned.mp4", panning(30, 96, 128, 2), rotation=90)
    assert our_score(path, 0, len(all_frames(path))) == pytest.approx(
        datajuicer_score(path), abs=1e-9
    )
