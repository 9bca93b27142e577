"""Videos that are broken, absurd or hostile, made when they are needed, and what becomes of each.

`POISONS` is the one table: how a file is made, how it has to end in the split, and how it has to
end in the enrichment. `tests/test_poison_files.py` runs it.
"""

from __future__ import annotations

import io
import struct
import tarfile
import wave
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from schemas.reasons import MediaReason
from tests.media import encode, pictures, write_audio, write_video

Make = Callable[[Path], Path]
"""Writes a file into a folder and returns its path."""


@dataclass(frozen=True)
class Poison:
    """One file, and its two ends."""

    make: Make
    split: MediaReason | int
    """Why it is no video, or how many frames the split finds in it."""
    enriched: MediaReason | None = None
    """What a clip of it fails with; None: its own clips are judged like any other's."""


def _bytes(data: bytes, name: str = "video.mp4") -> Make:
    def make(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(data)
        return path

    return make


def _video(name: str = "video.mp4", shots: Sequence[int] = (20, 20), **options: object) -> Make:
    return lambda folder: write_video(folder / name, shots, **{**_SMALL, **options})  # type: ignore[arg-type]


_SMALL = {"size": (64, 48)}


def _renamed(make: Make) -> Make:
    """Whatever it is, it is called a video."""

    def renamed(folder: Path) -> Path:
        made = make(folder)
        return made.rename(folder / f"{made.name}.mp4")

    return renamed


def _changed(change: Callable[[bytes], bytes], make: Make) -> Make:
    def changed(folder: Path) -> Path:
        path = make(folder)
        path.write_bytes(change(path.read_bytes()))
        return path

    return changed


# Files of other kinds.


def _picture(suffix: str) -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    return bytes(cv2.imencode(suffix, noise)[1])


def _archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("../../x"))
    return buffer.getvalue()


def _wav() -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(8000))
    return buffer.getvalue()


OTHER_FORMATS = {
    "text": b"not a video\n" * 100,
    "a web page": b"<!DOCTYPE html><html><script>alert(1)</script></html>",
    "png": _picture(".png"),
    "jpeg": _picture(".jpg"),
    "gif": b"GIF89a" + bytes(2000),
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "pdf": b"%PDF-1.7\n" + bytes(3000),
    "gzip": _archive(),
    "an executable": b"\x7fELF\x02\x01\x01" + bytes(3000),
    "subtitles": b"1\n00:00:00,000 --> 00:00:01,000\nHello\n\n" * 20,
    "zeros": bytes(5000),
    "noise": np.random.default_rng(1).bytes(50_000),
    "a raw stream of H.264": b"\0\0\0\x01\x67\x42\xc0\x0a\xd9\x1e\x84\0\0\0\x01\x68\xce" * 200,
}

PLAYLISTS = {
    "an HLS playlist": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{url}\n#EXT-X-ENDLIST\n",
    "a concat file": "ffconcat version 1.0\nfile '{url}'\n",
    "a DASH manifest": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011">'
    "{url}</MPD>",
    "an SDP file": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
    "m=video 5004 RTP/AVP 96\n",
    "an ASX playlist": '<asx version="3.0"><entry><ref href="{url}"/></entry></asx>',
    "an RTSP reference": "RTSPtext\n{url}\n",
    "a filter graph": "movie={url}[out0]\n",
}


# Boxes of ISO BMFF.


def box(data: bytes, *path: bytes) -> tuple[int, int]:
    """Where a box's content is, [start, end), found by the boxes around it."""
    start, end = 0, len(data)
    for name in path:
        while data[start + 4 : start + 8] != name:
            start += int.from_bytes(data[start : start + 4], "big")
            if start >= end:
                raise ValueError(f"there is no box {name!r}")
        end = start + int.from_bytes(data[start : start + 4], "big")
        start += 8
    return start, end


_MEDIA = (b"moov", b"trak", b"mdia")
_SAMPLES = (*_MEDIA, b"minf", b"stbl")


def _patched(path: Sequence[bytes], offset: int, value: bytes) -> Callable[[bytes], bytes]:
    """Overwrite bytes of a box's content."""

    def patch(data: bytes) -> bytes:
        start = box(data, *path)[0] + offset
        return data[:start] + value + data[start + len(value) :]

    return patch


def _without_moov(data: bytes) -> bytes:
    start, end = box(data, b"moov")
    return data[: start - 8] + data[end:]


def flipped(data: bytes, position: int, bit: int) -> bytes:
    """The data with one bit turned over."""
    return data[:position] + bytes([data[position] ^ (1 << bit)]) + data[position + 1 :]


# Times.

_TICK = Fraction(1, 1000)


def _at(pts: Sequence[int], name: str = "video.mkv", unit: Fraction = _TICK) -> Make:
    return _video(name, (len(pts),), pts=pts, time_base=unit)


def _block_times(change: Callable[[int, int], int]) -> Callable[[bytes], bytes]:
    """Write other times into the blocks of a Matroska file of pictures, by their number."""

    def patch(data: bytes) -> bytes:
        changed, position, number = bytearray(data), data.index(b"\x1f\x43\xb6\x75"), 0
        # Track 1, two bytes of time, the flags of a keyframe, then a JPEG.
        while (found := data.find(b"\x80\xff\xd8", position)) > 0:
            (time,) = struct.unpack(">h", data[found - 2 : found])
            changed[found - 2 : found] = struct.pack(">h", change(number, time))
            position, number = found + 3, number + 1
        assert number
        return bytes(changed)

    return patch


_fragmented = _video(container_options={"movflags": "frag_keyframe+empty_moov"}, gop=100)


def _fragment_time(time: int) -> Callable[[bytes], bytes]:
    """Where a fragmented file's first fragment is on the clock (box tfdt, 64 bits wide)."""
    return _patched((b"moof", b"traf", b"tfdt"), 4, struct.pack(">Q", time))


_PICTURES = {"codec": "mjpeg", "pixel_format": "yuvj420p"}


# Sizes.


def _png(width: int, height: int) -> bytes:
    """A black picture, without ever holding it."""
    packer = zlib.compressobj(9)
    row = bytes(1 + width)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", data),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )


def _of_pngs(*sizes: tuple[int, int], says: tuple[int, int] | None = None) -> Make:
    """A film of PNGs; ``says`` is the size in its header."""

    def make(folder: Path) -> Path:
        path = folder / "video.mov"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("png", rate=1)
            stream.width, stream.height = says or sizes[0]
            stream.pix_fmt = "gray"
            for number, size in enumerate(sizes):
                packet = av.Packet(_png(*size))
                packet.stream, packet.time_base = stream, Fraction(1)
                packet.pts = packet.dts = number
                packet.duration, packet.is_keyframe = 1, True
                container.mux(packet)
        return path

    return make


def _long_and_black(folder: Path) -> Path:
    black = np.zeros((36, 64, 3), np.uint8)
    frames: Iterator[np.ndarray] = (black for _ in range(720))
    return encode(
        folder / "video.mp4", frames, fps=Fraction(1, 5), codec="mpeg4", options={"g": "100"}
    )


def _many_tracks(folder: Path) -> Path:
    path = folder / "video.mp4"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("mjpeg", rate=25) for _ in range(64)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for number, picture in enumerate(pictures((10,), size=(64, 48))):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            for stream in streams:
                frame.pts, frame.time_base = number, Fraction(1, 25)
                container.mux(stream.encode(frame))
    return path


def _a_link_out(folder: Path) -> Path:
    """A link in the allowed folder to a good video elsewhere."""
    outside = folder.parent.parent / "outside"
    outside.mkdir(exist_ok=True)
    link = folder / "video.mp4"
    link.symlink_to(write_video(outside / "video.mp4", (20,), size=(64, 48)))
    return link


def _sound(folder: Path) -> Path:
    return write_audio(folder / "sound.mp4")


R = MediaReason

POISONS: dict[str, Poison] = {
    "no byte": Poison(_bytes(b""), R.EMPTY_FILE, R.NOT_A_VIDEO),
    "one byte": Poison(_bytes(b"\0"), R.NOT_A_VIDEO, R.NOT_A_VIDEO),
    "no moov": Poison(_changed(_without_moov, _video()), R.TRUNCATED, R.NOT_A_VIDEO),
    **{
        f"{name} under .mp4": Poison(_bytes(data), R.NOT_A_VIDEO, R.NOT_A_VIDEO)
        for name, data in OTHER_FORMATS.items()
    },
    **{
        f"{name} under .mp4": Poison(
            _bytes(text.format(url="file:///etc/passwd").encode()), R.NOT_A_VIDEO, R.NOT_A_VIDEO
        )
        for name, text in PLAYLISTS.items()
    },
    **{
        f"{suffix} under .mp4": Poison(_renamed(_video(f"video.{suffix}")), 40)
        for suffix in ("mkv", "avi", "ts", "flv")
    },
    "sound": Poison(_sound, R.NO_VIDEO_STREAM, R.NO_VIDEO_STREAM),
    "wav under .mp4": Poison(_bytes(_wav()), R.NO_VIDEO_STREAM, R.NO_VIDEO_STREAM),
    "one frame": Poison(_video(shots=(1,)), 1),
    "a frame in a thousand seconds": Poison(_video("video.mov", (5,), fps=Fraction(1, 1000)), 5),
    "a hundred thousand frames a second": Poison(_video(fps=100_000), 40),
    # The edit list, in units of the film, then ends after the first frame.
    "no unit of time": Poison(_changed(_patched((*_MEDIA, b"mdhd"), 12, bytes(4)), _video()), 1),
    "the finest unit of time": Poison(
        _changed(_patched((*_MEDIA, b"mdhd"), 12, b"\x7f" + b"\xff" * 3), _video()), 40
    ),
    "the coarsest unit of time": Poison(
        _changed(_patched((*_MEDIA, b"mdhd"), 12, b"\0\0\0\x01"), _video()), 1
    ),
    "frames of no length": Poison(
        _changed(_patched((*_SAMPLES, b"stts"), 12, bytes(4)), _video()), 40
    ),
    "uneven times": Poison(_at([0, 10, 500, 510, 511, 2000]), 6),
    "times of centuries": Poison(_at([0, 40, 2**50]), 3),
    "times beyond 64 bits": Poison(
        _changed(_fragment_time(2**63 - 1), _fragmented), R.NOT_A_VIDEO, R.NOT_A_VIDEO
    ),
    "times at the end of 64 bits": Poison(
        _changed(_fragment_time(2**63 - 20_600), _fragmented), 40
    ),
    "times of half of 64 bits": Poison(_changed(_fragment_time(2**62), _fragmented), 40),
    "negative times": Poison(
        _changed(_block_times(lambda n, t: t - 500), _video("video.mkv", (20,), **_PICTURES)), 20
    ),
    "times that go back": Poison(
        _changed(
            _block_times(lambda n, t: t if n % 2 else 1000 - t),
            _video("video.mkv", (20,), **_PICTURES),
        ),
        20,
    ),
    "one time for all": Poison(
        _changed(_block_times(lambda n, t: 40), _video("video.mkv", (20,), **_PICTURES)), 20
    ),
    **{f"turned by {angle}": Poison(_video(rotation=angle), 40) for angle in (90, 180, 270)},
    "turned by nonsense": Poison(
        _changed(_patched((b"moov", b"trak", b"tkhd"), 40, b"\x7f\xff\xff\xff" * 9), _video()), 40
    ),
    **{
        f"{width} by {height}": Poison(
            _video("video.mkv", (12,), size=(width, height), codec="ffv1", pixel_format="bgr0"), 12
        )
        for width, height in ((1, 1), (3, 5), (65, 33), (2, 2000), (2000, 1))
    },
    "12000 by 12000 in half a megabyte": Poison(_of_pngs((12000, 12000)), R.TOO_LARGE, R.TOO_LARGE),
    "a size that is larger than the header says": Poison(
        _of_pngs((12000, 12000), says=(64, 48)), R.TOO_LARGE, R.TOO_LARGE
    ),
    "a size that grows on the way": Poison(
        _of_pngs((64, 48), (12000, 12000), (64, 48), (80, 20)), 3
    ),
    "an hour of black": Poison(_long_and_black, 720),
    "64 tracks": Poison(_many_tracks, 10),
    "a link out of the folder": Poison(_a_link_out, R.URI_NOT_ALLOWED, R.URI_NOT_ALLOWED),
}
