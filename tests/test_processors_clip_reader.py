"""Any range of a file gives the frames that one pass over the whole file gives for it."""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import pytest
from clip_media import all_frames, panning, span
from media import cut_frames, encode, sample, write_video

from processors.clip_reader import ClipReader, ClipSpan
from processors.errors import MediaError
from processors.media.probe import probe
from processors.scenes import detect_scenes
from processors.split import join_scores, plan_segments, score_segment
from schemas.operators import SplitByScene
from schemas.reasons import MediaReason

KINDS = {
    "plain.mp4": ("libx264", {"g": "12"}),
    "b_frames.mp4": ("libx264", {"g": "24", "bf": "3", "b-pyramid": "normal"}),
    "open_gop.mp4": ("libx264", {"g": "15", "bf": "3", "x264-params": "open-gop=1"}),
    "one_gop.mp4": ("libx264", {"g": "1000", "bf": "2"}),
    "refresh.ts": ("libx264", {"g": "20", "bf": "0", "x264-params": "intra-refresh=1"}),
    "matroska.mkv": ("libx264", {"g": "12", "bf": "2"}),
    "transport.ts": ("libx264", {"g": "12", "bf": "2"}),
    "mpeg4.avi": ("mpeg4", {"g": "12"}),
    "b_mpeg4.mp4": ("mpeg4", {"g": "12", "bf": "2"}),
    "hevc.mp4": ("libx265", {"g": "20", "x265-params": "log-level=none"}),
    "vp9.webm": ("libvpx-vp9", {"g": "15", "deadline": "realtime", "cpu-used": "8"}),
    "all_keys.mov": ("mjpeg", {}),
}
FRAMES = 60


@pytest.fixture(scope="module", params=sorted(KINDS))
def video(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    codec, options = KINDS[request.param]
    path = tmp_path_factory.mktemp("reader") / request.param
    pixel_format = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    return encode(
        path, panning(FRAMES, 64, 96, 2), codec=codec, options=options, pixel_format=pixel_format
    )


def read(reader: ClipReader, wanted: ClipSpan) -> list[tuple[int, bytes, bool]]:
    return [(pts, f.to_ndarray().tobytes(), bool(f.key_frame)) for pts, f in reader.frames(wanted)]


def test_every_range_gives_its_own_frames(video: Path) -> None:
    frames = all_frames(video)
    count = len(frames)
    ranges = [(0, count), (0, 1), (count - 1, count), (13, 29), (24, 25), (11, 12), (30, count)]
    random.Random(5).shuffle(ranges)
    with ClipReader(str(video)) as reader:
        for start, end in ranges:
            assert read(reader, span(video, start, end)) == frames[start:end], (start, end)


def test_adjacent_ranges_share_the_pass(video: Path) -> None:
    frames = all_frames(video)
    borders = [0, 7, 8, 22, 41, len(frames)]
    with ClipReader(str(video)) as reader:
        for start, end in pairwise(borders):
            found = read(reader, span(video, start, end))
            assert [pts for pts, _, _ in found] == [pts for pts, _, _ in frames[start:end]]
            assert found == frames[start:end]


def test_ranges_with_gaps_after_the_keyframes_were_located(video: Path) -> None:
    frames = all_frames(video)
    ranges = [(2, 5), (9, 20), (33, 36), (50, 58)]
    with ClipReader(str(video)) as reader:
        spans = [span(video, start, end) for start, end in ranges]
        located = [replace(s, key_pts=reader.locate(s)) for s in spans]
        for (start, end), wanted in zip(ranges, located, strict=True):
            assert wanted.key_pts is None or wanted.key_pts <= wanted.start_pts
            assert read(reader, wanted) == frames[start:end]


def test_ranges_of_uneven_frames_that_begin_late(tmp_path: Path) -> None:
    times = [7000 + 40 * n + 17 * (n % 3) + 900 * (n // 20) for n in range(60)]
    path = write_video(
        tmp_path / "uneven.mkv", [60], pts=times, time_base=Fraction(1, 1000), b_frames=2
    )
    frames = all_frames(path)
    assert [pts for pts, _, _ in frames] == times
    with ClipReader(str(path)) as reader:
        for start, end in ((25, 40), (40, 60), (3, 21)):
            assert read(reader, span(path, start, end)) == frames[start:end]


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_scenes_of_an_avi_with_b_frames_are_found_again(tmp_path: Path, codec: str) -> None:
    shots = (31, 22, 40, 17, 30)
    path = write_video(tmp_path / "reordered.avi", shots, codec=codec, b_frames=2)
    info = probe(path)
    scores = join_scores([score_segment(path, info, s) for s in plan_segments(info, 1e9)])
    scenes = detect_scenes(scores.pts, scores.scores, info, SplitByScene(), end_pts=scores.end_pts)
    assert [(scene.start_frame, scene.end_frame) for scene in scenes] == cut_frames(shots)
    frames = [planes for _, planes, _ in all_frames(path)]
    for order in (scenes, scenes[::-1]):
        with ClipReader(str(path)) as reader:
            for scene in order:
                wanted = ClipSpan(scene.start_pts, scene.end_pts, info.time_base, 0, None, 0, 0)
                found = [planes for _, planes, _ in read(reader, wanted)]
                assert found == frames[scene.start_frame : scene.end_frame]


@pytest.mark.parametrize("name", ["bikes.mp4", "bigbuckbunny.mp4"])
def test_ranges_of_real_videos(name: str) -> None:
    path = sample(name)
    frames = all_frames(path)
    with ClipReader(str(path)) as reader:
        for start, end in ((60, 75), (5, 9), (100, 101)):
            assert read(reader, span(path, start, end)) == frames[start:end]


def test_locating_finds_the_keyframe_that_decoding_needs(tmp_path: Path) -> None:
    path = encode(tmp_path / "v.mp4", panning(50, 64, 96, 1), options={"g": "10", "bf": "0"})
    frames = all_frames(path)
    keys = [pts for pts, _, key in frames if key]
    assert len(keys) == 5
    with ClipReader(str(path)) as reader:
        for start in (0, 9, 10, 11, 37, 49):
            wanted = span(path, start, start + 1)
            assert reader.locate(wanted) == max(k for k in keys if k <= wanted.start_pts)


def test_what_has_to_be_read_before_a_clip_counts_from_its_keyframe(tmp_path: Path) -> None:
    path = encode(tmp_path / "v.mp4", panning(50, 64, 96, 1), options={"g": "10", "bf": "0"})
    wanted = span(path, 35, 40)
    assert wanted.length_s == pytest.approx(5 / 25)
    assert wanted.lead_s == pytest.approx(35 / 25)
    with ClipReader(str(path)) as reader:
        located = replace(wanted, key_pts=reader.locate(wanted))
    assert located.lead_s == pytest.approx(5 / 25)


def test_a_range_beyond_the_end_has_no_frames(tmp_path: Path) -> None:
    path = encode(tmp_path / "v.mp4", panning(10, 64, 96, 1))
    whole = span(path, 0, 10)
    beyond = replace(whole, start_pts=whole.end_pts + 100_000, end_pts=whole.end_pts + 200_000)
    with ClipReader(str(path)) as reader:
        assert read(reader, beyond) == []
        assert len(read(reader, whole)) == 10


def test_a_clip_cut_on_another_clock_is_refused(tmp_path: Path) -> None:
    path = encode(tmp_path / "v.mp4", panning(10, 64, 96, 1))
    wrong = replace(span(path, 0, 10), time_base=Fraction(1, 7))
    with ClipReader(str(path)) as reader, pytest.raises(MediaError, match="units of") as caught:
        read(reader, wrong)
    assert caught.value.reason is MediaReason.SOURCE_CHANGED
    assert caught.value.stage == "decode"


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", {"g": "10", "bf": "0", "x264-params": "intra-refresh=1"}),
        ("libvpx-vp9", {"g": "10"}),
    ],
)
def test_behind_a_damaged_keyframe_decoding_begins_at_the_one_before(
    tmp_path: Path, codec: str, options: dict[str, str]
) -> None:
    path = encode(tmp_path / "v.mp4", panning(40, 64, 96, 1), codec=codec, options=options)
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    key = [index for index, packet in enumerate(packets) if packet.is_keyframe][2]
    content = bytearray(path.read_bytes())
    position = packets[key].pos
    assert position is not None
    content[position : position + packets[key].size] = bytes(packets[key].size)
    path.write_bytes(content)
    frames = all_frames(path)
    shown = [pts for pts, _, _ in frames]
    start = shown.index(packets[key + 3].pts)
    with ClipReader(str(path)) as reader:
        wanted = span(path, start, start + 3)
        assert read(reader, wanted) == frames[start : start + 3]
