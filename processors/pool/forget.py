"""Removes all rows of a video from the tables, and leaves behind only that there was one.

Nothing else may write meanwhile: the driver's lock is taken here, and whoever calls sees to it
that the Flink jobs are stopped. A table is written anew without the rows, in one commit each, so
its files hold them no longer; older snapshots do until they expire. What is interrupted is
finished by the next call: ``videos`` comes last. Fetched videos that this machine keeps go as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from processors.fetch_cache import ObjectCache
from processors.pool.commits import Committer
from processors.pool.consumer import hold_snapshots
from processors.pool.lake import Lake
from processors.pool.letter_positions import LetterPositions
from processors.pool.lock import only_driver, only_letter_publisher
from processors.pool.position import SOURCE, Position, load_stored
from processors.pool.source import CARRIES_NO_NEW_ROWS, rescan_position
from schemas.replay import MessageName
from schemas.settings import Settings
from schemas.tables import FORGOTTEN, KAFKA_COLUMN_NAMES, TABLES

_BY_VIDEO_KEY = ("enriched_clips", "failed_clips", "clips", "failed_videos", "repeats", "videos")
_WITH_VIDEO_ID = ("videos", "repeats", "clips", "failed_videos", "enriched_clips")
_PARTITION = "dt"

Change = Callable[[pa.RecordBatch], pa.RecordBatch]


@dataclass
class Forgotten:
    """What was removed, and what is out of reach."""

    video_keys: set[str] = field(default_factory=set)
    rows: dict[str, int] = field(default_factory=dict)
    """Rows removed, by table."""
    payloads: int = 0
    """Rejected messages that named the video; their bytes and errors were removed."""
    named_elsewhere: int = 0
    """Rows of other videos whose message names this one as well."""
    messages: set[MessageName] = field(default_factory=set)
    """Messages about it, which the topic has until its retention ends."""
    snapshots: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    """By table: first and last snapshot that hold rows of it, and how many there are."""
    newest_snapshot_ms: int = 0
    """When the last of these snapshots was made, milliseconds since 1970."""
    tags: dict[str, list[str]] = field(default_factory=dict)
    """Tags of those tables; they hold what was there when they were made."""


def find_video(lake: Lake, video_id: str) -> Forgotten:
    """What would be removed; nothing is."""
    found = Forgotten()
    for table in _WITH_VIDEO_ID:
        mine = lake.predicates(table).equal("video_id", video_id)
        found.video_keys |= set(_column(lake.read(table, ["video_key"], mine), "video_key"))
    if not found.video_keys:
        return found
    keys = list(found.video_keys)
    for table in _BY_VIDEO_KEY:
        mine = lake.predicates(table).is_in("video_key", keys)
        found.rows[table] = lake.read(table, ["video_key"], mine).num_rows
    clip_ids = _clip_ids(lake, keys)
    if clip_ids:
        mine = lake.predicates("clip_frames").is_in("clip_id", clip_ids)
        found.rows["clip_frames"] = lake.read("clip_frames", ["clip_id"], mine).num_rows
    found.payloads = _naming(lake, _needles(lake, video_id, keys)).num_rows
    at = _coordinates(lake, keys)
    found.messages = {MessageName(r["kafka_topic"], r["kafka_partition"], r["kafka_offset"])
                      for r in at}  # fmt: skip
    columns = ["video_key", "kafka_topic", "kafka_partition", "kafka_offset"]
    for row in lake.read("videos", columns).to_pylist() if found.messages else ():
        name = MessageName(row["kafka_topic"], row["kafka_partition"], row["kafka_offset"])
        found.named_elsewhere += row["video_key"] not in keys and name in found.messages
    return found


def forget_video(
    settings: Settings, video_id: str, progress: Callable[[str], None] = lambda table: None
) -> Forgotten:
    """Remove a video's rows; ``progress`` is told each table before it is written anew.

    `AlreadyRunning` while a driver runs, or dead letters are published from here.
    """
    with only_driver(settings), only_letter_publisher(settings):
        lake, letters = Lake(settings), LetterPositions(settings)
        found = find_video(lake, video_id)
        if not found.video_keys:
            return found
        keys = list(found.video_keys)
        clip_ids, needles = _clip_ids(lake, keys), _needles(lake, video_id, keys)
        _note_snapshots(lake, found)
        stored = load_stored(lake)
        position = _position_after(lake, stored.position)
        _remember(lake, keys)
        if found.payloads:
            progress("rejected_messages")
            caught_up = letters.caught_up(lake, "rejected_messages")
            _rewrite(lake, "rejected_messages", lambda batch: _without_bytes(batch, needles))
            letters.rewritten(lake, "rejected_messages", caught_up=caught_up)
        for table in ("clip_frames", *_BY_VIDEO_KEY):
            if not found.rows.get(table):
                continue
            progress(table)
            column, values = (
                ("clip_id", clip_ids) if table == "clip_frames" else ("video_key", keys)
            )
            caught_up = letters.caught_up(lake, table)
            _rewrite(lake, table, _without(column, values), _days(lake, table, keys))
            letters.rewritten(lake, table, caught_up=caught_up)
            if table == "clips":
                _go_on(lake, position, stored.epoch)
        # A pool that was killed left them; whose they are their names do not say.
        ObjectCache(settings.scratch_dir, 0).close()
    return found


def _position_after(lake: Lake, position: Position | None) -> Position | None:
    """Where the driver goes on once ``clips`` was written anew; None: with the whole table.

    It goes on behind the new snapshot if it had read everything before. A rescan would be right
    too, but would score all clips again whose recipe was another one.
    """
    manager = lake.table(SOURCE).snapshot_manager()
    if position is None or position.mode == "rescan" or position.offset:
        return None
    for number in range(position.snapshot, (lake.latest_snapshot_id(SOURCE) or 0) + 1):
        snapshot = manager.get_snapshot_by_id(number)
        if snapshot is None or snapshot.commit_kind not in CARRIES_NO_NEW_ROWS:
            return None
    return position


def _go_on(lake: Lake, position: Position | None, epoch: int) -> None:
    if position is None:
        position = rescan_position(lake)
    else:
        position = replace(position, snapshot=(lake.latest_snapshot_id(SOURCE) or 0) + 1)
    position = position.in_epoch(epoch + 1)
    Committer(lake, position.epoch).commit(position)
    hold_snapshots(lake, position.snapshot)


def _remember(lake: Lake, keys: Collection[str]) -> None:
    """Rows of ``forgotten``; the same ones again change nothing."""
    now = datetime.now(UTC)
    rows = [{**row, "forgotten_at": now, "seq": 0} for row in _coordinates(lake, keys)]
    if rows:
        builder = lake.table(FORGOTTEN.name).new_batch_write_builder()
        _write(builder, [pa.Table.from_pylist(rows, schema=FORGOTTEN.arrow_schema())])


def _coordinates(lake: Lake, keys: Collection[str]) -> list[dict[str, Any]]:
    columns = [*KAFKA_COLUMN_NAMES[:3], "record_index", "video_key"]
    rows: list[dict[str, Any]] = []
    for table in ("videos", "repeats"):
        mine = lake.predicates(table).is_in("video_key", list(keys))
        rows += lake.read(table, columns, mine).to_pylist()
    return [row for row in rows if row["kafka_topic"] is not None]


def _rewrite(lake: Lake, name: str, change: Change, days: Iterable[str] = ()) -> None:
    """Write a table anew with what ``change`` makes of its rows; of a partitioned one ``days``."""
    # Without this an emptied day would be left as it is.
    table = lake.table(name).copy({"dynamic-partition-overwrite": "false"})
    parts: list[dict[str, str] | None] = [{_PARTITION: day} for day in sorted(set(days))]
    for part in parts or [None]:
        reader = table.new_read_builder()
        if part is not None:
            reader = reader.with_filter(lake.predicates(name).equal(_PARTITION, part[_PARTITION]))
        batches = reader.new_read().to_arrow_batch_reader(
            reader.new_scan().plan().splits(), parallelism=1
        )
        _write(table.new_batch_write_builder().overwrite(part), map(change, batches))


def _write(builder: Any, batches: Iterable[pa.Table | pa.RecordBatch]) -> None:
    writer, commit = builder.new_write(), builder.new_commit()
    try:
        for batch in batches:
            if batch.num_rows:
                whole = batch if isinstance(batch, pa.Table) else pa.Table.from_batches([batch])
                writer.write_arrow(whole)
        commit.commit(writer.prepare_commit())
    finally:
        writer.close()
        commit.close()


def _without(column: str, values: Collection[str]) -> Change:
    gone = pa.array(sorted(values), pa.string())

    def change(batch: pa.RecordBatch) -> pa.RecordBatch:
        return batch.filter(pc.invert(pc.is_in(batch.column(column), value_set=gone)))

    return change


def _without_bytes(batch: pa.RecordBatch, needles: Collection[bytes]) -> pa.RecordBatch:
    hit = pa.array([_names_it(value.as_py(), needles) for value in batch.column("payload")])
    for name in ("payload", "error"):
        place = batch.schema.get_field_index(name)
        kept = pc.if_else(hit, pa.scalar(None, batch.schema.field(place).type), batch.column(name))
        batch = batch.set_column(place, batch.schema.field(place), kept)
    return batch


def _naming(lake: Lake, needles: Collection[bytes]) -> pa.Table:
    payloads = lake.read("rejected_messages", ["payload"])
    hits = [_names_it(value.as_py(), needles) for value in payloads.column("payload")]
    return payloads.filter(pa.array(hits, pa.bool_()))


def _names_it(payload: bytes | None, needles: Collection[bytes]) -> bool:
    return payload is not None and any(needle in payload for needle in needles)


def _needles(lake: Lake, video_id: str, keys: Collection[str]) -> set[bytes]:
    """The id and the URIs as they stand in JSON, in quotation marks: nothing that only has them
    as a part."""
    mine = lake.predicates("videos").is_in("video_key", list(keys))
    texts = {video_id, *_column(lake.read("videos", ["uri"], mine), "uri")}
    return {json.dumps(t, ensure_ascii=plain).encode() for t in texts for plain in (True, False)}


def _clip_ids(lake: Lake, keys: Collection[str]) -> list[str]:
    found: set[str] = set()
    for table in ("clips", "enriched_clips"):
        mine = lake.predicates(table).is_in("video_key", list(keys))
        found |= set(_column(lake.read(table, ["clip_id"], mine), "clip_id"))
    return sorted(found)


def _days(lake: Lake, table: str, keys: Collection[str]) -> set[str]:
    if not next(t for t in TABLES if t.name == table).partition_keys:
        return set()
    mine = lake.predicates(table).is_in("video_key", list(keys))
    return set(_column(lake.read(table, [_PARTITION], mine), _PARTITION))


def _note_snapshots(lake: Lake, found: Forgotten) -> None:
    touched = [name for name, count in found.rows.items() if count]
    for name in [*touched, *(["rejected_messages"] if found.payloads else [])]:
        table = lake.table(name)
        snapshots = sorted(table.snapshot_manager().list_snapshots(), key=lambda s: s.id)
        if snapshots:
            found.snapshots[name] = (snapshots[0].id, snapshots[-1].id, len(snapshots))
            found.newest_snapshot_ms = max(found.newest_snapshot_ms, snapshots[-1].time_millis)
        if tags := sorted(str(tag) for tag in table.tag_manager().list_tags()):
            found.tags[name] = tags


def _column(rows: pa.Table, name: str) -> list[str]:
    return [value for value in rows.column(name).to_pylist() if value is not None]
