"""Small videos for the tests of the enrichment, and rows of ``clips`` that point into them."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import cv2
import numpy as np
from numpy.typing import NDArray

from processors import clip_pass
from processors.clip_reader import ClipSpan
from processors.errors import MediaError
from processors.media.probe import VideoInfo, probe
from processors.media.sandbox import Sandbox
from processors.motion import MODULES
from processors.scenes import Scene
from processors.split import clip_rows
from schemas.ids import video_key
from schemas.recipe import Recipe, load_recipe
from schemas.settings import CHECKOUT, DecodeSettings

Picture = NDArray[np.uint8]


def texture(height: int, width: int, seed: int = 0) -> Picture:
    """A picture with detail at several scales, uint8 RGB: something that flow can follow."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), dtype=np.float32)
    for cell in (4, 9, 23):
        small = rng.random((height // cell + 2, width // cell + 2, 3), dtype=np.float32)
        total += cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    total -= total.min()
    return (total * (255 / total.max())).astype(np.uint8)


def panning(frames: int, height: int, width: int, step: int, seed: int = 0) -> Iterator[Picture]:
    """A camera that moves ``step`` pixels to the right from one frame to the next."""
    wide = texture(height, width + step * frames, seed)
    for index in range(frames):
        yield np.ascontiguousarray(wide[:, index * step : index * step + width])


def all_frames(path: Path) -> list[tuple[int, bytes, bool]]:
    """Every frame of a file in one pass: timestamp, planes, whether it is a keyframe."""
    found = []
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            with contextlib.suppress(av.error.InvalidDataError):
                found += [
                    (f.pts if f.pts is not None else f.dts, _planes(f), bool(f.key_frame))
                    for f in packet.decode()
                ]
    return found


def _planes(frame: av.VideoFrame) -> bytes:
    return frame.to_ndarray().tobytes()


def cut_losslessly(path: Path, target: Path, start: int, end: int) -> Path:
    """A file that holds exactly frames [start, end) of another one, without any loss."""
    with av.open(str(path)) as source, av.open(str(target), "w") as container:
        stream_in = source.streams.video[0]
        rate = stream_in.guessed_rate
        stream = container.add_stream("libx264", rate=rate, options={"qp": "0", "bf": "0"})
        stream.width, stream.height = stream_in.width, stream_in.height
        stream.pix_fmt = stream_in.pix_fmt
        for index, frame in enumerate(source.decode(stream_in)):
            if start <= index < end:
                frame.pts, frame.time_base = index - start, 1 / Fraction(rate)
                frame.pict_type = 0
                for packet in stream.encode(frame):
                    container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return target


def span(path: Path, start: int, end: int) -> ClipSpan:
    """Frames [start, end) of a file as a span."""
    return ClipSpan.of_row(_row(path, start, end, None))


def clip(path: Path, start: int, end: int, recipe: Recipe) -> dict[str, Any]:
    """A row of ``clips``: frames [start, end) of a file."""
    return _row(path, start, end, recipe)


def _row(path: Path, start: int, end: int, recipe: Recipe | None) -> dict[str, Any]:
    info, times = _times(path, path.stat().st_mtime_ns)
    ends = [*times, info.last_pts_end]
    uri = path.resolve().as_uri()
    scenes = [Scene(times[0], ends[start], 0, start)] if start else []
    scenes.append(Scene(ends[start], ends[end], start, end))
    rows = clip_rows(
        {"video_key": video_key(uri, uri), "video_id": uri, "uri": uri, "kafka_offset": 7},
        info,
        scenes,
        recipe=recipe or load_recipe(CHECKOUT / "recipes" / "laptop.yaml"),
        content_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        created_at=datetime.now(UTC),
    )
    return rows[-1]


@functools.lru_cache
def _times(path: Path, _modified: int) -> tuple[VideoInfo, list[int]]:
    return probe(path), [pts for pts, _, _ in all_frames(path)]


class PoisonedSandbox(Sandbox):
    """A sandbox whose child dies for real when it is given one certain clip."""

    def __init__(
        self,
        settings: DecodeSettings,
        poison_pts: int,
        once: Path | None = None,
        way: Callable[[], object] = os.abort,
    ) -> None:
        super().__init__(settings, modules=MODULES)
        self._poison = (poison_pts, once, way)

    def run(self, function: Any, /, *args: Any, **options: Any) -> Any:
        if function is clip_pass.decode_clips:
            return super().run(decode_or_die, *self._poison, *args, **options)
        return super().run(function, *args, **options)


def segfault() -> None:
    """What a decoder's own fault looks like."""
    ctypes.string_at(0)


def hang() -> None:
    while True:
        time.sleep(1)


def spin() -> None:
    while True:
        pass


def eat_memory() -> None:
    held = []
    while True:
        held.append(bytearray(1 << 24))


def decode_or_die(
    poison_pts: int,
    once: Path | None,
    way: Callable[[], object],
    path: str,
    spans: tuple[ClipSpan, ...],
    plan: clip_pass.DecodePlan,
) -> list[clip_pass.DecodedClip | MediaError]:
    """What the poisoned sandbox's child runs; ``once``: a file that it takes away as it dies."""
    if any(span.start_pts == poison_pts for span in spans) and (once is None or once.exists()):
        if once is not None:
            once.unlink()
        way()
    return clip_pass.decode_clips(path, spans, plan)
