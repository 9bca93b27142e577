"""Rows and position land together, and a try that only seemed to fail is not made twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from tenacity import wait_none

from processors.errors import MediaError
from processors.pool import commits
from processors.pool.commits import Committer
from processors.pool.errors import CommitFailed
from processors.pool.lake import Lake
from processors.pool.position import Position, PositionUnreadable, load_stored
from processors.results import failed, passed
from schemas.reasons import MediaReason
from tests import pool_lake


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    monkeypatch.setattr(commits, "WAIT", wait_none())
    return pool_lake.new_lake(pool_lake.settings(tmp_path))


def position(snapshot: int, epoch: int = 1) -> Position:
    return Position("table", snapshot, offset=4, epoch=epoch)


def commit_nothing(lake: Lake) -> None:
    """A snapshot without properties, as a compaction leaves it."""
    table = lake.table("enriched_clips").copy({"snapshot.ignore-empty-commit": "false"})
    table.new_batch_write_builder().new_commit().commit([])


def test_rows_of_one_clip_carry_the_same_sequence_in_all_tables(lake: Lake) -> None:
    committer = Committer(lake, 1)
    error = MediaError(MediaReason.NOT_FOUND, "it is not there", stage="fetch")
    committer.add(failed(pool_lake.clip(1), pool_lake.recipe(), error), 41)
    committer.add(passed(pool_lake.clip(2), pool_lake.recipe(), {"motion_score": 2.5}), 42)
    committer.commit(position(3))
    rows = {r["clip_id"]: r for r in lake.read("enriched_clips").to_pylist()}
    assert rows[pool_lake.clip_id(1)]["enrich_seq"] == 41
    assert rows[pool_lake.clip_id(2)]["motion_score"] == 2.5
    assert rows[pool_lake.clip_id(2)]["kafka_offset"] == 2
    (failure,) = lake.read("failed_clips").to_pylist()
    assert (failure["enrich_seq"], failure["reason"], failure["stage"]) == (
        41,
        "not_found",
        "fetch",
    )


def test_a_letter_is_resolved_in_the_commit_of_the_clips_result(lake: Lake) -> None:
    committer = Committer(lake, 1)
    error = MediaError(MediaReason.NOT_FOUND, "it is not there", stage="fetch")
    for number in (1, 2):
        committer.add(failed(pool_lake.clip(number), pool_lake.recipe(), error), 40 + number)
    committer.commit(position(3))
    result = passed(pool_lake.clip(1), pool_lake.recipe(), {})
    committer.add(result, 50)
    committer.resolve(result.clip_id, 50, result.enriched["enriched_at"])
    committer.commit(position(4))
    letters = {r["clip_id"]: r for r in lake.read("failed_clips").to_pylist()}
    assert letters[pool_lake.clip_id(2)]["resolved_at"] is None
    letter = letters[pool_lake.clip_id(1)]
    assert letter["resolved_at"] is not None
    assert (letter["reason"], letter["error"], letter["enrich_seq"]) == (
        "not_found",
        "it is not there",
        50,
    )


def test_the_position_comes_back_as_it_was_stored(lake: Lake) -> None:
    assert load_stored(lake).position is None
    Committer(lake, 3).commit(position(7, epoch=3))
    stored = load_stored(lake)
    assert stored.position == position(7, epoch=3)
    assert stored.epoch == 3


def test_the_position_is_found_behind_snapshots_without_properties(lake: Lake) -> None:
    Committer(lake, 1).commit(position(7))
    for _ in range(3):
        commit_nothing(lake)
    assert lake.latest_snapshot_id("enriched_clips") == 4
    assert load_stored(lake).position == position(7)


def test_an_expired_position_is_told_from_none_and_its_epoch_is_not_used_again(
    lake: Lake,
) -> None:
    committer = Committer(lake, 5)
    committer.add(passed(pool_lake.clip(2), pool_lake.recipe(), {}), (5 << 40) + 1)
    committer.commit(position(3, epoch=5))
    commit_nothing(lake)
    pool_lake.expire(lake, "enriched_clips", [1])
    stored = load_stored(lake)
    assert (stored.position, stored.lost, stored.epoch) == (None, True, 5)


def test_a_position_that_somebody_edited_is_an_error(lake: Lake) -> None:
    Committer(lake, 1).commit(position(7))
    manager = lake.table("enriched_clips").snapshot_manager()
    path = manager.get_snapshot_path(1)
    text = manager.file_io.read_file_utf8(path)
    manager.file_io.overwrite_file_utf8(path, text.replace('"7"', '"seven"'))
    with pytest.raises(PositionUnreadable, match="seven"):
        load_stored(lake)


def test_a_commit_whose_answer_was_lost_is_not_made_again(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pypaimon.write.table_commit import StreamTableCommit

    real, answers = StreamTableCommit.commit, []

    def commit_then_fail(self: object, *args: object, **kwargs: object) -> None:
        real(self, *args, **kwargs)
        answers.append(1)
        if len(answers) == 1:
            raise OSError("the answer was lost")

    monkeypatch.setattr(StreamTableCommit, "commit", commit_then_fail)
    committer = Committer(lake, 1)
    committer.add(passed(pool_lake.clip(1), pool_lake.recipe(), {}), 1)
    committer.commit(position(2))
    assert pool_lake.rows_ever_appended(lake, "enriched_clips") == 1
    committer.add(passed(pool_lake.clip(2), pool_lake.recipe(), {}), 2)
    committer.commit(position(3))
    assert pool_lake.rows_ever_appended(lake, "enriched_clips") == 2


def test_a_store_that_stays_out_ends_in_one_clear_error(lake: Lake, tmp_path: Path) -> None:
    committer = Committer(lake, 1)
    committer.add(passed(pool_lake.clip(1), pool_lake.recipe(), {}), 1)
    table = tmp_path / "lake" / "cliplake.db" / "enriched_clips"
    (table / "manifest").write_text("a file where the folder should be")
    with pytest.raises(CommitFailed, match="enriched_clips could not be committed to after 6"):
        committer.commit(position(2))
    (table / "manifest").unlink()
    committer.commit(position(2))
    assert lake.read("enriched_clips").num_rows == 1
