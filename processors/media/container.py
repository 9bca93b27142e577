"""Opening a video file with libav: which formats and protocols it may use, and how.

The one place that calls ``av.open``. It never sees a URI, only files that `processors.fetch`
has put or found on this disk; and it is meant to run inside `processors.media.sandbox`.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import av.container
import av.error
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from processors.errors import MediaError
from schemas.reasons import MediaReason

# Playlists (hls, concat, dash, image sequences) open other files and hosts: they are not here.
# Raw elementary streams are not here either: they carry no timestamps to cut at, and their
# probes take text and noise for video.
_VIDEO_FORMATS = (
    "mov",
    "matroska",
    "webm",
    "avi",
    "mpegts",
    "mpeg",
    "flv",
    "asf",
    "mxf",
    "ivf",
    "nut",
    "rm",
)
# Audio with a magic number of its own, let in so that it is called by its name.
_AUDIO_FORMATS = ("ogg", "wav", "flac", "aiff")

# MP3 has no magic number, and its probe takes noise for sound: only with this tag before it.
_MP3_TAG = b"ID3"

_max_pixels = 8192 * 8192


def limit_pixels(max_pixels: int) -> None:
    """Set, for this process, how many pixels a frame may have."""
    global _max_pixels
    _max_pixels = max_pixels


def open_container(path: str | Path) -> av.container.InputContainer:
    """Open a video file; the caller closes it.

    Raises `MediaError` (stage ``probe``): ``not_a_video`` if libav finds none of the formats
    that we take, ``out_of_memory``.
    """
    formats = [*_VIDEO_FORMATS, *_AUDIO_FORMATS]
    try:
        with Path(path).open("rb") as file:
            if file.read(len(_MP3_TAG)) == _MP3_TAG:
                formats.append("mp3")
    except OSError as error:
        raise MediaError(
            MediaReason.NOT_FOUND, f"the file cannot be opened: {error.strerror}", stage="probe"
        ) from None
    options = {"protocol_whitelist": "file", "format_whitelist": ",".join(formats)}
    # "file:" keeps a path with a colon in it from being read as a protocol.
    url = f"file:{path}"
    try:
        return av.open(url, mode="r", options=options, metadata_errors="ignore")
    except MemoryError:
        raise MediaError(
            MediaReason.OUT_OF_MEMORY, "opening the file took too much memory", stage="probe"
        ) from None
    except (av.error.FFmpegError, ValueError, OSError) as error:
        detail = getattr(error, "strerror", None) or str(error)
        # What is on no list of ours comes back as an invalid argument.
        known = "" if isinstance(error, av.error.ArgumentError) else f" ({detail})"
        raise MediaError(
            MediaReason.NOT_A_VIDEO,
            f"the file is in none of the video formats that are read{known}",
            stage="probe",
        ) from None


def video_stream(container: av.container.InputContainer) -> VideoStream:
    """The first video stream that is not a cover picture, set to decode in this thread.

    Raises `MediaError` (stage ``probe``): ``no_video_stream``, ``decode_error`` if libav has no
    decoder for it, ``too_large`` if its frames have more pixels than the limit.
    """
    streams = [
        s
        for s in container.streams
        if isinstance(s, VideoStream) and not s.disposition & s.disposition.__class__.attached_pic
    ]
    if not streams:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "none"
        raise MediaError(
            MediaReason.NO_VIDEO_STREAM,
            f"the file has no video stream; its streams: {kinds}",
            stage="probe",
        )
    stream = streams[0]
    context = stream.codec_context
    if context is None:
        raise MediaError(
            MediaReason.DECODE_ERROR, "there is no decoder for the video stream", stage="probe"
        )
    if context.width * context.height > _max_pixels:
        raise MediaError(
            MediaReason.TOO_LARGE,
            f"its frames of {context.width}x{context.height} have more than {_max_pixels} pixels",
            stage="probe",
        )
    # The size may change in mid-stream; the decoder then refuses what is above the limit.
    context.options = {"max_pixels": str(_max_pixels)}
    # One thread: parallel work is over segments, and threads would defeat the CPU accounting.
    context.thread_type = "NONE"
    context.thread_count = 1
    return stream


def time_base_of(stream: VideoStream) -> Fraction:
    """The stream's unit of time, seconds."""
    return Fraction(stream.time_base or Fraction(1, 1000))


def reported_rate(stream: VideoStream) -> Fraction:
    """The rate that OpenCV reports: libav's average, else what the unit of time amounts to.

    Not libav's guess, which for uneven frames is the rate of the finest clock tick.
    """
    return Fraction(stream.average_rate or 1 / time_base_of(stream))


def frame_step(fps: Fraction, time_base: Fraction) -> int:
    """Length of a frame that states none, in units of the time base."""
    return max(1, round(1 / (fps * time_base)))


def times_by_dts(stream: VideoStream) -> bool:
    """Whether only the decoding timestamps mean anything: in AVI, which stores no times at all.

    What libav makes up for display is out of order where frames are reordered; OpenCV shows
    such frames at their decoding times.
    """
    return "avi" in stream.container.format.name.split(",")


def frame_time(frame: VideoFrame, *, by_dts: bool = False) -> int | None:
    """When a decoded frame is shown, in the stream's time base; None if nobody knows.

    The one clock of a video: whoever finds a frame again by its time reads it from here, with
    ``by_dts`` from `times_by_dts`.
    """
    first, second = (frame.dts, frame.pts) if by_dts else (frame.pts, frame.dts)
    return first if first is not None else second
