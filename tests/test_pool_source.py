"""Following ``clips``: every row once, in a fixed order, or a clear refusal."""

from __future__ import annotations

from pathlib import Path

import pytest

from processors.pool.errors import SourceLost
from processors.pool.lake import Lake
from processors.pool.position import Position
from processors.pool.source import ClipSource, first_position, rescan_position
from tests import pool_lake


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return pool_lake.new_lake(pool_lake.settings(tmp_path))


def start_of(lake: Lake) -> Position:
    return Position(lake.identity("clips"), snapshot=1)


def read_all(source: ClipSource, max_rows: int = 100) -> tuple[list[str], Position | None]:
    """Clip ids until nothing is new, and the position after the last chunk."""
    ids: list[str] = []
    after = None
    while (chunk := source.read(max_rows)) is not None:
        assert chunk.rows.num_rows <= max_rows
        assert chunk.span.count == chunk.rows.num_rows
        ids += chunk.rows.column("clip_id").to_pylist()
        after = chunk.span.after
    return ids, after


def test_all_snapshots_are_read_in_order(lake: Lake) -> None:
    for start in (0, 10, 20):
        pool_lake.append_clips(lake, [pool_lake.clip(n) for n in range(start, start + 10)])
    ids, after = read_all(ClipSource(lake, start_of(lake)))
    for start in (0, 10, 20):
        assert set(ids[start : start + 10]) == {
            pool_lake.clip_id(n) for n in range(start, start + 10)
        }
    assert after == Position(lake.identity("clips"), snapshot=4)


def test_no_read_gives_more_rows_than_asked_for(lake: Lake) -> None:
    pool_lake.append_clips(lake, [pool_lake.clip(n) for n in range(50)])
    whole, _ = read_all(ClipSource(lake, start_of(lake)))
    pieces, _ = read_all(ClipSource(lake, start_of(lake)), max_rows=7)
    assert pieces == whole
    assert len(set(pieces)) == 50


@pytest.mark.parametrize("offset", [0, 1, 24, 49, 50])
def test_reading_goes_on_at_a_row_within_a_snapshot(lake: Lake, offset: int) -> None:
    pool_lake.append_clips(lake, [pool_lake.clip(n) for n in range(50)])
    whole, _ = read_all(ClipSource(lake, start_of(lake)))
    at = Position(lake.identity("clips"), snapshot=1, offset=offset)
    rest, after = read_all(ClipSource(lake, at))
    assert rest == whole[offset:]
    assert after == Position(lake.identity("clips"), snapshot=2)


def test_new_snapshots_are_seen_by_a_source_that_waits(lake: Lake) -> None:
    source = ClipSource(lake, start_of(lake))
    assert source.read(10) is None
    pool_lake.append_clips(lake, [pool_lake.clip(1)])
    assert read_all(source)[0] == [pool_lake.clip_id(1)]
    assert source.read(10) is None


def test_a_compaction_brings_no_rows_and_moves_the_position(lake: Lake) -> None:
    pool_lake.append_clips(lake, [pool_lake.clip(1)])
    pool_lake.append_clips(lake, [pool_lake.clip(2)])
    manager = lake.table("clips").snapshot_manager()
    path = manager.get_snapshot_path(2)
    text = manager.file_io.read_file_utf8(path)
    manager.file_io.overwrite_file_utf8(path, text.replace('"APPEND"', '"COMPACT"'))
    ids, after = read_all(ClipSource(lake, start_of(lake)))
    assert ids == [pool_lake.clip_id(1)]
    assert after is not None
    assert after.snapshot == 3


def test_an_expired_snapshot_is_an_error_with_a_way_out(lake: Lake) -> None:
    for n in range(4):
        pool_lake.append_clips(lake, [pool_lake.clip(n)])
    pool_lake.expire(lake, "clips", [1, 2])
    at = Position(lake.identity("clips"), snapshot=2)
    with pytest.raises(SourceLost, match=r"snapshot 2 of clips has expired.*process --rescan"):
        ClipSource(lake, at).read(10)


def test_a_position_beyond_the_newest_snapshot_is_an_error(lake: Lake) -> None:
    pool_lake.append_clips(lake, [pool_lake.clip(1)])
    at = Position(lake.identity("clips"), snapshot=7)
    with pytest.raises(SourceLost, match=r"before snapshot 7 of clips, and the newest one is 1"):
        ClipSource(lake, at).read(10)


def test_a_row_beyond_the_end_of_its_snapshot_is_an_error(lake: Lake) -> None:
    pool_lake.append_clips(lake, [pool_lake.clip(1)])
    at = Position(lake.identity("clips"), snapshot=1, offset=5)
    with pytest.raises(SourceLost, match=r"row 5 of snapshot 1 of clips, which has 1"):
        ClipSource(lake, at).read(10)


def test_replaced_rows_are_refused(lake: Lake) -> None:
    pool_lake.append_clips(lake, [pool_lake.clip(1)])
    pool_lake.overwrite_clips(lake, [pool_lake.clip(2)])
    source = ClipSource(lake, start_of(lake))
    with pytest.raises(SourceLost, match="snapshot 2 of clips is an OVERWRITE"):
        read_all(source)


def test_a_table_made_again_under_the_same_name_is_noticed(lake: Lake) -> None:
    pool_lake.append_clips(lake, [pool_lake.clip(1)])
    at = Position(lake.identity("clips"), snapshot=2)
    pool_lake.recreate(lake, "clips")
    for n in range(3):
        pool_lake.append_clips(lake, [pool_lake.clip(n)])
    with pytest.raises(SourceLost, match="not the one that was read before"):
        ClipSource(lake, at).read(10)


def test_a_table_made_again_with_as_many_snapshots_is_noticed(lake: Lake) -> None:
    pool_lake.append_clips(lake, [pool_lake.clip(1)])
    at = Position(lake.identity("clips"), snapshot=2)
    pool_lake.recreate(lake, "clips")
    pool_lake.append_clips(lake, [pool_lake.clip(2)])
    with pytest.raises(SourceLost, match="not the one that was read before"):
        ClipSource(lake, at).read(10)


def test_a_rescan_reads_the_merged_table_and_then_follows(lake: Lake) -> None:
    pool_lake.append_clips(lake, [pool_lake.clip(n) for n in range(10)])
    pool_lake.append_clips(lake, [pool_lake.clip(n, kafka_offset=99) for n in range(5, 15)])
    pool_lake.expire(lake, "clips", [1])
    source = ClipSource(lake, rescan_position(lake))
    ids, after = read_all(source, max_rows=4)
    assert sorted(ids) == sorted(pool_lake.clip_id(n) for n in range(15))
    assert after == Position(lake.identity("clips"), snapshot=3)
    pool_lake.append_clips(lake, [pool_lake.clip(77)])
    assert read_all(source)[0] == [pool_lake.clip_id(77)]


def test_the_first_start_takes_the_table_when_early_snapshots_have_expired(lake: Lake) -> None:
    assert first_position(lake) == start_of(lake)
    for n in range(3):
        pool_lake.append_clips(lake, [pool_lake.clip(n)])
    assert first_position(lake) == start_of(lake)
    pool_lake.expire(lake, "clips", [1])
    assert first_position(lake) == Position(lake.identity("clips"), snapshot=3, mode="rescan")
