"""Frames of ranges of a video file, decoded once each, in order; runs in the sandbox.

A range starts anywhere, and decoding can start only at a keyframe. The reader seeks to the
keyframe at or before the range, and goes on where it is when that is nearer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from types import TracebackType
from typing import Any

import av
import av.error
from av.packet import Packet
from av.video.stream import VideoStream

from processors.errors import MediaError
from processors.media.container import open_container, video_stream
from schemas.reasons import MediaReason

_BACK_OFF_S = (0, 2, 10, 60)
"""How much earlier to try when a seek lands behind its target: demuxers search by decoding time,
which with B-frames is before the time of showing."""


@dataclass(frozen=True)
class ClipSpan:
    """One clip of a file: ``[start_pts, end_pts)`` in units of ``time_base`` seconds."""

    start_pts: int
    end_pts: int
    time_base: Fraction
    start_s: float
    """Time of the first frame from the video's first frame."""
    frame_count: int | None
    """Frames in the clip, if the split counted them."""
    width: int
    height: int
    key_pts: int | None = None
    """Where decoding has to begin, once `locate_clips` has looked; None: at the beginning."""

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> ClipSpan:
        """From a row of ``clips``."""
        first, after = row.get("start_frame"), row.get("end_frame")
        return cls(
            start_pts=row["start_pts"],
            end_pts=row["end_pts"],
            time_base=Fraction(row["time_base"]),
            start_s=row["start_s"],
            frame_count=None if first is None or after is None else after - first,
            width=row.get("width") or 0,
            height=row.get("height") or 0,
        )

    @property
    def duration(self) -> int:
        """In units of the time base."""
        return self.end_pts - self.start_pts

    @property
    def length_s(self) -> float:
        """Its length in seconds."""
        return float(self.duration * self.time_base)

    @property
    def lead_s(self) -> float:
        """Seconds of video before it that have to be decoded for it."""
        if self.key_pts is None:
            return self.start_s
        return float((self.start_pts - self.key_pts) * self.time_base)


class ClipReader:
    """An open video file. Use it as a context manager."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._pending: tuple[int, av.VideoFrame] | None = None
        """The frame that ended the last range; the next may begin with it."""
        self._open()

    def _open(self) -> None:
        self._container = open_container(self._path)
        try:
            self._stream = video_stream(self._container)
        except BaseException:
            self._container.close()
            raise
        self._frames: Iterator[tuple[int, av.VideoFrame]] = iter(())

    def __enter__(self) -> ClipReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._container.close()

    @property
    def fps(self) -> float:
        """The rate that OpenCV reports for the file, on which motion is sampled; 0: unknown."""
        return float(self._stream.guessed_rate or self._stream.average_rate or 0)

    def locate(self, span: ClipSpan) -> int | None:
        """Timestamp of the keyframe from which ``span`` is decoded; None: the file's beginning."""
        first = self._seek(span.start_pts, span)
        self._pending = None
        return None if first is None else first.pts

    def frames(self, span: ClipSpan) -> Iterator[tuple[int, av.VideoFrame]]:
        """The clip's frames with their timestamps, in order of time.

        Raises `MediaError` (stage ``decode``): ``source_changed`` if the stream counts time in
        another unit than the clip.
        """
        if self._stream.time_base != span.time_base:
            raise MediaError(
                MediaReason.SOURCE_CHANGED,
                f"its stream counts in units of {self._stream.time_base} s, "
                f"and the clip was cut in units of {span.time_base} s",
                stage="decode",
            )
        self._go_to(span)
        for pts, frame in self._frames:
            if pts >= span.end_pts:
                self._pending = (pts, frame)
                return
            if pts >= span.start_pts:
                yield pts, frame

    def _go_to(self, span: ClipSpan) -> None:
        """Make the clip's first frame the next one, or one before it."""
        pending, self._pending = self._pending, None
        if pending is not None and self._continues(pending[0], span):
            self._frames = chain([pending], self._frames)
            return
        for earlier_s in _BACK_OFF_S:
            packet = self._seek(span.start_pts - int(earlier_s / span.time_base), span)
            self._frames = self._timed(self._decode(packet))
            first = next((item for item in self._frames if item[0] >= span.start_pts), None)
            # The split saw a frame at the clip's very start. A decoder that began at a keyframe
            # may still owe it, say after an open group of pictures: then begin earlier.
            if packet is None or (first is not None and first[0] == span.start_pts):
                break
        else:
            self._rewind()
            self._frames = self._timed(self._decode(None))
            return
        if first is not None:
            self._frames = chain([first], self._frames)

    def _continues(self, position: int, span: ClipSpan) -> bool:
        """Whether decoding on reaches the clip sooner than seeking to its keyframe would."""
        if position > span.start_pts:
            return False
        return position == span.start_pts or span.key_pts is None or span.key_pts <= position

    def _seek(self, target: int, span: ClipSpan) -> Packet[VideoStream] | None:
        """Go to the last keyframe at or before ``target`` and return its packet.

        None: to the beginning of the file, where no such keyframe could be found.
        """
        for earlier_s in _BACK_OFF_S:
            try:
                self._container.seek(
                    target - int(earlier_s / span.time_base), stream=self._stream, backward=True
                )
                packet = next(
                    (p for p in self._container.demux(self._stream) if p.size and p.is_keyframe),
                    None,
                )
            except av.error.MemoryError:
                raise
            except (av.error.FFmpegError, OverflowError):
                break
            if packet is not None and packet.pts is not None and packet.pts <= target:
                return packet
        self._rewind()
        return None

    def _rewind(self) -> None:
        """Begin at the beginning: for files that cannot be sought in."""
        self._container.close()
        self._open()

    def _timed(self, frames: Iterator[av.VideoFrame]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Frames with their times; one that has none follows the one before, as in the split."""
        step = max(1, round(1 / (self.fps * float(self._stream.time_base or 1)))) if self.fps else 1
        latest: int | None = None
        for frame in frames:
            pts = frame.pts if frame.pts is not None else frame.dts
            if pts is None:
                pts = 0 if latest is None else latest + step
            latest = pts
            yield pts, frame

    def _decode(self, first: Packet[VideoStream] | None) -> Iterator[av.VideoFrame]:
        """Frames from here on; what cannot be decoded is passed over, as players do."""
        packets = self._container.demux(self._stream)
        packet = first
        while True:
            try:
                if packet is None:
                    packet = next(packets)
                yield from packet.decode()
            except (StopIteration, av.error.EOFError):
                return
            except av.error.MemoryError:
                raise
            except av.error.FFmpegError:
                if packet is None:
                    return  # The file itself cannot be read on from here.
            packet = None
