"""Samples for the demo: real clips, and files made here that show every kind of end.

What each generated file should end as is known by construction and stands beside it; the tests
hold the pipeline to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.settings import CHECKOUT

Image = npt.NDArray[np.uint8]

REAL_SAMPLES = CHECKOUT / ".cache" / "samples"
"""Real clips, put there by ``make setup``; docs/licences.md says whose they are."""

NOT_JSON = b"this is no JSON"
"""A message that the demo sends beside the references."""

_WIDTH, _HEIGHT = 320, 180


@dataclass(frozen=True)
class Take:
    """One scene of a generated video: a texture of one colour that pans, or stands still."""

    seconds: float
    colour: tuple[int, int, int]
    pixels_per_second: float


@dataclass(frozen=True)
class Generated:
    """A generated video and its scenes."""

    name: str
    fps: int
    takes: tuple[Take, ...]

    @property
    def cuts_s(self) -> list[float]:
        """Starts of its scenes, seconds."""
        starts = [0.0]
        for take in self.takes[:-1]:
            starts.append(starts[-1] + take.seconds)
        return starts


CUTS = Generated(
    "generated-cuts.mp4",
    fps=24,
    takes=(
        Take(3.0, (60, 120, 220), 60.0),
        Take(1.0, (230, 60, 40), 60.0),  # too short
        Take(3.0, (70, 190, 90), 0.0),  # nothing moves
        Take(3.0, (240, 200, 60), 60.0),
    ),
)
LONG_TAKE = Generated("generated-long-take.mp4", fps=4, takes=(Take(64.0, (120, 90, 160), 10.0),))
NO_VIDEO = "generated-no-video.mp4"
TRUNCATED = "generated-truncated.mp4"
EMPTY = "generated-empty.mp4"


def write_samples(folder: Path) -> list[Path]:
    """Write the generated samples into a folder, and name all samples, real ones first.

    The same files come out every time; one that is already there is left as it is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for video in (CUTS, LONG_TAKE):
        _once(folder / video.name, lambda path, video=video: encode(video, path))
    _once(folder / NO_VIDEO, lambda path: path.write_bytes(b"A letter, not a video.\n" * 200))
    # An MP4 has its index at the end: what is left of half a file cannot be opened.
    _once(
        folder / TRUNCATED,
        lambda path: path.write_bytes(
            (whole := (folder / CUTS.name).read_bytes())[: len(whole) // 2]
        ),
    )
    _once(folder / EMPTY, lambda path: path.write_bytes(b""))
    generated = [folder / name for name in (CUTS.name, LONG_TAKE.name, NO_VIDEO, TRUNCATED, EMPTY)]
    return [*sorted(REAL_SAMPLES.glob("*.mp4")), *generated]


def encode(video: Generated, path: Path) -> None:
    """Encode a generated video as H.264 with B-frames, or MPEG-4 where x264 is not built in."""
    import av

    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    with av.open(str(path), "w", format="mp4") as container:
        stream: Any = container.add_stream(codec, rate=video.fps)
        stream.width, stream.height, stream.pix_fmt = _WIDTH, _HEIGHT, "yuv420p"
        stream.time_base = Fraction(1, video.fps)
        # One thread: the same bytes on every machine.
        stream.options = {"threads": "1", "preset": "veryfast", "crf": "26"}
        for number, image in enumerate(_images(video)):
            frame: Any = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _images(video: Generated) -> Iterator[Image]:
    for number, take in enumerate(video.takes):
        texture = _texture(seed=number)
        for frame in range(round(take.seconds * video.fps)):
            shift = round(frame * take.pixels_per_second / video.fps)
            window = texture[:, shift % _WIDTH : shift % _WIDTH + _WIDTH, None]
            yield (window * np.array(take.colour, np.float32)).astype(np.uint8)


def _texture(seed: int) -> npt.NDArray[np.float32]:
    """Smooth blobs, 0.35 to 1, that repeat after the frame's width: [height, 2 x width]."""
    noise = np.random.default_rng(seed).random((_HEIGHT // 12, _WIDTH // 16)).astype(np.float32)
    tile = np.kron(noise, np.ones((12, 16), np.float32))
    for _ in range(3):
        for axis in (0, 1):
            tile = (tile + np.roll(tile, 3, axis) + np.roll(tile, -3, axis)) / 3
    low, high = tile.min(), tile.max()
    scaled = 0.35 + 0.65 * (tile - low) / (high - low)
    return np.concatenate([scaled, scaled], axis=1).astype(np.float32)


def _once(path: Path, write: Any) -> None:
    if path.exists():
        return
    partial = path.with_name(path.name + ".partial")
    write(partial)
    partial.rename(path)
