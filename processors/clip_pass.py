"""One decoding pass over a clip that gives every stage what it needs of it.

Runs in the sandbox's child process and hands back only the sampled frames, as JPEG and at the
size that the models want, with their quality and the clip's motion score. Never are all frames
of a clip held at once. `processors.clip_decoder` calls it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import cast

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from processors.clip_reader import ClipReader, ClipSpan
from processors.errors import MediaError
from processors.frames import (
    FrameRequest,
    FrameSampling,
    Pixels,
    Sampler,
    encode_jpeg,
    to_luma,
)
from processors.media.pixels import BgrConverter, Image, coded_rgb
from processors.motion import MODULES, MotionMeter, MotionParameters
from processors.quality import FrameQuality, measure
from processors.resize import Resize
from schemas.reasons import MediaReason

STAGE = "decode"


@dataclass(frozen=True)
class DecodePlan:
    """What to take from every clip."""

    frames: FrameSampling
    """The frames whose quality is measured, and that may be stored."""
    jpeg: bool = True
    """Whether those are encoded."""
    requests: tuple[FrameRequest, ...] = ()
    """What the model stages look at."""
    motion: MotionParameters | None = None
    """None: no motion score."""

    @property
    def modules(self) -> tuple[str, ...]:
        """What the process that runs it has to import beforehand."""
        of_motion = MODULES if self.motion else ()
        of_requests = (name for r in self.requests for name in r.resize.modules)
        return tuple(dict.fromkeys((*of_motion, *of_requests)))


@dataclass
class DecodedClip:
    """What one pass over a clip gave."""

    frame_times_s: list[float] = field(default_factory=list)
    """Times of the sampled frames from the video's start, seconds."""
    jpegs: list[bytes] = field(default_factory=list)
    quality: list[FrameQuality] = field(default_factory=list)
    images: dict[str, NDArray[np.uint8]] = field(default_factory=dict)
    """By `FrameRequest.column`."""
    motion_score: float | None = None
    decoded_frames: int = 0
    cpu_s: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall seconds by step: decode, frames, quality, motion."""


def locate_clips(path: str, spans: tuple[ClipSpan, ...]) -> tuple[ClipSpan, ...]:
    """The spans with the keyframes from which they are decoded, found without decoding."""
    with ClipReader(path) as reader:
        return tuple(replace(span, key_pts=reader.locate(span)) for span in spans)


def decode_clips(
    path: str, spans: tuple[ClipSpan, ...], plan: DecodePlan
) -> list[DecodedClip | MediaError]:
    """Decode clips of one file, one after the other; a clip's error is its own result."""
    results: list[DecodedClip | MediaError] = []
    with ClipReader(path) as reader:
        for span in spans:
            try:
                results.append(_decode(reader, span, plan))
            except MediaError as error:
                results.append(error)
            except MemoryError:
                results.append(_out_of_memory())
            except cv2.error as error:
                if error.code == cv2.Error.StsNoMem:
                    results.append(_out_of_memory())
                else:
                    results.append(_stage_error(error))
            except Exception as error:
                # Whatever it is, the other clips of the file have nothing to do with it.
                results.append(_stage_error(error))
    return results


def _out_of_memory() -> MediaError:
    return MediaError(
        MediaReason.OUT_OF_MEMORY, "decoding the clip took too much memory", stage=STAGE
    )


def _stage_error(error: Exception) -> MediaError:
    return MediaError(MediaReason.STAGE_ERROR, f"{type(error).__name__}: {error}", stage=STAGE)


def _decode(reader: ClipReader, span: ClipSpan, plan: DecodePlan) -> DecodedClip:
    cpu_before, wall_before = time.process_time(), time.perf_counter()
    work = _ClipPass(span, plan, reader.fps)
    index = -1
    last: tuple[int, av.VideoFrame] | None = None
    for index, (pts, frame) in enumerate(reader.frames(span)):
        work.add(index, pts, frame)
        last = (pts, frame)
    if last is None:
        raise MediaError(
            MediaReason.NO_FRAMES,
            f"no frame could be decoded from {span.start_s:.3f} s "
            f"to {span.start_s + span.length_s:.3f} s",
            stage=STAGE,
        )
    clip = work.finish(index, *last)
    clip.decoded_frames = index + 1
    clip.cpu_s = time.process_time() - cpu_before
    clip.seconds = dict(work.seconds)
    clip.seconds[STAGE] = time.perf_counter() - wall_before - sum(work.seconds.values())
    return clip


class _Track:
    """The frames that one sampling has taken so far."""

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler
        self.taken: list[_Picture] = []

    def take(self, picture: _Picture) -> None:
        self.taken.append(picture)
        while self.sampler.thin(len(self.taken)):
            del self.taken[1::2]


_Look = tuple[str, Resize]
"""Pixels and size of a picture that a model wants; requests that agree on it share one."""


def _look(request: FrameRequest) -> _Look:
    return request.pixels, request.resize


class _Picture:
    """A taken frame: what was made of its pixels. The pixels themselves are not kept."""

    def __init__(self, pts: int) -> None:
        self.pts = pts
        self.jpeg: bytes | None = None
        self.quality: FrameQuality | None = None
        self.images: dict[_Look, Image] = {}


class _Pixels:
    """One decoded frame's pixels, converted once for all that want them, and only if any does."""

    def __init__(
        self, frame: av.VideoFrame, to_bgr: BgrConverter, seconds: dict[str, float]
    ) -> None:
        self._frame = frame
        self._to_bgr = to_bgr
        self._seconds = seconds
        self._made: dict[str, Image] = {}

    @property
    def bgr(self) -> Image:
        """Upright, as `BgrConverter` gives it."""
        return self._of("bgr", lambda: self._to_bgr(self._frame))

    def rgb(self, pixels: Pixels) -> Image:
        """As `FrameRequest.pixels` says."""
        if pixels == "coded":
            return self._of("coded", lambda: coded_rgb(self._frame))
        bgr = self.bgr
        return self._of("upright", lambda: cast(Image, cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)))

    def _of(self, name: str, make: Callable[[], Image]) -> Image:
        if name not in self._made:
            started = time.perf_counter()
            self._made[name] = make()
            self._seconds["frames"] += time.perf_counter() - started
        return self._made[name]


def _stack(pictures: list[Image]) -> Image:
    """Pictures of one clip as one array; a stream may change its shape on the way."""
    height, width = pictures[0].shape[:2]
    return np.stack(
        [p if p.shape[:2] == (height, width) else cv2.resize(p, (width, height)) for p in pictures]
    )


class _ClipPass:
    """Collects, frame by frame, what the plan wants of one clip."""

    def __init__(self, span: ClipSpan, plan: DecodePlan, fps: float) -> None:
        self._span = span
        self._plan = plan
        self._stored = _Track(plan.frames.sampler(span.duration, span.frame_count))
        self._tracks = [
            _Track(request.sampling.sampler(span.duration, span.frame_count))
            for request in plan.requests
        ]
        self._meter = MotionMeter(plan.motion, fps) if plan.motion else None
        self._to_bgr = BgrConverter()
        self._last: _Picture | None = None
        self.seconds: dict[str, float] = {"frames": 0.0, "quality": 0.0}
        if self._meter:
            self.seconds["motion"] = 0.0

    def add(self, index: int, pts: int, frame: av.VideoFrame) -> None:
        offset = pts - self._span.start_pts
        stored = self._stored.sampler.take(offset, bool(frame.key_frame))
        wanted = [t.sampler.take(offset, bool(frame.key_frame)) for t in self._tracks]
        moving = self._meter is not None and self._meter.wants(index)
        self._last = None
        if not (stored or moving or any(wanted)):
            return
        pixels = _Pixels(frame, self._to_bgr, self.seconds)
        if stored or any(wanted):
            self._last = self._keep(_Picture(pts), pixels, stored, wanted)
        if moving and self._meter is not None:
            bgr = pixels.bgr
            started = time.perf_counter()
            self._meter.add(index, bgr)
            self.seconds["motion"] += time.perf_counter() - started

    def finish(self, index: int, pts: int, frame: av.VideoFrame) -> DecodedClip:
        """The clip's result; the arguments are its last frame."""
        stored = self._stored.sampler.take_last()
        wanted = [track.sampler.take_last() for track in self._tracks]
        pixels = _Pixels(frame, self._to_bgr, self.seconds)
        if stored or any(wanted):
            self._keep(self._last or _Picture(pts), pixels, stored, wanted)
        clip = DecodedClip()
        if self._meter is not None:
            if self._meter.wants_last(index):
                bgr = pixels.bgr
                started = time.perf_counter()
                self._meter.add_last(bgr)
                self.seconds["motion"] += time.perf_counter() - started
            clip.motion_score = self._meter.score()
        span = self._span
        for picture in self._stored.taken:
            clip.frame_times_s.append(
                span.start_s + float((picture.pts - span.start_pts) * span.time_base)
            )
            if picture.jpeg is not None:
                clip.jpegs.append(picture.jpeg)
            if picture.quality is not None:
                clip.quality.append(picture.quality)
        for request, track in zip(self._plan.requests, self._tracks, strict=True):
            chosen = [track.taken[index] for index in request.sampling.chosen(len(track.taken))]
            clip.images[request.column] = _stack([p.images[_look(request)] for p in chosen])
        return clip

    def _keep(
        self, picture: _Picture, pixels: _Pixels, stored: bool, wanted: list[bool]
    ) -> _Picture:
        """Make of the frame what those that take it need, and remember it for them."""
        for request, track, wants in zip(self._plan.requests, self._tracks, wanted, strict=True):
            if wants:
                look = _look(request)
                if look not in picture.images:
                    rgb = pixels.rgb(request.pixels)
                    started = time.perf_counter()
                    picture.images[look] = request.resize(rgb)
                    self.seconds["frames"] += time.perf_counter() - started
                track.take(picture)
        if stored and self._plan.jpeg and picture.jpeg is None:
            bgr = pixels.bgr
            started = time.perf_counter()
            picture.jpeg = encode_jpeg(bgr)
            self.seconds["frames"] += time.perf_counter() - started
        if stored:
            if picture.quality is None:
                bgr = pixels.bgr
                started = time.perf_counter()
                picture.quality = measure(to_luma(bgr))
                self.seconds["quality"] += time.perf_counter() - started
            self._stored.take(picture)
        return picture
