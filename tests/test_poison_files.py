"""Poisonous videos: each ends with its reason, in the split and in the enrichment, and alone."""

from __future__ import annotations

import math
import shutil
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from processors.chain import ClipResult, EnrichmentChain
from processors.errors import MediaError
from processors.fetch import Fetcher
from processors.media.probe import probe
from processors.media.sandbox import Sandbox
from processors.scenes import detect_scenes
from processors.split import (
    clip_rows,
    join_scores,
    plan_segments,
    score_segment,
    segment_seconds,
)
from schemas.ids import video_key
from schemas.reasons import ClipStatus, MediaReason
from schemas.recipe import parse_recipe
from schemas.settings import Settings, load_settings
from schemas.tables import CLIPS, ENRICHED_CLIPS
from tests import sandbox_tasks
from tests.media import write_video
from tests.poison import PLAYLISTS, POISONS, box, flipped
from tests.servers import Answer, answer, drip, serve

RECIPE = parse_recipe(
    "process: [video_split_by_scene_mapper, video_extract_frames_mapper,"
    " video_motion_score_filter: {min_score: 0}]",
    where="test",
    default_name="test",
)
LONG = 60.0
CLIPS_RUN = 2
"""How many clips of one poisoned video are enriched."""

Row = dict[str, Any]


@dataclass
class Split:
    """What the split makes of one file."""

    frames: int
    rows: list[Row]


class Pipeline:
    """The split as the job's operators do it, and the chain, over the files of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "in"
        self.folder.mkdir()
        self.settings: Settings = load_settings(
            fetch={
                "file_roots": [str(self.folder)],
                "https_hosts": ["127.0.0.1"],
                "allow_http": True,
                "allow_private_addresses": True,
                "attempts": 1,
                "deadline_s": 1.0,
            },
            local={"state_dir": str(folder / "state")},
        )
        self.sandbox = Sandbox(self.settings.decode)
        self.fetcher = Fetcher(self.settings.fetch, self.settings.scratch_dir)
        self.chain = EnrichmentChain(RECIPE, self.settings)
        self.chain.setup()
        self.good_file = write_video(self.folder / "good.mp4", (20, 20), size=(64, 48))
        self.good = self.split(self.good_file).rows[1]

    def close(self) -> None:
        self.chain.close()
        self.sandbox.close()

    def split(self, path: Path) -> Split:
        """`MediaError` is all that it may raise."""
        uri = path.absolute().as_uri()
        with self.fetcher.fetch(uri) as media:
            run = partial(self.sandbox.run, stage="split")
            info = run(probe, str(media.path), deadline_s=LONG)
            joined = join_scores(
                [
                    run(
                        score_segment,
                        str(media.path),
                        info,
                        segment,
                        deadline_s=self.sandbox.deadline_for(segment_seconds(info, segment)),
                    )
                    for segment in plan_segments(info, self.settings.decode.segment_s)
                ]
            )
            rows = clip_rows(
                {"video_key": video_key(uri, uri), "video_id": uri, "uri": uri},
                info,
                detect_scenes(
                    joined.pts, joined.scores, info, RECIPE.split, end_pts=joined.end_pts
                ),
                recipe=RECIPE,
                content_sha256=media.sha256,
                created_at=datetime.now(UTC),
            )
        _check(rows)
        return Split(len(joined.pts), rows)

    def enrich(self, *rows: Mapping[str, Any]) -> list[ClipResult]:
        """The results, between two good clips that must not be any the worse for them."""
        first, *results, last = self.chain.run([self.good, *rows, self.good])
        assert (first.status, last.status) == (ClipStatus.KEPT, ClipStatus.KEPT)
        pa.Table.from_pylist(
            [{**r.enriched, "enrich_seq": 1} for r in results],
            schema=ENRICHED_CLIPS.arrow_schema(),
        ).validate(full=True)
        return results

    def pointed_at(self, uri: str) -> Row:
        """A good clip's row, as if its video had always been this one."""
        return {**self.good, "uri": uri, "video_key": "poison", "content_sha256": None}


def _check(rows: list[Row]) -> None:
    """Rows that the table takes and whose numbers are numbers."""
    assert rows
    pa.Table.from_pylist(rows, schema=CLIPS.arrow_schema()).validate(full=True)
    for row in rows:
        assert row["start_pts"] < row["end_pts"]
        for column in ("start_s", "end_s", "duration_s", "fps"):
            assert math.isfinite(row[column]), column


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    running = Pipeline(tmp_path_factory.mktemp("poison"))
    yield running
    running.close()


@pytest.fixture
def folder(pipeline: Pipeline) -> Iterator[Path]:
    """An empty folder that may be read."""
    made = pipeline.folder / "poison"
    made.mkdir()
    yield made
    shutil.rmtree(made)


def _child(pipeline: Pipeline) -> int:
    return pipeline.sandbox.run(sandbox_tasks.process_id, deadline_s=LONG)


@pytest.mark.parametrize("name", POISONS)
def test_a_poison_ends_as_it_has_to_and_harms_no_other(
    name: str, pipeline: Pipeline, folder: Path
) -> None:
    poison = POISONS[name]
    path = poison.make(folder)
    child = _child(pipeline)
    if isinstance(poison.split, MediaReason):
        with pytest.raises(MediaError) as caught:
            pipeline.split(path)
        assert caught.value.reason is poison.split
        assert caught.value.error.isprintable()
        rows = [pipeline.pointed_at(path.absolute().as_uri())]
    else:
        found = pipeline.split(path)
        assert found.frames == poison.split
        rows = found.rows[:CLIPS_RUN]
    # None of them needed a process's death to be dealt with.
    assert _child(pipeline) == child
    for result in pipeline.enrich(*rows):
        if poison.enriched is None:
            assert result.status in (ClipStatus.KEPT, ClipStatus.REJECTED)
        else:
            assert result.failure is not None
            assert result.failure["reason"] == poison.enriched


@pytest.mark.parametrize("what", PLAYLISTS)
def test_a_playlist_under_the_name_of_a_video_opens_nothing(
    what: str, pipeline: Pipeline, folder: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/video.ts"
        path = folder / "video.mp4"
        path.write_text(PLAYLISTS[what].format(url=url))
        with pytest.raises(MediaError):
            pipeline.split(path)
        pipeline.enrich(pipeline.pointed_at(path.as_uri()))
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


_BAD = frozenset(
    {
        MediaReason.EMPTY_FILE,
        MediaReason.TRUNCATED,
        MediaReason.NOT_A_VIDEO,
        MediaReason.NO_VIDEO_STREAM,
        MediaReason.NO_FRAMES,
        MediaReason.DECODE_ERROR,
        MediaReason.TOO_LARGE,
        # An index may claim to have gigabytes; the limit of the child says no.
        MediaReason.OUT_OF_MEMORY,
    }
)
"""Why a damaged file is no video. A crash, a deadline or an unforeseen error is none of them."""
_BAD_CLIP = _BAD | {MediaReason.SOURCE_CHANGED}
"""A clip of a damaged file may also find another clock in it than it was cut by."""


def _judge(pipeline: Pipeline, path: Path) -> MediaReason | None:
    """Split and enrich a damaged file; why it is no video, or None if it has clips."""
    problem = None
    try:
        rows = pipeline.split(path).rows[:CLIPS_RUN]
    except MediaError as error:
        problem = error
        rows = [pipeline.pointed_at(path.as_uri())]
    assert problem is None or problem.reason in _BAD, problem
    for result in pipeline.enrich(*rows):
        assert result.failure is None or result.failure["reason"] in _BAD_CLIP, result.failure
    return None if problem is None else problem.reason


@pytest.mark.parametrize(
    ("name", "movflags"),
    [
        ("video.mp4", ""),
        ("video.mp4", "faststart"),
        ("video.mp4", "frag_keyframe+empty_moov"),
        ("video.mkv", ""),
        ("video.avi", ""),
    ],
)
def test_a_video_that_ends_at_any_byte_is_truncated(
    name: str, movflags: str, pipeline: Pipeline, folder: Path
) -> None:
    options = {"movflags": movflags} if movflags else {}
    path = write_video(folder / name, (20,), size=(64, 48), container_options=options)
    data = path.read_bytes()
    header = 12
    """Before this many bytes nothing says what it is, let alone how long."""
    lengths = [*range(1, len(data), len(data) // 16)]
    if movflags == "faststart":
        # Between two boxes, of which the next would have been the one with the frames.
        lengths.append(data.index(b"mdat") - 4)
    for length in lengths:
        path.write_bytes(data[:length])
        reason = _judge(pipeline, path)
        assert reason is (MediaReason.TRUNCATED if length > header else MediaReason.NOT_A_VIDEO)


def test_a_transport_stream_that_ends_at_any_byte_has_the_frames_that_it_has(
    pipeline: Pipeline, folder: Path
) -> None:
    path = write_video(folder / "video.ts", (20,), size=(64, 48))
    data = path.read_bytes()
    judged = []
    for length in range(1, len(data), len(data) // 16):
        path.write_bytes(data[:length])
        judged.append(_judge(pipeline, path))
    assert judged[0] is MediaReason.NOT_A_VIDEO
    assert judged[-1] is None


@pytest.mark.parametrize("name", ["video.mp4", "video.mkv", "video.avi", "video.ts"])
def test_no_bit_of_an_index_turned_over_does_more_than_spoil_its_file(
    name: str, pipeline: Pipeline, folder: Path
) -> None:
    path = write_video(folder / name, (12, 8), size=(64, 48), gop=5)
    data = path.read_bytes()
    start, end = box(data, b"moov") if path.suffix == ".mp4" else (0, 600)
    for number, position in enumerate(range(start, end, 20)):
        path.write_bytes(flipped(data, position, number % 8))
        _judge(pipeline, path)


# Sources that are not what they were, or are said to be.


def test_a_source_that_changes_after_the_split_fails_its_clips(
    pipeline: Pipeline, folder: Path
) -> None:
    path = write_video(folder / "video.mp4", (20,), size=(64, 48))
    rows = pipeline.split(path).rows
    write_video(path, (20,), size=(64, 48), gop=3)
    (result,) = pipeline.enrich(*rows)
    assert result.failure is not None
    assert result.failure["reason"] == MediaReason.SOURCE_CHANGED


@pytest.mark.parametrize("change", [b"", b"\0", b"#EXTM3U\nfile:///etc/passwd\n"])
def test_a_source_that_turns_to_poison_after_the_split_fails_its_clips(
    change: bytes, pipeline: Pipeline, folder: Path
) -> None:
    path = write_video(folder / "video.mp4", (20,), size=(64, 48))
    rows = pipeline.split(path).rows
    path.write_bytes(change)
    (result,) = pipeline.enrich(*rows)
    assert result.failure is not None
    assert result.failure["reason"] == MediaReason.SOURCE_CHANGED


def test_bodies_of_another_length_than_announced_and_slow_ones(pipeline: Pipeline) -> None:
    good = pipeline.good_file.read_bytes()
    pages: dict[str, bytes | Answer] = {
        "/shorter": lambda handler: answer(handler, 200, good, length=len(good) + 100),
        "/longer": lambda handler: answer(handler, 200, good + bytes(100), length=len(good)),
        "/slow": drip(0.2, pieces=100),
    }
    with serve(pages) as server:
        rows = [
            {**pipeline.pointed_at(server.url + path), "video_key": path}
            for path in ("/shorter", "/longer", "/slow")
        ]
        shorter, longer, slow = pipeline.enrich(*rows)
    assert shorter.failure is not None
    assert shorter.failure["reason"] == MediaReason.FETCH_FAILED
    # What follows an answer is not part of it by HTTP's own rules.
    assert longer.status is ClipStatus.KEPT
    assert slow.failure is not None
    assert slow.failure["reason"] == MediaReason.FETCH_TIMEOUT
