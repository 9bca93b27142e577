"""Farneback's flow: OpenCV's own function gives the same, of any size and content."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from media import sample
from numpy.typing import NDArray

from processors.farneback import FarnebackFlow
from processors.motion import MotionMeter, MotionParameters

Luma = NDArray[np.uint8]
ROOT = Path(__file__).resolve().parents[1]


def by_opencv(before: Luma, after: Luma) -> NDArray[np.float32]:
    return cv2.calcOpticalFlowFarneback(before, after, None, 0.5, 3, 15, 3, 5, 1.2, 0)


def mean_length(x: NDArray[np.float32], y: NDArray[np.float32]) -> float:
    return float(np.mean(np.hypot(x.astype(np.float64), y)))


def assert_as_opencv(pictures: Sequence[Luma]) -> None:
    ours = FarnebackFlow()
    assert ours.add(pictures[0]) is None
    for before, after in pairwise(pictures):
        flow, expected = ours.add(after), by_opencv(before, after)
        assert flow is not None
        assert flow.shape == (2, *after.shape)
        length = mean_length(flow[0], flow[1])
        assert length == pytest.approx(mean_length(expected[..., 0], expected[..., 1]), abs=1e-6)
        # Single pixels may differ more: without structure, rounding decides where they go.
        assert np.mean(np.abs(flow - np.moveaxis(expected, -1, 0))) < 1e-6


def noise(height: int, width: int, seed: int = 0) -> Luma:
    return np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)


def frames_of(name: str) -> list[NDArray[np.uint8]]:
    with av.open(str(sample(name))) as container:
        return [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]


def filmed(name: str, count: int = 4, size: tuple[int, int] | None = None) -> list[Luma]:
    """Every tenth frame of a sample, at ``size`` (width, height)."""
    pictures = [cv2.cvtColor(f, cv2.COLOR_BGR2GRAY) for f in frames_of(name)[::10]]
    if size is not None:
        pictures = [cv2.resize(p, size, interpolation=cv2.INTER_AREA) for p in pictures]
    return pictures[:count]


@pytest.mark.parametrize("name", ["bikes.mp4", "carphone_pristine.mp4"])
def test_filmed_pictures_flow_as_in_opencv(name: str) -> None:
    assert_as_opencv(filmed(name))


@pytest.mark.parametrize(
    "size",
    # Around those that decide: 64 for a second level, 10 for the faded border, 15 for the window.
    [
        *((427, 239), (128, 64), (127, 65), (63, 64), (65, 33), (31, 200), (16, 15), (11, 10)),
        *((10, 11), (9, 9), (9, 40), (40, 7), (8, 8), (3, 5), (300, 2), (1, 1), (1, 30)),
    ],
    ids=lambda size: f"{size[0]}x{size[1]}",
)
def test_pictures_of_any_size_flow_as_in_opencv(size: tuple[int, int]) -> None:
    assert_as_opencv(filmed("carphone_pristine.mp4", size=size))


def test_what_has_no_structure_flows_as_in_opencv() -> None:
    flat, white = np.zeros((70, 90), np.uint8), np.full((70, 90), 255, np.uint8)
    ramp = np.tile(np.arange(90, dtype=np.uint8), (70, 1))
    assert_as_opencv([flat, white, flat, ramp, np.ascontiguousarray(ramp[:, ::-1])])


def test_noise_and_leaps_out_of_the_picture_flow_as_in_opencv() -> None:
    still = noise(96, 130)
    assert_as_opencv([still, np.roll(still, 40, axis=1), noise(96, 130, seed=1), 255 - still])


def test_a_repeated_picture_flows_as_in_opencv() -> None:
    first, second = filmed("carphone_pristine.mp4", count=2)
    assert_as_opencv([first, first, second, second, second, first])


def test_a_picture_that_is_a_view_of_another_flows_as_in_opencv() -> None:
    assert_as_opencv([noise(140, 180, seed)[::2, ::2] for seed in range(2)])


def test_pictures_of_another_size_are_refused() -> None:
    flow = FarnebackFlow()
    flow.add(noise(20, 30))
    with pytest.raises(ValueError, match=r"one size.*\(30, 20\) after \(20, 30\)"):
        flow.add(noise(30, 20))


def test_clips_measured_by_turns_do_not_mix() -> None:
    """Nothing of one clip is left for the next, nor for one beside it."""
    clips = [[noise(50, 60, seed + 10 * clip) for seed in range(3)] for clip in range(2)]
    meters = [FarnebackFlow() for _ in clips]
    for pictures in zip(*clips, strict=True):
        flows = [meter.add(picture) for meter, picture in zip(meters, pictures, strict=True)]
    for clip, flow in zip(clips, flows, strict=True):
        assert flow is not None
        np.testing.assert_allclose(flow, np.moveaxis(by_opencv(*clip[-2:]), -1, 0), atol=1e-4)


def test_scores_are_opencvs_to_the_last_digit_or_two() -> None:
    frames = frames_of("carphone_pristine.mp4")[:40]
    meter = MotionMeter(MotionParameters(), fps=16)
    taken = [index for index in range(len(frames)) if meter.wants(index)]
    for index in taken:
        meter.add(index, frames[index])
    lumas = [cv2.cvtColor(frames[index], cv2.COLOR_BGR2GRAY) for index in taken]
    flows = [by_opencv(*pair) for pair in pairwise(lumas)]
    lengths = [np.mean(cv2.cartToPolar(f[..., 0], f[..., 1])[0]) for f in flows]
    assert meter.score() == pytest.approx(float(np.mean(lengths)), abs=1e-6)


def test_it_is_compiled_once_for_all_processes(tmp_path: Path) -> None:
    compiled = import_kernels(cache=tmp_path)
    assert compiled.returncode == 0, compiled.stderr
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nbc")}
    assert len(kept) == 3
    assert import_kernels(cache=tmp_path).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nbc")} == kept


def test_a_broken_cache_costs_time_only(tmp_path: Path) -> None:
    assert import_kernels(cache=tmp_path).returncode == 0
    for path in tmp_path.rglob("*.nb[ci]"):
        path.write_bytes(b"cut off")
    again = import_kernels(cache=tmp_path)
    assert again.returncode == 0, again.stderr


def import_kernels(cache: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "import processors.farneback"],
        cwd=ROOT,
        env={**os.environ, "NUMBA_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
