"""A start with new state knows from the lake alone what is done, to the record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ingest.done import DoneKeys, DoneRecords, write_keys
from ingest.new_state import LakeReader, arrivals_state, split_state, start_offsets
from schemas.ids import video_key
from schemas.tables import TABLES

TOPIC = "video-uploads"
KEYS = [video_key(f"video {n}", "file:///v.mp4") for n in range(200)]


def lake(**tables: list[dict[str, Any]]) -> LakeReader:
    """A reader of rows; columns that a row lacks are null."""
    schemas = {table.name: table.arrow_schema() for table in TABLES}

    def read(name: str, columns: list[str]) -> pa.Table:
        wanted = pa.schema([schemas[name].field(column) for column in columns])
        rows = [{c: row.get(c) for c in columns} for row in tables.get(name, [])]
        return pa.Table.from_pylist(rows, schema=wanted)

    return read


def at(partition: int, offset: int, key: str = KEYS[0], **more: Any) -> dict[str, Any]:
    return {
        "kafka_topic": TOPIC,
        "kafka_partition": partition,
        "kafka_offset": offset,
        "record_index": 0,
        "video_key": key,
        **more,
    }


def test_reading_starts_at_the_first_record_that_no_table_has(tmp_path: Path) -> None:
    read = lake(
        videos=[at(0, 0), at(0, 3, KEYS[1]), at(1, 5, KEYS[2])],
        repeats=[at(0, 1), at(0, 5)],
        rejected_messages=[at(0, 2), at(1, 6)],
    )
    state = arrivals_state(
        read, tmp_path, TOPIC, {0: 0, 1: 5, 2: 8}, {0: 9, 1: 9, 2: 9}, same_topic=True
    )
    assert state.start_offsets == {0: 4, 1: 7, 2: 8}
    done = DoneRecords(state.records_file)
    assert len(done) == 1
    assert (0, 5) in done
    assert (0, 4) not in done
    assert (1, 5) not in done
    known = DoneKeys(state.keys_file)
    assert [key in known for key in KEYS[:4]] == [True, True, True, False]


def test_only_the_first_reference_stands_for_its_record(tmp_path: Path) -> None:
    read = lake(videos=[at(0, 0, record_index=1)], repeats=[at(0, 0, record_index=2)])
    state = arrivals_state(read, tmp_path, TOPIC, {0: 0}, {0: 1}, same_topic=True)
    assert state.start_offsets == {0: 0}


def test_coordinates_of_another_topic_tell_nothing(tmp_path: Path) -> None:
    read = lake(videos=[at(0, 0, kafka_topic="others")])
    state = arrivals_state(read, tmp_path, TOPIC, {0: 0}, {0: 1}, same_topic=True)
    assert state.start_offsets == {0: 0}
    assert KEYS[0] in DoneKeys(state.keys_file)


@pytest.mark.parametrize(
    ("end", "same_topic"),
    [(3, False), (2, True)],
    ids=["known to be another", "shorter than what was read"],
)
def test_a_topic_that_was_made_again_is_read_from_its_start(
    tmp_path: Path, end: int, same_topic: bool
) -> None:
    read = lake(videos=[at(0, offset, KEYS[offset]) for offset in range(3)])
    state = arrivals_state(read, tmp_path, TOPIC, {0: 0}, {0: end}, same_topic=same_topic)
    assert state.start_offsets == {0: 0}
    assert len(DoneRecords(state.records_file)) == 0
    assert KEYS[2] in DoneKeys(state.keys_file)


def test_records_that_are_gone_from_the_topic_are_no_gap() -> None:
    starts, beyond = start_offsets({0: np.array([2, 3, 10, 11, 12, 14])}, {0: 10})
    assert starts == {0: 13}
    assert beyond[0].tolist() == [14]


def test_videos_with_clips_or_a_failure_are_done_for_the_split(tmp_path: Path) -> None:
    read = lake(
        clips=[{"video_key": KEYS[0]}, {"video_key": KEYS[0]}],
        failed_videos=[{"video_key": KEYS[1]}],
        videos=[at(0, 0, KEYS[2])],
    )
    done = DoneKeys(split_state(read, tmp_path).keys_file)
    assert len(done) == 2
    assert KEYS[0] in done
    assert KEYS[1] in done
    assert KEYS[2] not in done


def test_a_replay_is_done_once_something_has_come_of_it(tmp_path: Path) -> None:
    again = {"replay_id": "0" * 32}
    read = lake(
        videos=[
            at(0, 0, KEYS[0]),
            at(0, 4, KEYS[0], **again),
            at(0, 5, KEYS[1], **again),
            at(1, 9, KEYS[2], **again),
            at(1, 9, KEYS[3], record_index=1, **again),
        ],
        clips=[at(0, 4, KEYS[0]), at(0, 1, KEYS[1]), at(1, 9, KEYS[2])],
        failed_videos=[at(1, 3, KEYS[3])],
    )
    done = DoneRecords(split_state(read, tmp_path).records_file)
    assert (0, 4) in done
    assert (0, 5) not in done
    # One of its two videos has not been tried again.
    assert (1, 9) not in done


def test_every_key_that_was_written_is_found_and_no_other(tmp_path: Path) -> None:
    file = tmp_path / "keys.npy"
    assert write_keys(file, KEYS[:100]) == 100
    done = DoneKeys(file)
    assert all(key in done for key in KEYS[:100])
    assert not any(key in done for key in KEYS[100:])
    # Same high half as a key that is there, another low half.
    assert KEYS[0][:16] + KEYS[1][16:] not in done
    assert "no key" not in done
    assert "ab" not in done


def test_an_empty_lake_makes_empty_files(tmp_path: Path) -> None:
    state = arrivals_state(lake(), tmp_path, TOPIC, {0: 0}, {0: 0}, same_topic=True)
    assert state.start_offsets == {0: 0}
    assert KEYS[0] not in DoneKeys(state.keys_file)
    assert (0, 0) not in DoneRecords(state.records_file)
