"""A video's frames with their times, from its beginning or from a keyframe on.

What cannot be decoded is skipped and counted, as players do; a segment of a damaged video then
costs the frames that are damaged.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import av.error
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from processors.media.container import frame_time, open_container, times_by_dts, video_stream
from processors.media.probe import VideoInfo

_RETREAT_S = 10.0
"""How far before a place decoding begins if it did not come out right at the place itself."""


class FrameReader:
    """An open video; use it as a context manager, and its frames before the next one comes."""

    def __init__(self, path: str | Path, info: VideoInfo) -> None:
        self._path = path
        self._info = info
        self.step = max(1, round(1 / (info.fps * info.time_base)))
        """Length of a frame that states none, in units of the time base."""
        self.errors = 0
        """Packets that could not be decoded."""
        self.first_error: str | None = None
        self._open()

    def __enter__(self) -> FrameReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._container.close()

    def frames(self, start_pts: int | None = None) -> Iterator[tuple[int, VideoFrame]]:
        """(time, frame) in order of output: all, or those from the keyframe ``start_pts`` on.

        A container's index may lead past the keyframe, and a decoder that starts at one may
        need more before it shows a frame: then decoding starts earlier, in the end at the
        beginning, and what comes before ``start_pts`` is dropped.
        """
        if start_pts is not None:
            retreat = start_pts - round(_RETREAT_S / self._info.time_base)
            for target in (start_pts, retreat):
                if target < self._info.start_pts or not self._seek(target):
                    continue
                frames = self._timed(self._decode(from_keyframe=True))
                first = next((item for item in frames if item[0] >= start_pts), None)
                if first is not None and first[0] == start_pts:
                    yield first
                    yield from frames
                    return
            self._container.close()
            self._open()
        for pts, frame in self._timed(self._decode()):
            if start_pts is None or pts >= start_pts:
                yield pts, frame

    def _open(self) -> None:
        self.errors, self.first_error = 0, None
        self._container = open_container(self._path)
        try:
            self._stream = video_stream(self._container)
        except BaseException:
            self._container.close()
            raise
        self._by_dts = times_by_dts(self._stream)

    def _seek(self, pts: int) -> bool:
        self.errors, self.first_error = 0, None
        try:
            self._container.seek(pts, stream=self._stream, backward=True)
        except MemoryError:
            raise
        except (av.error.FFmpegError, OverflowError):
            # Some formats, and damaged indexes, cannot be sought in.
            return False
        return True

    def _timed(self, frames: Iterator[VideoFrame]) -> Iterator[tuple[int, VideoFrame]]:
        latest: int | None = None
        for frame in frames:
            pts = frame_time(frame, by_dts=self._by_dts)
            if pts is None:
                pts = self._info.start_pts if latest is None else latest + self.step
            latest = pts
            yield pts, frame

    def _decode(self, *, from_keyframe: bool = False) -> Iterator[VideoFrame]:
        waiting = from_keyframe
        for packet in self._packets():
            if waiting:
                if packet is None or not packet.is_keyframe:
                    continue
                waiting = False
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

    def _packets(self) -> Iterator[Packet[VideoStream] | None]:
        """The stream's packets, then None, for which the decoder gives what it still holds."""
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
