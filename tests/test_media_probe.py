"""What a file holds, and the exact reason why it holds no video."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from processors.errors import MediaError
from processors.media.probe import probe
from schemas.reasons import MediaReason
from tests.media import write_audio, write_video

PICTURE = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)


def _reason(path: Path) -> MediaReason:
    with pytest.raises(MediaError) as caught:
        probe(path)
    assert caught.value.stage == "probe"
    assert not caught.value.retryable
    return caught.value.reason


def _file(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_a_video_is_described(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "video.mp4", (30, 20), size=(320, 180), gop=10, rotation=90, b_frames=2
    )
    info = probe(path)
    assert (info.codec, info.width, info.height, info.rotation) == ("h264", 320, 180, 90)
    assert info.fps == info.nominal_fps == 25
    assert info.frame_count == 50
    assert info.duration_s == pytest.approx(2.0)
    assert len(info.keyframe_pts) == 5
    assert info.keyframe_pts == tuple(sorted(info.keyframe_pts))
    steps = np.diff(info.keyframe_pts) * float(info.time_base)
    assert steps.tolist() == pytest.approx([0.4] * 4)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_rotation_is_clockwise(rotation: int, tmp_path: Path) -> None:
    assert probe(write_video(tmp_path / "v.mp4", (2,), rotation=rotation)).rotation == rotation


@pytest.mark.parametrize("name", ["v.mp4", "v.mov", "v.mkv", "v.avi", "v.ts", "v.flv"])
def test_usual_containers_are_read_whatever_their_name(name: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / name, (10,)).rename(tmp_path / "video")
    assert probe(path).frame_count == 10


def test_sound_beside_the_picture_is_no_matter(tmp_path: Path) -> None:
    info = probe(write_video(tmp_path / "video.mp4", (10,), audio=True))
    assert (info.frame_count, info.codec) == (10, "h264")


def test_uneven_times_are_kept(tmp_path: Path) -> None:
    pts = [0, 10, 500, 510, 2000]
    info = probe(write_video(tmp_path / "v.mkv", (5,), pts=pts, time_base=Fraction(1, 1000)))
    assert info.start_pts == 0
    assert info.last_pts_end > 2000
    assert info.duration_s >= 2.0


def test_an_open_gop_is_cut_where_every_earlier_packet_shows_earlier(tmp_path: Path) -> None:
    info = probe(write_video(tmp_path / "v.mp4", (40,), gop=10, b_frames=3, open_gop=True))
    assert len(info.keyframe_pts) >= 4
    assert info.cut_pts == info.keyframe_pts


BROKEN: dict[str, tuple[Callable[[bytes], bytes], MediaReason]] = {
    "empty": (lambda video: b"", MediaReason.EMPTY_FILE),
    "half": (lambda video: video[: len(video) // 2], MediaReason.TRUNCATED),
    "all but its last bytes": (lambda video: video[:-10], MediaReason.TRUNCATED),
    "its first bytes": (lambda video: video[:30], MediaReason.TRUNCATED),
    "text": (lambda video: b"not a video\n" * 100, MediaReason.NOT_A_VIDEO),
    "zeros": (lambda video: bytes(5000), MediaReason.NOT_A_VIDEO),
    "noise": (lambda video: random.Random(1).randbytes(50_000), MediaReason.NOT_A_VIDEO),
    "a web page": (lambda video: b"<!DOCTYPE html><html></html>", MediaReason.NOT_A_VIDEO),
    "png": (lambda video: bytes(cv2.imencode(".png", PICTURE)[1]), MediaReason.NOT_A_VIDEO),
    "jpeg": (lambda video: bytes(cv2.imencode(".jpg", PICTURE)[1]), MediaReason.NOT_A_VIDEO),
    "gif": (lambda video: b"GIF89a" + bytes(2000), MediaReason.NOT_A_VIDEO),
    "subtitles": (
        lambda video: b"1\n00:00:00,000 --> 00:00:01,000\nHello\n\n" * 20,
        MediaReason.NOT_A_VIDEO,
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_no_whole_video_is_refused_with_its_reason(what: str, tmp_path: Path) -> None:
    change, reason = BROKEN[what]
    video = write_video(tmp_path / "good.mp4", (30,)).read_bytes()
    assert _reason(_file(tmp_path / "video.mp4", change(video))) is reason


@pytest.mark.parametrize("name", ["v.mp4", "v.mov", "v.mkv", "v.webm", "v.avi"])
def test_a_file_that_was_cut_off_is_truncated(name: str, tmp_path: Path) -> None:
    codec = {"codec": "libvpx"} if name.endswith("webm") else {}
    data = write_video(tmp_path / name, (30,), **codec).read_bytes()
    for part in (0.3, 0.6, 0.95):
        cut = _file(tmp_path / f"cut{part}", data[: int(len(data) * part)])
        assert _reason(cut) is MediaReason.TRUNCATED


@pytest.mark.parametrize("movflags", ["faststart", "frag_keyframe+empty_moov"])
def test_an_index_at_the_front_does_not_hide_that_frames_are_missing(
    movflags: str, tmp_path: Path
) -> None:
    path = write_video(tmp_path / "v.mp4", (30,), container_options={"movflags": movflags})
    data = path.read_bytes()
    assert _reason(_file(path, data[: len(data) * 2 // 3])) is MediaReason.TRUNCATED


def test_a_recording_without_an_index_is_truncated(tmp_path: Path) -> None:
    data = write_video(tmp_path / "v.mp4", (30,)).read_bytes()
    path = _file(tmp_path / "unfinished.mp4", data[: data.index(b"moov") - 4])
    with pytest.raises(MediaError, match="moov"):
        probe(path)
    assert _reason(path) is MediaReason.TRUNCATED


@pytest.mark.parametrize("tail", [b"\0" * 4, b"\0" * 100, b"TAGsomething else"])
def test_what_others_append_to_a_whole_file_is_no_matter(tail: bytes, tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", (10,))
    assert probe(_file(path, path.read_bytes() + tail)).frame_count == 10


@pytest.mark.parametrize("name", ["a.m4a", "a.wav", "a.mkv"])
def test_sound_alone_is_no_video_stream(name: str, tmp_path: Path) -> None:
    path = write_audio(tmp_path / name)
    assert _reason(path) is MediaReason.NO_VIDEO_STREAM
    assert _reason(path.rename(tmp_path / "video.mp4")) is MediaReason.NO_VIDEO_STREAM


def test_a_stream_without_a_frame_is_no_frames(tmp_path: Path) -> None:
    path = tmp_path / "v.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        sound = container.add_stream("pcm_s16le", rate=44100)
        container.start_encoding()
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 2048), np.int16), format="s16", layout="stereo"
        )
        frame.rate, frame.pts = 44100, 0
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    assert _reason(path) is MediaReason.NO_FRAMES


def test_a_bomb_of_pixels_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "bomb.mov"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=1)
        stream.width = stream.height = 9000
        stream.pix_fmt = "gray"
        frame = av.VideoFrame.from_ndarray(np.zeros((9000, 9000), np.uint8), format="gray")
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert path.stat().st_size < 500_000
    assert _reason(path) is MediaReason.TOO_LARGE


def test_missing_files_and_folders_are_not_found(tmp_path: Path) -> None:
    assert _reason(tmp_path / "absent.mp4") is MediaReason.NOT_FOUND
    assert _reason(tmp_path) is MediaReason.NOT_FOUND


@pytest.mark.parametrize(
    "playlist",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{url}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{url}'\n",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011">{url}</MPD>',
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    ],
)
def test_a_playlist_is_no_video_and_opens_nothing_else(playlist: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/video.ts"
        path = _file(tmp_path / "video.mp4", playlist.format(url=url).encode())
        assert _reason(path) is MediaReason.NOT_A_VIDEO
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_the_limits_are_given_to_libav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "video.mp4", (2,))
    given: list[dict[str, Any]] = []
    really_open = av.open

    def spy(*args: Any, **kwargs: Any) -> Any:
        given.append(kwargs["options"])
        return really_open(*args, **kwargs)

    monkeypatch.setattr(av, "open", spy)
    probe(path)
    assert given[0]["protocol_whitelist"] == "file"
    listed = set(given[0]["format_whitelist"].split(","))
    assert not listed & {"hls", "concat", "dash", "image2", "sdp", "rtsp", "lavfi"}
