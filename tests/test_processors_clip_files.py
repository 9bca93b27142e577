"""The files that are made of a clip: exact to the pixel and the tick, and gone when it is done."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from clip_media import panning, span
from media import encode, pictures, sample, write_video

from processors import clip_files
from processors.clip_files import ClipFiles, WrittenFiles
from processors.clip_reader import ClipReader, ClipSpan
from processors.errors import DependencyFault, MediaError
from processors.frames import FrameSampling
from processors.media.pixels import BgrConverter, frame_rotation
from processors.media.sandbox import Sandbox
from processors.stage import FileRequest
from schemas.reasons import MediaReason
from schemas.settings import DecodeSettings, Settings, load_settings

BOTH = FileRequest(cut=True, frames=True)
LIMITED = 1
"""libav's number of the range that a file means which states none, 0."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(local={"state_dir": str(tmp_path / "state")})


@pytest.fixture
def cleanup() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def files_in(
    settings: Settings,
    cleanup: ExitStack,
    request: FileRequest = BOTH,
    sampling: FrameSampling | None = None,
) -> ClipFiles:
    sampling = sampling or FrameSampling()
    files = ClipFiles(settings.decode, settings.scratch_dir, request, sampling)
    cleanup.callback(files.close)
    return files


def write(
    settings: Settings,
    cleanup: ExitStack,
    path: Path,
    wanted: ClipSpan,
    request: FileRequest = BOTH,
    sampling: FrameSampling | None = None,
) -> WrittenFiles:
    files = files_in(settings, cleanup, request, sampling)
    return files.write(str(path), wanted, cleanup)


def cut_of(written: WrittenFiles) -> Path:
    return Path(written.columns["clip_file"])


def shown(
    frame: av.VideoFrame, time: Fraction
) -> tuple[Fraction, list[bytes], tuple[object, ...], int]:
    """When a frame is shown, its samples, how they are to be read, how a player turns it."""
    # Rows are padded; what is in the padding is nobody's.
    planes = []
    for index, plane in enumerate(frame.planes):
        rows = np.frombuffer(plane, np.uint8).reshape(plane.height, -1)
        size = plane.width * max(1, -(-frame.format.components[index].bits // 8))
        planes.append(rows[:, :size].tobytes())
    tags = (
        frame.format.name,
        int(frame.colorspace),
        int(frame.color_range) or LIMITED,
        int(frame.color_primaries),
        int(frame.color_trc),
    )
    return time, planes, tags, frame_rotation(frame)


def clip_frames(path: Path, wanted: ClipSpan) -> list[Any]:
    with ClipReader(str(path)) as reader:
        return [
            shown(frame, (pts - wanted.start_pts) * wanted.time_base)
            for pts, frame in reader.frames(wanted)
        ]


def file_frames(path: Path) -> list[Any]:
    with av.open(str(path)) as container:
        return [
            shown(frame, Fraction(frame.pts or 0) * Fraction(frame.time_base))
            for frame in container.decode(video=0)
        ]


@pytest.mark.parametrize(
    ("name", "start", "end"),
    [("bikes.mp4", 76, 137), ("bigbuckbunny.mp4", 3, 30), ("carphone_pristine.mp4", 5, 50)],
)
def test_a_cut_of_a_real_video_has_the_clips_frames_and_times(
    settings: Settings, cleanup: ExitStack, name: str, start: int, end: int
) -> None:
    path = sample(name)
    wanted = span(path, start, end)
    cut = cut_of(write(settings, cleanup, path, wanted))
    expected = clip_frames(path, wanted)
    assert len(expected) == end - start
    assert file_frames(cut) == expected
    with av.open(str(cut)) as container:
        stream = container.streams.video[0]
        assert stream.frames == end - start
        assert float(stream.duration * stream.time_base) == pytest.approx(wanted.length_s)
        assert [s.type for s in container.streams] == ["video"]


@pytest.mark.parametrize(
    ("file", "codec", "pixel_format"),
    [
        ("v.mp4", "libx264", "yuv420p"),
        ("v.mp4", "libx264", "yuv420p10le"),
        ("v.mp4", "libx264", "yuv444p"),
        ("v.mov", "mjpeg", "yuvj420p"),
        ("v.avi", "mpeg4", "yuv420p"),
        ("v.webm", "libvpx-vp9", "yuv420p"),
        ("v.mkv", "ffv1", "yuv411p"),
        ("v.mkv", "ffv1", "gray"),
        ("v.mkv", "ffv1", "yuva420p"),
    ],
)
def test_a_cut_keeps_every_pixel_format_as_it_is(
    settings: Settings,
    cleanup: ExitStack,
    tmp_path: Path,
    file: str,
    codec: str,
    pixel_format: str,
) -> None:
    path = encode(
        tmp_path / file, pictures((12, 12), size=(64, 48)), codec=codec, pixel_format=pixel_format
    )
    times = [time for time, *_ in file_times(path)]
    wanted = ClipSpan(times[3], times[20], time_base(path), 0.12, None, 64, 48)
    cut = cut_of(write(settings, cleanup, path, wanted, FileRequest(cut=True)))
    expected = clip_frames(path, wanted)
    assert len(expected) == 17
    assert file_frames(cut) == expected


def file_times(path: Path) -> list[tuple[int]]:
    with av.open(str(path)) as container:
        return [
            (frame.dts if "avi" in container.format.name else frame.pts,)
            for frame in container.decode(video=0)
        ]


def time_base(path: Path) -> Fraction:
    with av.open(str(path)) as container:
        return Fraction(container.streams.video[0].time_base)


def test_packed_rgb_is_kept_in_its_padded_form(
    settings: Settings, cleanup: ExitStack, tmp_path: Path
) -> None:
    path = encode(
        tmp_path / "v.avi", pictures((9,), size=(64, 48)), codec="rawvideo", pixel_format="bgr24"
    )
    times = [time for time, *_ in file_times(path)]
    wanted = ClipSpan(times[2], times[7], time_base(path), 0.08, None, 64, 48)
    cut = cut_of(write(settings, cleanup, path, wanted))
    to_bgr = BgrConverter()
    with ClipReader(str(path)) as reader:
        expected = [to_bgr(frame).copy() for _, frame in reader.frames(wanted)]
    with av.open(str(cut)) as container:
        found = [to_bgr(frame).copy() for frame in container.decode(video=0)]
    assert len(found) == 5
    assert np.array_equal(found, expected)


def test_colour_tags_rotation_and_uneven_times_are_kept(
    settings: Settings, cleanup: ExitStack, tmp_path: Path
) -> None:
    uneven = [0, 1, 4, 5, 9, 10, 11, 17, 20, 21]
    path = encode(
        tmp_path / "v.mp4",
        panning(10, 48, 64, 2),
        pts=uneven,
        time_base=Fraction(1, 30),
        rotation=90,
        colorspace=1,
        color_range=LIMITED,
    )
    wanted = span(path, 2, 8)
    cut = cut_of(write(settings, cleanup, path, wanted))
    found = file_frames(cut)
    assert found == clip_frames(path, wanted)
    assert [time for time, *_ in found] == [Fraction(t - 4, 30) for t in uneven[2:8]]
    _, _, tags, rotation = found[0]
    assert tags[1:3] == (1, LIMITED)
    assert rotation == 90


def test_a_cuts_keyframes_are_the_clips(
    settings: Settings, cleanup: ExitStack, tmp_path: Path
) -> None:
    path = write_video(tmp_path / "v.mp4", (40,), gop=12)
    cut = cut_of(write(settings, cleanup, path, span(path, 5, 40)))
    with av.open(str(cut)) as container:
        keys = [n for n, f in enumerate(container.decode(video=0)) if f.key_frame]
    # The first frame, and frames 12, 24 and 36 of the source.
    assert keys == [0, 7, 19, 31]


def test_opencv_sees_the_same_pixels(settings: Settings, cleanup: ExitStack) -> None:
    path = sample("bikes.mp4")
    cut = cut_of(write(settings, cleanup, path, span(path, 76, 90)))
    seen = []
    for file, first, count in ((path, 76, 14), (cut, 0, 14)):
        capture = cv2.VideoCapture(str(file))
        frames = [capture.read()[1] for _ in range(first + count)]
        seen.append(frames[first:])
        capture.release()
    assert np.array_equal(seen[0], seen[1])


def test_pictures_are_the_sampled_frames_upright_and_lossless(
    settings: Settings, cleanup: ExitStack, tmp_path: Path
) -> None:
    path = encode(tmp_path / "v.mp4", panning(20, 48, 64, 2), rotation=90)
    wanted = span(path, 4, 15)
    written = write(
        settings, cleanup, path, wanted, FileRequest(frames=True), FrameSampling("uniform", 3)
    )
    assert set(written.columns) == {"frame_files"}
    with ClipReader(str(path)) as reader:
        to_bgr = BgrConverter()
        frames = [to_bgr(frame).copy() for _, frame in reader.frames(wanted)]
    found = [cv2.imread(file) for file in written.columns["frame_files"]]
    assert found[0].shape == (64, 48, 3)
    assert np.array_equal(found, [frames[0], frames[6], frames[10]])


def test_many_keyframes_are_thinned_on_the_disk_as_well(
    settings: Settings, cleanup: ExitStack, tmp_path: Path
) -> None:
    path = encode(
        tmp_path / "v.mov", panning(140, 16, 16, 1), codec="mjpeg", pixel_format="yuvj420p"
    )
    written = write(settings, cleanup, path, span(path, 0, 140), FileRequest(frames=True))
    files = [Path(file) for file in written.columns["frame_files"]]
    assert len(files) == 70
    assert sorted(files[0].parent.iterdir()) == files


def test_files_are_gone_with_the_clip_and_what_a_killed_process_left_with_the_next(
    settings: Settings, tmp_path: Path
) -> None:
    scratch = settings.scratch_dir
    left = scratch / "clips-left"
    left.mkdir(parents=True)
    (left / "clip.mp4").write_bytes(b"left")
    os.utime(left, (0, 0))
    path = write_video(tmp_path / "v.mp4", (10,))
    with ExitStack() as resources:
        files = files_in(settings, resources)
        with ExitStack() as cleanup:
            cut = cut_of(files.write(str(path), span(path, 0, 10), cleanup))
            assert cut.is_file()
            assert not left.exists()
        assert not cut.parent.exists()
    assert list(scratch.iterdir()) == []


def test_a_clip_whose_frames_change_their_size_is_refused(
    settings: Settings, cleanup: ExitStack, tmp_path: Path
) -> None:
    parts = [write_video(tmp_path / f"{w}.ts", (10,), size=(w, 48)) for w in (64, 96)]
    path = tmp_path / "v.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    wanted = ClipSpan(0, 2**40, Fraction(1, 90000), 0.0, None, 64, 48)
    with pytest.raises(MediaError, match=r"64x48 yuv420p to 96x48 yuv420p") as caught:
        write(settings, cleanup, path, wanted)
    assert caught.value.reason is MediaReason.DECODE_ERROR
    assert caught.value.stage == "cut"


@pytest.mark.parametrize("request_", [FileRequest(cut=True), FileRequest(frames=True), BOTH])
def test_a_clip_whose_files_grow_too_large_is_at_fault_itself_and_leaves_none(
    tmp_path: Path, cleanup: ExitStack, request_: FileRequest
) -> None:
    path = write_video(tmp_path / "v.mp4", (30,))
    state = {"state_dir": str(tmp_path / "state")}
    whole = write(load_settings(local=state), cleanup, path, span(path, 0, 30), request_)
    assert whole.size == sum(file.stat().st_size for file in files_of(whole))
    strict = load_settings(local=state, decode={"clip_files_bytes": whole.size - 1})
    with pytest.raises(MediaError, match=r"more than \d+ bytes \(decode.clip_files_b") as caught:
        write(strict, cleanup, path, span(path, 0, 30), request_)
    assert caught.value.reason is MediaReason.TOO_LARGE
    assert not caught.value.retryable
    exact = load_settings(local=state, decode={"clip_files_bytes": whole.size})
    again = write(exact, cleanup, path, span(path, 0, 30), request_)
    left = {file.parent for file in strict.scratch_dir.glob("clips-*/*/*")}
    assert left == {files_of(one)[0].parent for one in (whole, again)}


def files_of(written: WrittenFiles) -> list[Path]:
    cut = [written.columns["clip_file"]] if "clip_file" in written.columns else []
    return [Path(file) for file in (*cut, *written.columns.get("frame_files", ()))]


def test_an_error_that_nobody_foresaw_is_worth_another_try(
    settings: Settings, cleanup: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "v.mp4", (10,))
    monkeypatch.setattr(clip_files, "write_clip_files", divide_by_zero)
    with pytest.raises(MediaError, match="ZeroDivisionError") as caught:
        write(settings, cleanup, path, span(path, 0, 10))
    assert (caught.value.reason, caught.value.stage) == (MediaReason.STAGE_ERROR, "cut")
    assert caught.value.retryable


def divide_by_zero(*_: object) -> None:
    """What the child runs."""
    1 / 0  # noqa: B018


def test_a_scratch_folder_that_cannot_be_written_blames_no_clip(
    settings: Settings, cleanup: ExitStack, tmp_path: Path
) -> None:
    settings.scratch_dir.parent.mkdir(parents=True)
    settings.scratch_dir.write_bytes(b"a file where the folder should be")
    path = write_video(tmp_path / "v.mp4", (10,))
    with pytest.raises(DependencyFault, match="cannot be cut in"):
        write(settings, cleanup, path, span(path, 0, 10))


def test_a_child_that_decodes_only_may_still_write_nothing(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", (10,))
    folder = tmp_path / "out"
    folder.mkdir()
    with Sandbox(DecodeSettings()) as sandbox, pytest.raises(MediaError) as caught:
        sandbox.run(
            clip_files.write_clip_files,
            str(path),
            span(path, 0, 10),
            str(folder),
            BOTH,
            FrameSampling(),
            2**30,
            deadline_s=60,
        )
    assert caught.value.reason is MediaReason.TOO_LARGE
