"""Media files for tests, made with PyAV when they are needed; nothing binary is kept in git.

Shots are pictures of strong, different colours with a square that moves, so that the cuts
between them are known by construction.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest

SAMPLES = Path(__file__).resolve().parent.parent / ".cache" / "samples"
"""Real clips that `make setup` puts there: bikes.mp4, bigbuckbunny.mp4, carphone_pristine.mp4."""

# Neighbours differ strongly in hue, saturation and brightness.
_COLOURS = (
    (200, 30, 30),
    (30, 60, 220),
    (240, 240, 60),
    (20, 120, 30),
    (230, 120, 240),
    (15, 15, 15),
)


def sample(name: str) -> Path:
    """A real clip; fails, rather than skips, if `make setup` has not put it there."""
    path = SAMPLES / name
    if not path.is_file():
        pytest.fail(f"{path} is missing: run make setup")
    return path


def pictures(
    shots: Sequence[int], *, size: tuple[int, int] = (320, 180), motion: int = 2
) -> Iterator[npt.NDArray[np.uint8]]:
    """RGB frames, uint8 [height, width, 3]: ``shots[i]`` frames of the i-th picture.

    ``motion`` is how many pixels the square moves a frame.
    """
    width, height = size
    for number, count in enumerate(shots):
        noise = np.random.default_rng(number).integers(0, 24, (height, width, 3))
        background = np.clip(np.array(_COLOURS[number % len(_COLOURS)]) + noise, 0, 255)
        side = max(2, min(width, height) // 4)
        for frame in range(count):
            picture = background.astype(np.uint8)
            left = (frame * motion) % max(1, width - side)
            picture[height // 2 - side // 2 : height // 2 + side // 2, left : left + side] = 255
            yield picture


def write_video(
    path: Path,
    shots: Sequence[int] = (30, 30, 30),
    *,
    size: tuple[int, int] = (320, 180),
    fps: int | Fraction = 25,
    codec: str = "libx264",
    gop: int = 12,
    b_frames: int = 0,
    open_gop: bool = False,
    motion: int = 2,
    options: dict[str, str] | None = None,
    **others: Any,
) -> Path:
    """`encode` the `pictures` of some shots; ``others`` are its further arguments.

    Keyframes are ``gop`` frames apart, and at no other place.
    """
    encoder_options = {"g": str(gop), "bf": str(b_frames)}
    if codec == "libx264":
        encoder_options |= {
            "preset": "veryfast",
            "x264-params": f"keyint={gop}:min-keyint={gop}:scenecut=0:bframes={b_frames}"
            f":b-adapt=0:open-gop={int(open_gop)}",
        }
    return encode(
        path,
        pictures(shots, size=size, motion=motion),
        fps=fps,
        codec=codec,
        options=encoder_options | (options or {}),
        **others,
    )


def encode(
    path: Path,
    pictures: Iterable[npt.NDArray[np.uint8]],
    *,
    fps: int | Fraction = 25,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    rotation: int = 0,
    audio: bool = False,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    colorspace: int | None = None,
    color_range: int | None = None,
) -> Path:
    """Encode RGB pictures into ``path``; its suffix says which container. Returns ``path``.

    ``pts``, in units of ``time_base``, are the frames' times where the rate varies.
    ``rotation`` is what a player turns the picture by, in degrees clockwise. ``options`` are the
    encoder's.
    """
    rate = Fraction(fps)
    unit = time_base or 1 / rate
    with av.open(str(path), "w", container_options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=dict(options or {}))
        stream.pix_fmt = pixel_format
        stream.codec_context.time_base = unit
        stream.time_base = unit
        if colorspace is not None:
            stream.codec_context.colorspace = colorspace
        if color_range is not None:
            stream.codec_context.color_range = color_range
        if rotation:
            stream.set_display_rotation(-rotation)
        sound = container.add_stream("aac", rate=44100) if audio else None
        number = -1
        for number, picture in enumerate(pictures):
            if number == 0:
                stream.height, stream.width = picture.shape[:2]
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number if pts is None else pts[number]
            frame.time_base = unit
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            for packet in _silence(sound, float((number + 1) / rate)):
                container.mux(packet)
    return path


def write_audio(path: Path, seconds: float = 1.0) -> Path:
    """A file with sound and no picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac" if path.suffix != ".wav" else "pcm_s16le", rate=44100)
        for packet in _silence(stream, seconds):
            container.mux(packet)
    return path


def cut_frames(shots: Sequence[int]) -> list[tuple[int, int]]:
    """(first frame, frame after the last) of every shot."""
    ends = np.cumsum(shots).tolist()
    return list(zip([0, *ends[:-1]], ends, strict=True))


def _silence(stream: av.AudioStream, seconds: float) -> Iterator[list[av.Packet]]:
    samples = 1024
    for number in range(max(1, round(seconds * 44100 / samples))):
        planar = stream.codec_context.format.is_planar
        shape = (2, samples) if planar else (1, 2 * samples)
        kind = np.float32 if "flt" in stream.codec_context.format.name else np.int16
        frame = av.AudioFrame.from_ndarray(
            np.zeros(shape, kind), format=stream.codec_context.format.name, layout="stereo"
        )
        frame.rate = 44100
        frame.pts = number * samples
        yield stream.encode(frame)
    yield stream.encode(None)
