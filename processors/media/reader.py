"""A video's frames with their times, from its beginning or from any place in it.

The one way by which split and enrichment read a file, so that both see the same frames at the
same times. What cannot be decoded is skipped and counted, as players do; a segment of a damaged
video then costs the frames that are damaged.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av.error
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from processors.media.container import (
    frame_step,
    frame_time,
    open_container,
    reported_rate,
    time_base_of,
    times_by_dts,
    video_stream,
)

_BACK_OFF_S = (0, 2, 10, 60)
"""How much earlier to try when a seek lands behind its target: demuxers search by decoding time,
which with B-frames is before the time of showing."""


class FrameReader:
    """An open video; use it as a context manager."""

    def __init__(self, path: str | Path) -> None:
        self._path = path
        self._open()
        self.time_base = time_base_of(self._stream)
        self.fps = float(reported_rate(self._stream))
        """Frames a second, as OpenCV reports them."""
        self._step = frame_step(Fraction(self._stream.average_rate or 25), self.time_base)

    def __enter__(self) -> FrameReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def frames(self, start_pts: int | None = None) -> Iterator[tuple[int, VideoFrame]]:
        """(time, frame) in order of output: all, or those from ``start_pts`` on.

        Decoding begins at the keyframe at or before ``start_pts``. If that does not show a frame
        at just that time (a decoder may need more, say after an open group of pictures), it
        begins earlier, in the end at the beginning.
        """
        if start_pts is not None:
            for earlier_s in _BACK_OFF_S:
                packet = self.seek(start_pts - round(earlier_s / self.time_base))
                if packet is None:
                    break
                frames = self._timed(self._decode(packet))
                first = next((item for item in frames if item[0] >= start_pts), None)
                if first is not None and first[0] == start_pts:
                    yield first
                    yield from frames
                    return
        self._rewind()
        for pts, frame in self._timed(self._decode()):
            if start_pts is None or pts >= start_pts:
                yield pts, frame

    def seek(self, pts: int) -> Packet[VideoStream] | None:
        """Go to the last keyframe at or before ``pts`` and return its packet.

        None where no such keyframe could be found: then the beginning is what is left.
        """
        self._moved = True
        for earlier_s in _BACK_OFF_S:
            self._forget_errors()
            try:
                self._container.seek(
                    pts - round(earlier_s / self.time_base), stream=self._stream, backward=True
                )
                packet = next(
                    (p for p in self._container.demux(self._stream) if p.size and p.is_keyframe),
                    None,
                )
            except MemoryError:
                raise
            except (av.error.FFmpegError, OverflowError):
                # Some formats, and damaged indexes, cannot be sought in.
                return None
            time = None if packet is None else self.packet_time(packet)
            if time is not None and time <= pts:
                return packet
        return None

    def packet_time(self, packet: Packet[VideoStream]) -> int | None:
        """The packet's time on the clock of the frames."""
        return packet.dts if self._by_dts else packet.pts

    def _open(self) -> None:
        self._forget_errors()
        self._moved = False
        self._container = open_container(self._path)
        try:
            self._stream = video_stream(self._container)
        except BaseException:
            self._container.close()
            raise
        self._by_dts = times_by_dts(self._stream)

    def _rewind(self) -> None:
        """To the beginning, by opening the file again: not every file can be sought in."""
        if self._moved:
            self._container.close()
            self._open()
        self._moved = True

    def _forget_errors(self) -> None:
        self.errors = 0
        """Packets that could not be decoded since the place where decoding began."""
        self.first_error: str | None = None

    def _timed(self, frames: Iterator[VideoFrame]) -> Iterator[tuple[int, VideoFrame]]:
        latest: int | None = None
        for frame in frames:
            pts = frame_time(frame, by_dts=self._by_dts)
            if pts is None:
                pts = (self._stream.start_time or 0) if latest is None else latest + self._step
            latest = pts
            yield pts, frame

    def _decode(self, first: Packet[VideoStream] | None = None) -> Iterator[VideoFrame]:
        """Frames from ``first``, which has been read already, or from here on."""
        for packet in self._packets(first):
            try:
                frames = packet.decode() if packet else self._stream.decode(None)
            except av.error.EOFError:
                return
            except MemoryError:
                raise
            except av.error.FFmpegError as error:
                self._count(error)
            else:
                yield from frames

    def _packets(self, first: Packet[VideoStream] | None) -> Iterator[Packet[VideoStream] | None]:
        """The stream's packets, then None, for which the decoder gives what it still holds."""
        if first is not None:
            yield first
        try:
            for packet in self._container.demux(self._stream):
                if packet.size:
                    yield packet
        except MemoryError:
            raise
        except av.error.FFmpegError as error:
            # The file cannot be read on from here; what came before counts.
            self._count(error)
        yield None

    def _count(self, error: av.error.FFmpegError) -> None:
        self.errors += 1
        self.first_error = self.first_error or error.strerror
