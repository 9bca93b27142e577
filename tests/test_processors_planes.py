"""Frames read from their planes score what they score by way of BGR, to the last bit."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange

from processors.media import planes
from processors.media.pixels import BgrConverter
from processors.media.planes import Kind, random_frame
from processors.media.scoring import FrameScorer, analysis_size
from tests.media import sample

SIZES = [
    *((640, 272), (640, 360), (854, 480), (1280, 720), (1920, 1080)),
    *((176, 144), (255, 254), (256, 256), (257, 2), (300, 170), (513, 288)),
    *((1080, 1920), (3, 2), (3, 400), (5, 1000), (177, 144)),
]
MATRICES = range(11)


class ByBgr(FrameScorer):
    """Scores by way of BGR whatever the frame."""

    def _reader_for(self, frame: VideoFrame) -> None:
        return None


class ByPlanes(FrameScorer):
    """Scores from planes, and nothing else."""

    def _read_bgr(self, frame: VideoFrame, hsv: planes.Hsv) -> None:
        size = (hsv.shape[2], hsv.shape[1])
        reader = planes.PlaneReader(kind_of(frame), size, self._rotation)
        reader.read(frame, hsv)


def kind_of(frame: VideoFrame) -> Kind:
    kind = Kind.of(frame)
    assert kind is not None
    return kind


def scores(scorer: FrameScorer, frames: list[VideoFrame]) -> list[float]:
    return [scorer.score(frame) for frame in frames]


def decoded(name: str) -> list[VideoFrame]:
    with av.open(str(sample(name))) as container:
        return list(itertools.islice(container.decode(video=0), 60))


def pictures_of(kind: Kind, rotation: int = 0) -> Iterator[planes.Hsv]:
    """One random frame in HSV: from its planes, and by way of BGR."""
    width, height = analysis_size(kind.width, kind.height)
    frame = random_frame(kind)
    assert Kind.of(frame) == kind
    for scorer in (ByPlanes(rotation), ByBgr(rotation)):
        scorer.score(frame)
        hsv = np.empty((3, height, width), np.uint8)
        scorer._read_bgr(frame, hsv)
        yield hsv


@pytest.mark.parametrize("size", SIZES, ids="{0[0]}x{0[1]}".format)
@pytest.mark.parametrize("full_range", [False, True], ids=["limited", "full"])
def test_pixels_of_any_size_are_the_same(size: tuple[int, int], full_range: bool) -> None:
    ours, theirs = pictures_of(Kind("yuv420p", *size, 1, full_range))
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("size", SIZES, ids="{0[0]}x{0[1]}".format)
@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_turned_pixels_are_the_same(size: tuple[int, int], rotation: int) -> None:
    ours, theirs = pictures_of(Kind("yuv420p", *size, 1, False), rotation)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize(
    ("name", "full_range"), [("yuv420p", False), ("yuv420p", True), ("yuvj420p", True)]
)
def test_pixels_of_any_colour_matrix_are_the_same(name: str, matrix: int, full_range: bool) -> None:
    ours, theirs = pictures_of(Kind(name, 322, 180, matrix, full_range))
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    "name", ["bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4"], ids=str
)
def test_scores_of_real_clips_are_the_same(name: str) -> None:
    frames = decoded(name)
    found = scores(FrameScorer(0), frames)
    assert found == scores(ByBgr(0), frames) == scores(ByPlanes(0), frames)
    assert len(set(found)) > 50


def test_a_video_may_change_its_format_on_the_way() -> None:
    frames = [
        *decoded("bikes.mp4")[:4],
        *(frame.reformat(format="yuv444p") for frame in decoded("bikes.mp4")[4:8]),
        *(frame.reformat(width=320, height=136) for frame in decoded("bikes.mp4")[8:12]),
        *decoded("bikes.mp4")[12:16],
    ]
    assert scores(FrameScorer(0), frames) == scores(ByBgr(0), frames)


@pytest.mark.parametrize(
    ("name", "width", "height"),
    [
        ("yuv420p", 320, 181),
        ("yuv420p", 2, 400),
        ("yuv422p", 320, 180),
        ("yuv444p", 320, 180),
        ("yuv420p10le", 320, 180),
        ("yuva420p", 320, 180),
        ("nv12", 320, 180),
        ("gray", 320, 180),
        ("rgb24", 320, 180),
    ],
)
def test_other_frames_take_the_way_over_bgr(name: str, width: int, height: int) -> None:
    assert Kind.of(VideoFrame(width, height, name)) is None


def test_range_and_matrix_are_those_that_the_frame_states() -> None:
    frame = VideoFrame(320, 180, "yuv420p")
    frame.colorspace, frame.color_range = 9, ColorRange.JPEG
    assert Kind.of(frame) == Kind("yuv420p", 320, 180, 9, True)


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_turned_videos_score_as_they_are_shown(rotation: int) -> None:
    frames = decoded("bikes.mp4")[:10]
    convert = BgrConverter(rotation)
    upright = [VideoFrame.from_ndarray(convert(frame), format="bgr24") for frame in frames]
    assert scores(FrameScorer(rotation), frames) == scores(ByBgr(0), upright)


def test_where_libswscale_rounds_otherwise_its_pixels_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As it may on another processor: nothing but a trial tells."""
    frames = decoded("bikes.mp4")[:10]
    expected = scores(ByBgr(0), frames)
    coefficients = planes._coefficients

    def other(matrix: int, full_range: bool) -> tuple[int, ...]:
        luma, *rest = coefficients(matrix, full_range)
        return luma + 1, *rest

    monkeypatch.setattr(planes, "_coefficients", other)
    assert scores(ByPlanes(0), frames) != expected
    assert scores(FrameScorer(0), frames) == expected
