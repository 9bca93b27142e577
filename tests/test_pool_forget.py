"""A forgotten video has no row left, every other row is as it was, and the driver goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from processors.errors import MediaError
from processors.pool.commits import Committer
from processors.pool.driver import start_position
from processors.pool.errors import AlreadyRunning
from processors.pool.forget import find_video, forget_video
from processors.pool.lake import Lake
from processors.pool.letter_positions import LetterPositions, way_out
from processors.pool.letters import LetterSource
from processors.pool.lock import only_driver, only_letter_publisher
from processors.pool.position import Position
from processors.pool.source import ClipSource
from processors.results import failed, passed
from schemas.reasons import MediaReason
from schemas.replay import MessageName
from schemas.settings import Settings
from schemas.tables import TABLES
from tests import pool_lake

SCHEMAS = {table.name: table.arrow_schema() for table in TABLES}
FORGET, KEEP = "video-0", "video-1"


def write(lake: Lake, name: str, *rows: dict[str, Any]) -> None:
    builder = lake.table(name).new_batch_write_builder()
    writer, commit = builder.new_write(), builder.new_commit()
    writer.write_arrow(pa.Table.from_pylist(list(rows), schema=SCHEMAS[name]))
    commit.commit(writer.prepare_commit())


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return pool_lake.settings(tmp_path)


@pytest.fixture
def lake(settings: Settings) -> Lake:
    """Two videos with three clips each, of which one failed; a repeat, junk, and a day apart."""
    lake = pool_lake.new_lake(settings)
    for offset, key in enumerate((FORGET, KEEP)):
        at = {"kafka_topic": "t", "kafka_partition": 0, "kafka_offset": offset, "record_index": 0}
        video = {**at, "video_key": key, "video_id": key, "uri": f"file:///{key}.mp4"}
        write(lake, "videos", {**video, "dt": f"2026-01-3{offset}", "message": b"m"})
        write(lake, "repeats", {**video, "kafka_offset": 10 + offset, "dt": "2026-01-31"})
    for offset, payload in ((20, b'{"video_id": "video-0"'), (21, b'{"video_id": "video-00"')):
        row = {"kafka_topic": "t", "kafka_partition": 0, "kafka_offset": offset}
        write(
            lake, "rejected_messages", {**row, "reason": "not_json", "payload": payload, "seq": 0}
        )
    pool_lake.append_clips(lake, [pool_lake.clip(n) for n in range(6)])
    committer = Committer(lake, 1)
    error = MediaError(MediaReason.NOT_FOUND, "gone", stage="fetch")
    for n in range(6):
        clip, recipe = pool_lake.clip(n), pool_lake.recipe()
        done = passed(clip, recipe, {}) if n % 3 else failed(clip, recipe, error)
        committer.add(done, (1 << 40) + n)
        write(lake, "clip_frames", {"clip_id": clip["clip_id"], "enrich_seq": (1 << 40) + n})
    committer.commit(Position(lake.identity("clips"), snapshot=2, epoch=1))
    return lake


def contents(settings: Settings) -> dict[str, list[dict[str, Any]]]:
    """Every table but `forgotten`, sorted."""
    lake = Lake(settings)
    return {
        table.name: sorted(lake.read(table.name).to_pylist(), key=repr)
        for table in TABLES
        if table.name != "forgotten"
    }


def is_of(row: dict[str, Any], key: str) -> bool:
    clip_ids = {pool_lake.clip_id(n) for n in range(3)}
    return row.get("video_key") == key or row.get("clip_id") in clip_ids


def test_all_rows_of_the_video_go_and_no_other(settings: Settings, lake: Lake) -> None:
    before = contents(settings)
    found = forget_video(settings, FORGET)
    after = contents(settings)
    for table, rows in before.items():
        if table != "rejected_messages":
            assert after[table] == [row for row in rows if not is_of(row, FORGET)], table
    assert found.rows == {
        "enriched_clips": 3,
        "failed_clips": 1,
        "clips": 3,
        "failed_videos": 0,
        "repeats": 1,
        "videos": 1,
        "clip_frames": 3,
    }
    payloads = {row["payload"] for row in after["rejected_messages"]}
    assert payloads == {None, b'{"video_id": "video-00"'}
    assert found.messages == {MessageName("t", 0, 0), MessageName("t", 0, 10)}
    remembered = Lake(settings).read("forgotten").to_pylist()
    assert sorted(row["kafka_offset"] for row in remembered) == [0, 10]
    assert find_video(Lake(settings), FORGET).video_keys == set()
    assert found.snapshots["clips"] == (1, 1, 1)


def test_the_driver_goes_on_behind_it(settings: Settings, lake: Lake) -> None:
    forget_video(settings, FORGET)
    fresh = Lake(settings)
    start = start_position(fresh)
    assert (start.mode, start.snapshot, start.epoch) == ("follow", 3, 3)
    pool_lake.append_clips(fresh, [pool_lake.clip(9)])
    chunk = ClipSource(fresh, start).read(10)
    assert chunk is not None
    assert chunk.rows.column("clip_id").to_pylist() == [pool_lake.clip_id(9)]


def test_clips_that_were_not_read_yet_are_read_with_the_whole_table(
    settings: Settings, lake: Lake
) -> None:
    pool_lake.append_clips(lake, [pool_lake.clip(9)])
    forget_video(settings, FORGET)
    assert start_position(Lake(settings)).mode == "rescan"


def test_nothing_is_removed_while_a_driver_runs(settings: Settings, lake: Lake) -> None:
    with only_driver(settings), pytest.raises(AlreadyRunning):
        forget_video(settings, FORGET)
    assert find_video(lake, FORGET).rows["videos"] == 1


def test_what_a_killed_pool_keeps_of_videos_on_this_machine_goes(
    settings: Settings, lake: Lake
) -> None:
    settings.scratch_dir.mkdir()
    kept, other = (settings.scratch_dir / name for name in ("kept-0", "other"))
    kept.write_bytes(b"video")
    other.touch()
    forget_video(settings, FORGET)
    assert list(settings.scratch_dir.iterdir()) == [other]


def test_an_unknown_video_changes_nothing(settings: Settings, lake: Lake) -> None:
    before = lake.latest_snapshot_id("videos")
    assert forget_video(settings, "nobody").video_keys == set()
    assert Lake(settings).latest_snapshot_id("videos") == before


def test_a_call_that_was_interrupted_is_finished_by_the_next(
    settings: Settings, lake: Lake
) -> None:
    def stop(table: str) -> None:
        if table == "clips":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        forget_video(settings, FORGET, stop)
    forget_video(settings, FORGET)
    assert not any(is_of(row, FORGET) for rows in contents(settings).values() for row in rows)
    assert len(Lake(settings).read("forgotten").to_pylist()) == 2


def letters_to_publish(settings: Settings) -> set[str]:
    """Ids of the letters that a publisher which starts now finds; nothing is noted as sent."""
    lake, positions = Lake(settings), LetterPositions(settings)
    source = LetterSource(lake, positions.begin(lake), way_out(settings))
    found: set[str] = set()
    while chunks := [*source.read()]:
        found |= {letter.id for chunk in chunks for letter in chunk.letters}
    return found


def publish(settings: Settings) -> None:
    """Note that all letters so far are on their topic."""
    lake, positions = Lake(settings), LetterPositions(settings)
    source = LetterSource(lake, positions.begin(lake), way_out(settings))
    while chunks := [*source.read()]:
        for chunk in chunks:
            positions.move(lake, chunk.table, chunk.after)


def test_letters_that_were_published_are_not_published_again(
    settings: Settings, lake: Lake
) -> None:
    publish(settings)
    forget_video(settings, FORGET)
    assert letters_to_publish(settings) == set()
    write(Lake(settings), "rejected_messages", {"kafka_topic": "t", "kafka_partition": 0,
          "kafka_offset": 30, "reason": "not_json", "payload": b"x", "seq": 0})  # fmt: skip
    assert letters_to_publish(settings) == {"t[0]@30"}


def test_letters_that_were_not_published_are_without_those_of_the_video(
    settings: Settings, lake: Lake
) -> None:
    before = letters_to_publish(settings)
    assert before == {"t[0]@20", "t[0]@21", pool_lake.clip_id(0), pool_lake.clip_id(3)}
    forget_video(settings, FORGET)
    after = letters_to_publish(settings)
    assert after == before - {pool_lake.clip_id(0)}


def test_letters_that_came_since_are_without_those_of_the_video(
    settings: Settings, lake: Lake
) -> None:
    publish(settings)
    for number in (1, 4):
        row = {"clip_id": pool_lake.clip_id(number), "stage": "fetch", "reason": "not_found"}
        row |= {"video_key": FORGET if number == 1 else KEEP, "enrich_seq": 1 << 41}
        write(lake, "failed_clips", row)
    forget_video(settings, FORGET)
    found = letters_to_publish(settings)
    assert pool_lake.clip_id(4) in found
    assert not found & {pool_lake.clip_id(n) for n in range(3)}


def test_nothing_is_removed_while_letters_are_published(settings: Settings, lake: Lake) -> None:
    with only_letter_publisher(settings), pytest.raises(AlreadyRunning, match="published already"):
        forget_video(settings, FORGET)
    assert find_video(lake, FORGET).rows["videos"] == 1
