"""The videos that are measured: real ones, and made ones of known size, codec and keyframes.

What is made is kept in a folder and made once. Its bit rates are those at which services stream
pictures of such sizes, since what decoding costs depends on them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from processors.media.probe import VideoInfo, probe
from tests.clip_media import panning
from tests.media import SAMPLES, encode

FPS = 25
SHOTS = (75, 50, 100, 25)
"""Frames of each shot of a made video: 10 s in all."""
KEYFRAMES = {"short": FPS, "streamed": 2 * FPS, "long": sum(SHOTS)}
"""Frames from one keyframe to the next; ``streamed`` as services that cut streams want it."""
_KBITS = {180: 300, 360: 800, 720: 2500, 1080: 5000}
"""A second, by height, of H.264; the newer codecs get two thirds."""
_GRAIN = 6
"""Most that a pixel's noise adds: what a sensor does, and what keeps frames from being copies."""
_PAN = 3
"""Pixels that the camera moves a frame."""
_SUFFIXES = (".mp4", ".mkv", ".mov", ".webm", ".avi", ".ts", ".m4v")
_ENCODERS: dict[str, tuple[str, str, dict[str, str]]] = {
    "h264": ("libx264", ".mp4", {"preset": "veryfast", "bf": "2", "sc_threshold": "0"}),
    "hevc": ("libx265", ".mp4", {"preset": "superfast"}),
    "vp9": ("libvpx-vp9", ".webm", {"deadline": "realtime", "cpu-used": "8"}),
}


@dataclass(frozen=True)
class Made:
    """A video to be made."""

    height: int
    codec: str
    keyframes: str
    """One of `KEYFRAMES`."""
    shots: tuple[int, ...] = SHOTS

    @property
    def name(self) -> str:
        frames = "" if self.shots == SHOTS else "-" + "-".join(map(str, self.shots))
        return f"{self.height}p-{self.codec}-{self.keyframes}{frames}"


@dataclass(frozen=True)
class Video:
    """A video that is there."""

    name: str
    path: Path
    info: VideoInfo

    @property
    def size(self) -> int:
        """Bytes."""
        return self.path.stat().st_size


ALL_MADE = tuple(
    Made(height, codec, keyframes)
    for height in (360, 720, 1080)
    for codec in _ENCODERS
    for keyframes in ("short", "long")
)
FEW_MADE = (
    Made(360, "h264", "short"),
    Made(720, "h264", "long"),
    Made(720, "hevc", "short"),
    Made(720, "vp9", "long"),
    Made(1080, "h264", "short"),
)
"""Each size and each codec once."""


def samples() -> list[Video]:
    """The real clips that `make setup` brings."""
    return videos_in(SAMPLES)


def videos_in(folder: Path) -> list[Video]:
    """The videos of a folder, by name."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
    return [Video(path.name, path, probe(path)) for path in paths]


def make(wanted: Sequence[Made], folder: Path) -> list[Video]:
    """The made videos, of which those that are not in ``folder`` are encoded now."""
    folder.mkdir(parents=True, exist_ok=True)
    return [_made(made, folder) for made in wanted]


def cut(video: Video, first: int, after: int, path: Path, *, gop: int = 250) -> Path:
    """Frames ``[first, after)`` as a file that begins with a keyframe, as DataJuicer's clips do.

    ``gop``: frames from one keyframe to the next.
    """
    if not path.exists():
        part = path.with_name(f"part-{path.name}")
        encode(
            part,
            _frames(video, first, after),
            fps=video.info.fps,
            options={"preset": "veryfast", "g": str(gop)},
        )
        part.rename(path)
    return path


def lengthened(video: Path, seconds: float, path: Path) -> Path:
    """A video's packets again and again, until it is so long; nothing is encoded."""
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    # By another name until it is whole: a run may be interrupted here.
    part = path.with_name(f"part-{path.name}")
    with av.open(str(video)) as source, av.open(str(part), "w") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        unit = stream.time_base or Fraction(1, 1)
        packets = [
            (packet, packet.pts, packet.dts)
            for packet in source.demux(stream)
            if packet.pts is not None and packet.dts is not None
        ]
        first = min(pts for _, pts, _ in packets)
        length = max(pts + (packet.duration or 0) for packet, pts, _ in packets) - first
        for number in range(round(seconds / float(length * unit) * len(packets))):
            again, place = divmod(number, len(packets))
            packet, pts, dts = packets[place]
            packet.pts, packet.dts = pts + again * length, dts + again * length
            packet.stream, packet.time_base = copy, unit
            target.mux(packet)
    part.rename(path)
    return path


def _frames(video: Video, first: int, after: int) -> Iterator[npt.NDArray[np.uint8]]:
    with av.open(str(video.path)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number >= after:
                return
            if number >= first:
                yield np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)


def _made(made: Made, folder: Path) -> Video:
    encoder, suffix, options = _ENCODERS[made.codec]
    path = folder / f"{made.name}{suffix}"
    if not path.exists():
        gop = KEYFRAMES[made.keyframes]
        kbits = _KBITS[made.height] * (1 if made.codec == "h264" else 2 / 3)
        options = {**options, "g": str(gop), "b": f"{kbits:.0f}k"}
        if made.codec == "hevc":
            options["x265-params"] = f"keyint={gop}:min-keyint={gop}:scenecut=0:log-level=none"
        # By another name until it is whole: a run may be interrupted here.
        part = path.with_name(f"part-{path.name}")
        encode(part, _pictures(made.height, made.shots), fps=FPS, codec=encoder, options=options)
        part.rename(path)
    return Video(made.name, path, probe(path))


def _pictures(height: int, shots: Sequence[int]) -> Iterator[npt.NDArray[np.uint8]]:
    """Shots of a moving camera over different textures, with grain."""
    width = height * 16 // 9
    rng = np.random.default_rng(7)
    grain = rng.integers(0, _GRAIN + 1, (height + 64, width + 64, 1), np.uint8)
    for number, frames in enumerate(shots):
        # Every other shot is dark: shots of one brightness would be no cuts.
        dim = np.uint8(1 + number % 2)
        for picture in panning(frames, height, width, _PAN, seed=number):
            top, left = rng.integers(0, 64, 2)
            speck = grain[top : top + height, left : left + width]
            yield np.minimum(picture // dim, 255 - _GRAIN).astype(np.uint8) + speck
