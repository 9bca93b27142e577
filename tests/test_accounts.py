"""The accounts over a real lake: open is not the same as wrong, and wrong is named."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cliplake.accounts import Accounts, Balance, read_accounts
from ingest.topic import PartitionOffsets
from processors.pool.lake import Lake
from schemas.problems import ConfigError
from schemas.settings import Settings, load_settings
from schemas.tables import TABLES, ColumnType, Table

BY_NAME = {table.name: table for table in TABLES}
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
FILLERS: dict[ColumnType, Any] = {
    ColumnType.STRING: "x",
    ColumnType.BOOLEAN: True,
    ColumnType.INT: 0,
    ColumnType.BIGINT: 0,
    ColumnType.DOUBLE: 0.0,
    ColumnType.TIMESTAMP: NOW,
}


class Book:
    """A lake to write rows to, and a topic to say the offsets of."""

    def __init__(self, folder: Path) -> None:
        self.settings: Settings = load_settings(
            catalog={"options": {"warehouse": folder.as_uri()}}, kafka={"topic": "t"}
        )
        self.lake = Lake(self.settings)
        self.lake.ensure_tables()
        self.offsets: Mapping[int, PartitionOffsets] = {0: PartitionOffsets(0, 0)}

    def write(self, name: str, *rows: dict[str, Any]) -> None:
        table = BY_NAME[name]
        builder = self.lake.table(name).new_batch_write_builder()
        writer, commit = builder.new_write(), builder.new_commit()
        full = [_full(table, row) for row in rows]
        writer.write_arrow(pa.Table.from_pylist(full, schema=table.arrow_schema()))
        commit.commit(writer.prepare_commit())
        writer.close()
        commit.close()

    def read(self, **more: Any) -> Accounts:
        return read_accounts(self.settings, topic=lambda: self.offsets, **more)

    def received(self, count: int, begin: int = 0) -> None:
        self.offsets = {0: PartitionOffsets(begin, count)}


def _full(table: Table, row: dict[str, Any]) -> dict[str, Any]:
    filled = {c.name: None if c.nullable else FILLERS[c.type] for c in table.columns}
    at = {"kafka_topic": "t", "kafka_partition": 0, "kafka_offset": 0, "record_index": 0}
    filled.update({name: value for name, value in at.items() if name in filled})
    if "dt" in filled:
        filled["dt"] = "2026-01-31"
    if "ingested_at" in filled:
        filled["ingested_at"] = NOW
    return {**filled, **row}


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Book:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cliplake.accounts._LOOK_AGAIN_S", 0.0)
    return Book(tmp_path / "lake")


def finished(book: Book) -> None:
    """Five messages: two videos with three clips, one dead, one repeat, one no message."""
    book.received(5)
    book.write(
        "videos",
        {"video_key": "a", "kafka_offset": 0},
        {"video_key": "b", "kafka_offset": 1},
        {"video_key": "dead", "kafka_offset": 2},
    )
    book.write("repeats", {"video_key": "a", "kafka_offset": 3})
    book.write("rejected_messages", {"kafka_offset": 4, "reason": "not_json"})
    book.write(
        "clips",
        {"clip_id": "a1", "video_key": "a"},
        {"clip_id": "a2", "video_key": "a", "duration_ok": False},
        {"clip_id": "b1", "video_key": "b"},
    )
    book.write("failed_videos", {"video_key": "dead", "reason": "truncated", "stage": "probe"})
    book.write("failed_clips", {"clip_id": "b1", "video_key": "b", "reason": "decode_error"})
    book.write(
        "enriched_clips",
        {"clip_id": "a1", "video_key": "a", "status": "kept"},
        {"clip_id": "a2", "video_key": "a", "status": "rejected", "reject_reason": "too_short"},
        {"clip_id": "b1", "video_key": "b", "status": "failed", "reject_reason": "decode_error"},
    )


def test_an_empty_lake_beside_an_empty_topic_is_balanced(book: Book) -> None:
    assert book.read().balance is Balance.BALANCED


def test_when_everything_has_ended_it_adds_up(book: Book) -> None:
    finished(book)
    accounts = book.read()
    assert accounts.balanced
    arrivals, split, enrich = (accounts.stages[n] for n in ("arrivals", "split", "enrich"))
    assert (arrivals.done, arrivals.repeats, arrivals.dead, arrivals.total) == (3, 1, 1, 5)
    assert (split.done, split.dead, split.total) == (2, 1, 3)
    assert accounts.stages["duration"].rejected == 1
    assert (enrich.done, enrich.rejected, enrich.dead, enrich.total) == (1, 1, 1, 3)
    assert accounts.rows["clips"] == 3
    assert accounts.reasons["rejected_messages"] == {"not_json": 1}
    assert accounts.reasons["failed_videos"] == {"truncated": 1}
    assert accounts.kafka_lag == {0: 0}


def test_what_has_not_arrived_yet_is_open_and_not_wrong(book: Book) -> None:
    finished(book)
    book.received(9)
    accounts = book.read()
    assert accounts.balance is Balance.IN_PROGRESS
    assert accounts.stages["arrivals"].waiting == 4
    assert accounts.kafka_lag == {0: 4}


def test_videos_and_clips_on_their_way_are_open_and_not_wrong(book: Book) -> None:
    book.received(2)
    book.write(
        "videos",
        {"video_key": "a", "kafka_offset": 0},
        {"video_key": "b", "kafka_offset": 1},
    )
    book.write("clips", *({"clip_id": f"a{i}", "video_key": "a"} for i in range(5)))
    book.write("enriched_clips", {"clip_id": "a0", "video_key": "a", "status": "kept"})
    accounts = book.read(in_flight=3)
    assert accounts.balance is Balance.IN_PROGRESS
    assert accounts.stages["split"].waiting == 1
    assert (accounts.stages["enrich"].waiting, accounts.stages["enrich"].in_flight) == (1, 3)


def test_a_message_of_several_objects_counts_once(book: Book) -> None:
    book.received(1)
    book.write(
        "videos",
        {"video_key": "a", "kafka_offset": 0, "record_index": 0},
        {"video_key": "b", "kafka_offset": 0, "record_index": 1},
    )
    book.write("repeats", {"video_key": "a", "kafka_offset": 0, "record_index": 2})
    book.write("failed_videos", {"video_key": "a"}, {"video_key": "b"})
    assert book.read().balanced


def test_messages_that_retention_removed_after_they_were_read_still_count(book: Book) -> None:
    finished(book)
    book.received(5, begin=4)
    accounts = book.read()
    assert accounts.balanced
    assert accounts.stages["arrivals"].total == 5


REPLAYED = {"replay_id": "0" * 32}


def test_a_replayed_video_counts_as_a_replay_and_waits_until_something_comes_of_it(
    book: Book,
) -> None:
    finished(book)
    book.received(6)
    book.write("videos", {"video_key": "dead", "kafka_offset": 5, **REPLAYED})
    accounts = book.read()
    assert accounts.balance is Balance.IN_PROGRESS
    assert accounts.stages["arrivals"].replays == 1
    split = accounts.stages["split"]
    assert (split.waiting, split.dead, split.total) == (1, 0, 3)
    book.write("failed_videos", {"video_key": "dead", "reason": "not_found", "kafka_offset": 5})
    assert book.read().balanced
    assert book.read().stages["split"].dead == 1


def test_a_replay_that_succeeded_leaves_a_resolved_letter(book: Book) -> None:
    finished(book)
    book.received(6)
    book.write("videos", {"video_key": "dead", "kafka_offset": 5, **REPLAYED})
    book.write("clips", {"clip_id": "d1", "video_key": "dead", "kafka_offset": 5})
    book.write("enriched_clips", {"clip_id": "d1", "video_key": "dead", "status": "kept"})
    letter = {"video_key": "dead", "reason": "truncated", "kafka_offset": 5, "resolved_at": NOW}
    book.write("failed_videos", letter)
    accounts = book.read()
    assert accounts.balanced
    assert accounts.stages["split"].dead == 0
    assert accounts.reasons["failed_videos"] == {"resolved": 1}


def test_a_clip_that_failed_waits_when_a_replay_brings_it_again(book: Book) -> None:
    finished(book)
    book.received(6)
    book.write("videos", {"video_key": "b", "kafka_offset": 5, **REPLAYED})
    book.write("clips", {"clip_id": "b1", "video_key": "b", "kafka_offset": 5})
    enrich = book.read().stages["enrich"]
    assert (enrich.waiting, enrich.dead) == (1, 0)
    again = {"clip_id": "b1", "video_key": "b", "kafka_offset": 5, "enrich_seq": 9}
    book.write("enriched_clips", {**again, "status": "kept"})
    assert book.read().balanced


def test_other_topics_rows_are_not_counted_against_this_one(book: Book) -> None:
    finished(book)
    book.write("rejected_messages", {"kafka_topic": "older", "kafka_offset": 77, "reason": "x"})
    assert book.read().balanced


def test_a_topic_that_cannot_be_seen_leaves_the_balance_unknown(book: Book) -> None:
    finished(book)
    accounts = read_accounts(book.settings, topic=None)
    assert accounts.balance is Balance.UNKNOWN
    assert accounts.kafka_lag is None
    assert accounts.stages["enrich"].done == 1


def test_a_key_that_is_written_again_is_one_row(book: Book) -> None:
    finished(book)
    book.write("enriched_clips", {"clip_id": "a1", "status": "kept", "enrich_seq": 9})
    assert book.read().balanced


WRONG: list[tuple[str, str, dict[str, Any]]] = [
    ("more than one row", "videos", {"video_key": "z", "kafka_offset": 1}),
    ("more than one row", "repeats", {"video_key": "z", "kafka_offset": 4}),
    ("accepted twice", "videos", {"video_key": "a", "kafka_offset": 9}),
    ("topic ends before", "videos", {"video_key": "z", "kafka_offset": 9}),
    ("no such partition", "videos", {"video_key": "z", "kafka_partition": 7}),
    ("not in videos", "clips", {"clip_id": "z1", "video_key": "nobody"}),
    ("not in videos", "failed_videos", {"video_key": "nobody"}),
    ("not in clips", "enriched_clips", {"clip_id": "nobody", "status": "kept"}),
    ("no row in failed_clips", "enriched_clips", {"clip_id": "a1", "status": "failed"}),
]


@pytest.mark.parametrize(("says", "table", "row"), WRONG)
def test_what_cannot_come_right_is_broken_and_named(
    book: Book, says: str, table: str, row: dict[str, Any]
) -> None:
    finished(book)
    book.write(table, {"enrich_seq": 9, **row} if table == "enriched_clips" else row)
    accounts = book.read()
    assert accounts.balance is Balance.BROKEN
    assert any(says in problem for problem in accounts.problems), accounts.problems


def test_frames_that_are_there_twice_are_broken(book: Book) -> None:
    finished(book)
    book.write("clip_frames", {"clip_id": "a1", "enrich_seq": 1})
    assert book.read().balanced
    book.write("clip_frames", {"clip_id": "a1", "enrich_seq": 1})
    assert any("same frames twice" in problem for problem in book.read().problems)


def test_messages_that_retention_removed_before_they_were_read_are_named(book: Book) -> None:
    finished(book)
    book.offsets = {0: PartitionOffsets(8, 9)}
    assert any("offsets 5 to 7 were removed" in problem for problem in book.read().problems)


def test_a_video_that_came_again_after_the_repeats_memory_is_no_error(book: Book) -> None:
    finished(book)
    book.received(6)
    late = {"ingested_at": NOW + timedelta(days=31), "dt": "2026-03-03"}
    book.write("videos", {"video_key": "a", "kafka_offset": 5, **late})
    assert book.read().balanced


def test_what_looked_wrong_only_once_is_not_reported(book: Book) -> None:
    finished(book)
    looks = iter([{0: PartitionOffsets(0, 4)}, {0: PartitionOffsets(0, 5)}])
    assert read_accounts(book.settings, topic=lambda: next(looks)).balanced


def test_sums_of_several_moments_are_not_called_balanced(book: Book) -> None:
    finished(book)

    def arriving() -> Mapping[int, PartitionOffsets]:
        book.write("clips", {"clip_id": "b2", "video_key": "b"})
        return book.offsets

    accounts = read_accounts(book.settings, topic=arriving)
    assert accounts.balance is Balance.IN_PROGRESS
    assert book.read().stages["enrich"].waiting == 1


def test_without_a_lake_it_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="cliplake up"):
        read_accounts(load_settings(), topic=None)
