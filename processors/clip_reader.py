"""Frames of ranges of a video file, decoded once each, in order; runs in the sandbox.

A range starts anywhere. The reader lets `processors.media.reader` seek to it, and goes on where
it is when that is nearer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from typing import Any

from av.video.frame import VideoFrame

from processors.errors import MediaError
from processors.media.reader import FrameReader
from schemas.reasons import MediaReason


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
    """An open video file of which clips are read. Use it as a context manager."""

    def __init__(self, path: str) -> None:
        self._reader = FrameReader(path)
        self._pending: tuple[int, VideoFrame] | None = None
        """The frame that ended the last range; the next may begin with it."""
        self._frames: Iterator[tuple[int, VideoFrame]] = iter(())
        self.fps = self._reader.fps
        """The rate that OpenCV reports for the file, on which motion is sampled."""

    def __enter__(self) -> ClipReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def locate(self, span: ClipSpan) -> int | None:
        """Timestamp of the keyframe from which ``span`` is decoded; None: the file's beginning."""
        self._pending = None
        first = self._reader.seek(span.start_pts)
        return None if first is None else self._reader.packet_time(first)

    def frames(self, span: ClipSpan) -> Iterator[tuple[int, VideoFrame]]:
        """The clip's frames with their timestamps, in order of time.

        Raises `MediaError` (stage ``decode``): ``source_changed`` if the stream counts time in
        another unit than the clip.
        """
        if self._reader.time_base != span.time_base:
            raise MediaError(
                MediaReason.SOURCE_CHANGED,
                f"its stream counts in units of {self._reader.time_base} s, "
                f"and the clip was cut in units of {span.time_base} s",
                stage="decode",
            )
        pending, self._pending = self._pending, None
        if pending is not None and self._continues(pending[0], span):
            self._frames = chain([pending], self._frames)
        else:
            self._frames = self._reader.frames(span.start_pts)
        for pts, frame in self._frames:
            if pts >= span.end_pts:
                self._pending = (pts, frame)
                return
            if pts >= span.start_pts:
                yield pts, frame

    def _continues(self, position: int, span: ClipSpan) -> bool:
        """Whether decoding on reaches the clip sooner than seeking to its keyframe would."""
        if position > span.start_pts:
            return False
        return position == span.start_pts or span.key_pts is None or span.key_pts <= position
