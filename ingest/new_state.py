"""What a job must know to start anew without losing or doubling a row: taken from the lake.

The lake is read by whoever calls: functions here are given tables. Nothing else is looked at,
so that it holds whatever happened to checkpoints and state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ingest.done import write_keys, write_records
from ingest.job_record import NewState

if TYPE_CHECKING:
    import pyarrow as pa

LakeReader = Callable[[str, list[str]], "pa.Table"]
"""``(table, columns)`` → its current rows, as `processors.pool.lake.Lake.read` gives them."""

Offsets = npt.NDArray[np.int64]


def arrivals_state(
    read: LakeReader,
    folder: Path,
    topic: str,
    begin: Mapping[int, int],
    end: Mapping[int, int],
    *,
    same_topic: bool,
) -> NewState:
    """Files in ``folder`` for the arrivals job.

    ``begin`` is the first offset still in the topic and ``end`` that of the next record to come,
    by partition. If the topic is not the one that the lake's coordinates are from (it is known to
    be another, or the lake has offsets beyond its end), it is read from its start: then the known
    video_keys alone tell what is new.
    """
    done = done_offsets(read, topic) if same_topic else {}
    if any(len(offsets) and offsets[-1] >= end.get(p, 0) for p, offsets in done.items()):
        done = {}
    starts, beyond = start_offsets(done, begin)
    records_file, keys_file = folder / "records.npy", folder / "keys.npy"
    write_records(records_file, beyond)
    write_keys(
        keys_file,
        (key for table in ("videos", "forgotten") for key in _strings(read(table, ["video_key"]))),
    )
    return NewState(str(keys_file), str(records_file), starts)


def split_state(read: LakeReader, folder: Path) -> NewState:
    """Files in ``folder`` for the split job: videos that have clips or have failed.

    A replay is a row of a video that had one of those before: it is done once one of them is of
    the replay's own offset or a later one.
    """
    keys_file, records_file = folder / "keys.npy", folder / "records.npy"
    rows = [read(table, ["video_key", "kafka_offset"]) for table in ("clips", "failed_videos")]
    write_keys(keys_file, (key for table in rows for key in _strings(table)))
    videos = read("videos", ["video_key", "kafka_partition", "kafka_offset", "replay_id"])
    replays = videos.filter(videos.column("replay_id").is_valid())
    newest: dict[str, int] = dict.fromkeys(_strings(replays), -1)
    for table in rows:
        for key, offset in _pairs(table):
            if key in newest and offset is not None:
                newest[key] = max(newest[key], offset)
    done: dict[int, set[int]] = {}
    open_: set[tuple[int, int]] = set()
    for row in replays.to_pylist():
        partition, offset = row["kafka_partition"], row["kafka_offset"]
        done.setdefault(partition, set()).add(offset)
        if newest[row["video_key"]] < offset:
            open_.add((partition, offset))
    # A message may bring several videos again: it is done when all of them are.
    for partition, offset in open_:
        done[partition].discard(offset)
    write_records(records_file, {p: np.array(sorted(o), np.int64) for p, o in done.items() if o})
    return NewState(str(keys_file), str(records_file))


def done_offsets(read: LakeReader, topic: str) -> dict[int, Offsets]:
    """Sorted offsets of the records of ``topic`` that are in the lake, by partition.

    A record that named several objects makes rows in one commit: the first one stands for all.
    """
    columns = ["kafka_topic", "kafka_partition", "kafka_offset"]
    found: dict[int, list[Offsets]] = {}
    for table in ("videos", "repeats", "rejected_messages", "forgotten"):
        rows = read(table, columns if table == "rejected_messages" else [*columns, "record_index"])
        wanted = np.array([name == topic for name in _strings(rows, "kafka_topic")], dtype=bool)
        if table != "rejected_messages":
            wanted &= rows.column("record_index").to_numpy() == 0
        partitions = rows.column("kafka_partition").to_numpy()[wanted]
        offsets = rows.column("kafka_offset").to_numpy()[wanted]
        for partition in np.unique(partitions):
            found.setdefault(int(partition), []).append(offsets[partitions == partition])
    return {
        partition: np.unique(np.concatenate(parts)).astype(np.int64)
        for partition, parts in found.items()
    }


def start_offsets(
    done: Mapping[int, Offsets], begin: Mapping[int, int]
) -> tuple[dict[int, int], dict[int, Offsets]]:
    """The first offset of each partition that is not done, and what is done beyond it.

    Offsets below ``begin`` are gone from the topic. Offsets that a topic leaves out (aborted
    transactions, compaction) count as not done; reading from there is merely longer.
    """
    starts: dict[int, int] = {}
    beyond: dict[int, Offsets] = {}
    for partition, first in begin.items():
        offsets = done.get(partition, np.empty(0, np.int64))
        offsets = offsets[offsets >= first]
        gaps = np.flatnonzero(offsets != first + np.arange(len(offsets)))
        length = int(gaps[0]) if len(gaps) else len(offsets)
        starts[partition] = first + length
        if length < len(offsets):
            beyond[partition] = offsets[length:]
    return starts, beyond


def _strings(rows: pa.Table, column: str = "video_key") -> Iterable[str]:
    for chunk in rows.column(column).chunks:
        for value in chunk:
            text = value.as_py()
            if text is not None:
                yield text


def _pairs(rows: pa.Table) -> Iterable[tuple[str, int | None]]:
    """``video_key`` and ``kafka_offset`` of each row."""
    for batch in rows.to_batches():
        yield from zip(
            batch.column("video_key").to_pylist(),
            batch.column("kafka_offset").to_pylist(),
            strict=True,
        )
