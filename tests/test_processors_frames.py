"""Which frames are sampled, and that their pixels are the ones a viewer sees."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clip_media import texture
from media import encode

from processors.frames import (
    FrameSampling,
    KeyframeSampler,
    Sampler,
    encode_jpeg,
    to_luma,
)
from processors.media.pixels import BgrConverter
from processors.resize import Stretched

to_bgr = BgrConverter()


def taken(sampler: Sampler, offsets: Sequence[int], keys: Sequence[int] = ()) -> list[int]:
    """Indices of the frames that a sampler takes, in order, thinned as it asks for."""
    indices: list[int] = []
    for index, offset in enumerate(offsets):
        if sampler.take(offset, index in keys):
            indices.append(index)
            while sampler.thin(len(indices)):
                del indices[1::2]
    if sampler.take_last():
        indices.append(len(offsets) - 1)
    return indices


def datajuicer_uniform(offsets: Sequence[int], duration: int, wanted: int) -> list[int]:
    """DataJuicer's uniform sampling, written down plainly for a clip with one keyframe."""
    wanted = min(wanted, len(offsets))
    if wanted == 1:
        times = [Fraction(duration, 2)]
    else:
        times = [Fraction(duration, wanted - 1) * i for i in range(wanted)]
    chosen: list[int] = []
    for index, offset in enumerate(offsets):
        if len(chosen) < len(times) and offset >= times[len(chosen)]:
            chosen.append(index)
    return chosen if len(chosen) == len(times) else [*chosen, len(offsets) - 1]


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 7, 50, 101])
@pytest.mark.parametrize("wanted", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("tick", [1, 512, 1001])
def test_uniform_sampling_takes_datajuicers_frames(frames: int, wanted: int, tick: int) -> None:
    offsets = [index * tick for index in range(frames)]
    sampler = FrameSampling("uniform", wanted).sampler(frames * tick, frames)
    assert taken(sampler, offsets) == datajuicer_uniform(offsets, frames * tick, wanted)


def test_uniform_sampling_of_uneven_frames() -> None:
    offsets = [0, 1, 2, 3, 90, 91, 95]
    sampler = FrameSampling("uniform", 3).sampler(100, 7)
    assert taken(sampler, offsets) == [0, 4, 6]


def test_uniform_sampling_without_a_frame_count_still_gives_at_least_a_frame() -> None:
    assert taken(FrameSampling("uniform", 3).sampler(40, None), [0]) == [0, 0]


def test_keyframes_are_the_first_frame_and_those_of_the_source() -> None:
    sampler = FrameSampling("all_keyframes").sampler(100, 10)
    assert taken(sampler, range(10), keys=[4, 9]) == [0, 4, 9]


def test_a_first_frame_that_is_a_keyframe_counts_once() -> None:
    assert taken(KeyframeSampler(), range(10), keys=[0, 5]) == [0, 5]


def test_too_many_keyframes_are_thinned_evenly() -> None:
    indices = taken(KeyframeSampler(limit=8), range(1000), keys=range(1000))
    assert indices[0] == 0
    assert 4 <= len(indices) <= 8
    assert len(set(np.diff(indices))) == 1
    assert indices[-1] > 800


def opencv_first(path: Path) -> np.ndarray:
    capture = cv2.VideoCapture(str(path))
    read, picture = capture.read()
    capture.release()
    assert read
    return picture


def first_frame(path: Path) -> av.VideoFrame:
    with av.open(str(path)) as container:
        return next(container.decode(video=0))


@pytest.mark.parametrize(
    ("colorspace", "color_range", "pixel_format"),
    [
        (2, 0, "yuv420p"),
        (1, 1, "yuv420p"),
        (1, 2, "yuv420p"),
        (6, 1, "yuv420p"),
        (9, 1, "yuv420p10le"),
        (1, 1, "yuv444p"),
    ],
)
def test_pixels_are_opencvs_whatever_the_colour_tags(
    tmp_path: Path, colorspace: int, color_range: int, pixel_format: str
) -> None:
    path = encode(
        tmp_path / "tagged.mp4",
        [texture(90, 160)] * 3,
        pixel_format=pixel_format,
        colorspace=colorspace,
        color_range=color_range,
    )
    frame = first_frame(path)
    assert int(frame.colorspace) == colorspace
    assert np.array_equal(to_bgr(frame), opencv_first(path))


def test_colours_come_back_as_they_were_encoded(tmp_path: Path) -> None:
    picture = np.full((64, 64, 3), (200, 60, 30), dtype=np.uint8)
    untagged = encode(tmp_path / "orange.mp4", [picture] * 3)
    bgr = to_bgr(first_frame(untagged))
    assert np.abs(bgr[..., ::-1].astype(int) - picture).max() <= 4


def test_raw_pictures_with_padded_rows_are_opencvs(tmp_path: Path) -> None:
    path = encode(
        tmp_path / "raw.avi", [texture(47, 63)] * 2, codec="rawvideo", pixel_format="bgr24"
    )
    assert np.array_equal(to_bgr(first_frame(path)), opencv_first(path))


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_pictures_are_upright(tmp_path: Path, degrees: int) -> None:
    path = encode(tmp_path / "turned.mp4", [texture(90, 160)] * 3, rotation=degrees)
    bgr = to_bgr(first_frame(path))
    assert np.array_equal(bgr, opencv_first(path))
    assert bgr.shape[:2] == ((90, 160) if degrees == 180 else (160, 90))


@pytest.mark.parametrize("tag", [3, 8, 12, 14, 99])
def test_a_colour_tag_that_nobody_can_convert_costs_no_clip(tag: int) -> None:
    frame = av.VideoFrame.from_ndarray(texture(32, 48), format="rgb24").reformat(format="yuv420p")
    plain = to_bgr(frame)
    frame.colorspace = tag
    assert np.array_equal(to_bgr(frame), plain)


def test_model_pictures_are_rgb_of_the_size_asked_for() -> None:
    blue = np.zeros((120, 200, 3), dtype=np.uint8)
    blue[..., 2] = 250
    small = Stretched(64, 48)(blue)
    assert small.shape == (48, 64, 3)
    assert small.dtype == np.uint8
    assert small[..., 2].min() >= 248
    assert small[..., :2].max() <= 2


def test_making_a_picture_smaller_averages_instead_of_picking() -> None:
    stripes = np.zeros((256, 256, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    small = Stretched(32, 32)(stripes)
    assert np.abs(small[4:-4, 4:-4].astype(int) - 127).max() <= 6


def test_stored_frames_look_like_the_decoded_ones() -> None:
    bgr = texture(90, 160)
    data = encode_jpeg(bgr)
    assert data[:2] == b"\xff\xd8"
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(to_luma(decoded).astype(int) - to_luma(bgr)).mean() < 2
