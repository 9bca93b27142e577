"""Writing frames as a file of their own, exact to the pixel and to the clock tick.

For what opens files and takes no frames. Which frames they are is said elsewhere
(`processors.clip_files`); this is about how libav keeps them as they are.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import cast

import av
from av.packet import Packet
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from processors.errors import MediaError
from processors.media.pixels import frame_rotation
from schemas.reasons import MediaReason

_H264 = "libx264"
_OTHERS = "ffv1"
"""Holds the pixel formats that H.264 has not; all its frames are keyframes."""
_PLANAR = {
    "yuyv422": "yuv422p",
    "uyvy422": "yuv422p",
    "yvyu422": "yuv422p",
    "monow": "gray",
    "monob": "gray",
}
"""Formats that neither holds, and those that hold the same samples in another order."""
_BECOMES_COLOUR = {"gray", "gray10le"}
"""What H.264's decoder gives back as YUV."""
_PADDED_RGB = "bgr0"
_OPTIONS = {
    _H264: {
        "preset": "ultrafast",
        "tune": "zerolatency",
        "qp": "0",
        # Keyframes where the source has them and nowhere else.
        "forced-idr": "1",
        "x264-params": "keyint=infinite:scenecut=0",
    },
    _OTHERS: {"g": "1"},
}


class CutWriter:
    """Writes an MP4 without any loss; use it as a context manager.

    It has one video stream, and no sound. Frames keep their pixel format, colour tags, shape of
    pixels and rotation, and keyframes are keyframes again; those of a later frame that differ
    from the first one's cannot be kept, and are refused.
    """

    def __init__(self, path: Path, time_base: Fraction, end: int) -> None:
        """Times are in units of ``time_base``; ``end`` is when the last frame ends."""
        # Also where only some of the colour tags are known.
        options = {"movflags": "+write_colr"}
        self._container = av.open(str(path), "w", format="mp4", options=options)
        self._time_base = time_base
        self._end = end
        self._stream: VideoStream | None = None
        self._like: tuple[object, ...] = ()
        self._last: Packet[VideoStream] | None = None

    def __enter__(self) -> CutWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._container.close()

    def add(self, time: int, frame: VideoFrame) -> None:
        """The next frame, shown at ``time``; its timestamp and type are changed.

        Raises `MediaError` (``decode_error``) if it differs from the first in size or format.
        """
        like = (frame.width, frame.height, frame.format.name)
        if self._stream is None:
            self._stream, self._like = self._open_stream(frame), like
        elif like != self._like:
            raise MediaError(
                MediaReason.DECODE_ERROR,
                f"its frames change from {_describe(self._like)} to {_describe(like)} in the "
                "middle of the clip, and cannot be written as one file",
            )
        kind = PictureType.I if frame.key_frame else PictureType.NONE
        if self._stream.pix_fmt != frame.format.name:
            frame = frame.reformat(format=self._stream.pix_fmt, threads=1)
        frame.pict_type = kind
        frame.pts, frame.time_base = time, self._time_base
        self._write(self._stream.encode(frame))

    def _open_stream(self, frame: VideoFrame) -> VideoStream:
        codec, pixels = _keeper(frame)
        options = dict(_OPTIONS[codec])
        stream = cast(VideoStream, self._container.add_stream(codec, options=options))
        context = stream.codec_context
        context.width, context.height = frame.width, frame.height
        context.pix_fmt = pixels
        context.time_base = stream.time_base = self._time_base
        # One thread, as in decoding: the child's memory and CPU are accounted for.
        context.thread_type, context.thread_count = "NONE", 1
        context.colorspace = frame.colorspace
        context.color_range = frame.color_range
        context.color_primaries = frame.color_primaries
        context.color_trc = frame.color_trc
        turn = frame_rotation(frame)
        if turn:
            stream.set_display_rotation(-turn)
        return stream

    def _write(self, packets: list[Packet[VideoStream]]) -> None:
        """Hand on all packets but the last, whose duration is known at the end."""
        for packet in packets:
            if self._last is not None:
                self._container.mux(self._last)
            self._last = packet

    def _finish(self) -> None:
        if self._stream is None:
            return
        self._write(self._stream.encode(None))
        if self._last is not None and self._last.pts is not None:
            self._last.duration = self._end - self._last.pts
            self._container.mux(self._last)


def _keeper(frame: VideoFrame) -> tuple[str, str]:
    """The encoder that keeps all of the frame's samples, and the pixel format to give it."""
    name = frame.format.name
    rgb = frame.format.is_rgb or frame.format.has_palette
    if rgb and all(part.bits <= 8 for part in frame.format.components):
        choices = [name, _PADDED_RGB]
    else:
        choices = [name, _PLANAR.get(name, name)]
    for pixels in choices:
        for codec in (_H264, _OTHERS):
            held = {f.name for f in av.Codec(codec, "w").video_formats or ()}
            if pixels in held - (_BECOMES_COLOUR if codec == _H264 else set()):
                return codec, pixels
    raise MediaError(
        MediaReason.DECODE_ERROR, f"there is no lossless encoder for its pixel format {name}"
    )


def _describe(like: tuple[object, ...]) -> str:
    width, height, pixels = like
    return f"{width}x{height} {pixels}"
