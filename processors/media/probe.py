"""What is in a video file, found without decoding more than its first frame.

Also the place that says why a file is no video that we can read: empty, cut off, of another
kind, without a video stream, without frames.
"""

from __future__ import annotations

import stat
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av.error
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from processors.errors import MediaError
from processors.media.container import (
    frame_step,
    open_container,
    reported_rate,
    time_base_of,
    times_by_dts,
    video_stream,
)
from processors.media.pixels import frame_rotation
from processors.media.truncation import truncation
from schemas.reasons import MediaReason

_PACKETS_TO_FIRST_FRAME = 250


@dataclass(frozen=True)
class VideoInfo:
    """A video stream; timestamps are in units of ``time_base`` seconds, as in the container."""

    stream_index: int
    codec: str
    width: int
    """Pixels, before rotation."""
    height: int
    rotation: int
    """Degrees, clockwise, that a player turns the picture: 0, 90, 180 or 270."""
    fps: Fraction
    """Average frames a second."""
    nominal_fps: Fraction
    """The rate that OpenCV reports, and by which PySceneDetect counts frames."""
    time_base: Fraction
    clock_start: int | None
    """The stream's own start time: zero of OpenCV's clock; None if the container has none."""
    start_pts: int
    """Timestamp of the first frame, as far as the packets tell."""
    last_pts_end: int
    """End of the last frame, exclusive."""
    duration_s: float
    frame_count: int
    """Packets with a picture; a decoder may give fewer frames."""
    keyframe_pts: tuple[int, ...]
    """Timestamps of the keyframes, ascending."""
    cut_pts: tuple[int, ...]
    """Those of them where the stream can be cut: every earlier packet shows an earlier frame."""


def probe(path: str | Path) -> VideoInfo:
    """Describe the video in a local file.

    Raises `MediaError` (stage ``probe``) with ``empty_file``, ``truncated``, ``not_a_video``,
    ``no_video_stream``, ``no_frames``, ``too_large``, ``decode_error`` or ``out_of_memory``.
    """
    path = Path(path)
    try:
        status = path.stat()
    except OSError as error:
        raise MediaError(
            MediaReason.NOT_FOUND, f"the file cannot be read: {error.strerror}", stage="probe"
        ) from None
    if not stat.S_ISREG(status.st_mode):
        raise MediaError(MediaReason.NOT_FOUND, "it is not a regular file", stage="probe")
    if status.st_size == 0:
        raise MediaError(MediaReason.EMPTY_FILE, "the file is empty", stage="probe")
    cut_off = truncation(path)
    if cut_off is not None:
        raise MediaError(MediaReason.TRUNCATED, cut_off, stage="probe")
    container = open_container(path)
    with container:
        stream = video_stream(container)
        try:
            return _describe(container, stream)
        except MemoryError:
            raise MediaError(
                MediaReason.OUT_OF_MEMORY, "reading the file took too much memory", stage="probe"
            ) from None


def _describe(container: InputContainer, stream: VideoStream) -> VideoInfo:
    packets = _Packets()
    rotation: int | None = None
    for packet in _demux(container, stream):
        packets.add(packet)
        if rotation is None and packets.count <= _PACKETS_TO_FIRST_FRAME:
            rotation = _rotation_of(packet)
    if packets.count == 0 and stream.frames:
        # It ends right after a box: nothing else tells that there was to be more.
        lost = f"the index names {stream.frames} frames, and the file ends before the first"
        raise MediaError(MediaReason.TRUNCATED, lost, stage="probe")
    if packets.count == 0:
        raise MediaError(MediaReason.NO_FRAMES, "the video stream holds no frame", stage="probe")
    # A seek in AVI goes to a place in the file; what is shown there is known without B-frames only.
    cuttable = packets.trusted and not (times_by_dts(stream) and stream.codec_context.has_b_frames)
    time_base = time_base_of(stream)
    average = _average_fps(stream, packets, time_base)
    step = frame_step(average, time_base)
    start = packets.first_pts if packets.first_pts is not None else 0
    end = max(packets.end(step), start + 1)
    return VideoInfo(
        stream_index=stream.index,
        codec=stream.codec_context.name,
        width=stream.codec_context.width,
        height=stream.codec_context.height,
        rotation=rotation or 0,
        fps=average,
        nominal_fps=ntsc_fraction(float(reported_rate(stream))),
        time_base=time_base,
        clock_start=stream.start_time,
        start_pts=start,
        last_pts_end=end,
        duration_s=float((end - start) * time_base),
        frame_count=packets.count,
        keyframe_pts=tuple(sorted(set(packets.keyframes))),
        cut_pts=tuple(packets.cuts) if cuttable else (),
    )


class _Packets:
    """What the packets of one stream tell, in decoding order."""

    def __init__(self) -> None:
        self.count = 0
        self.first_pts: int | None = None
        self.keyframes: list[int] = []
        self.cuts: list[int] = []
        self._times = array("q")
        self._untimed = False
        self._latest: int | None = None
        self._latest_duration = 0

    def add(self, packet: Packet[VideoStream]) -> None:
        if packet.is_discard:
            return
        self.count += 1
        pts = packet.pts
        if pts is None:
            self._untimed = True
            return
        self._times.append(pts)
        if packet.is_keyframe:
            self.keyframes.append(pts)
            if self._latest is None or pts > self._latest:
                self.cuts.append(pts)
        if self.first_pts is None or pts < self.first_pts:
            self.first_pts = pts
        if self._latest is None or pts > self._latest:
            self._latest, self._latest_duration = pts, packet.duration or 0

    @property
    def trusted(self) -> bool:
        """Whether every frame has a time of its own; else a place in the video has no name."""
        return not self._untimed and len(np.unique(np.asarray(self._times))) == len(self._times)

    def end(self, step: int) -> int:
        """End of the last frame; ``step`` stands in for durations that are not there."""
        if self._latest is None:
            return self.count * step
        return self._latest + (self._latest_duration or step)

    @property
    def span(self) -> int | None:
        if self._latest is None or self.first_pts is None:
            return None
        return self._latest - self.first_pts


def _demux(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    """Packets with data, to where the file can be read."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.error.EOFError):
            return
        except av.error.MemoryError:
            raise
        except av.error.FFmpegError:
            # libav's own players stop here too and show what came before.
            return
        if packet.size:
            yield packet


def _rotation_of(packet: Packet[VideoStream]) -> int | None:
    """Clockwise rotation of the first frame that this packet gives; None if it gives none."""
    try:
        frames = packet.decode()
    except av.error.MemoryError:
        raise
    except av.error.FFmpegError:
        return None
    return frame_rotation(frames[0]) if frames else None


def _average_fps(stream: VideoStream, packets: _Packets, time_base: Fraction) -> Fraction:
    if stream.average_rate:
        return Fraction(stream.average_rate)
    if packets.span and packets.count > 1:
        return (packets.count - 1) / (packets.span * time_base)
    return Fraction(25)


def ntsc_fraction(fps: float) -> Fraction:
    """The exact rate that a rounded one stands for: 29.97 is 30000/1001.

    The rule is PySceneDetect 0.7's: whole rates as they are, near N x 1000/1001 that, else the
    closest fraction with a denominator up to 10,000.
    """
    if fps == int(fps):
        return Fraction(int(fps))
    base = round(fps * 1001 / 1000)
    if base > 0 and abs(base * 1000 / 1001 - fps) < 1e-3:
        return Fraction(base * 1000, 1001)
    return Fraction(fps).limit_denominator(10000) or Fraction(1, 10000)
