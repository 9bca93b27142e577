"""A lake in a temporary folder, and clips to put into it: for the tests of the pool."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from processors.pool.lake import Lake
from schemas.recipe import Recipe, parse_recipe
from schemas.settings import Settings
from schemas.tables import CLIPS, TABLES

RECIPE_TEXT = """
process:
  - video_split_by_scene_mapper
  - video_duration_filter: %s
  - video_motion_score_filter: {min_score: %s}
"""


DURATIONS = "{min_duration: 2, max_duration: 60}"


def recipe(min_motion: float = 0.25) -> Recipe:
    return recipe_of(DURATIONS, min_motion)


def recipe_of(durations: str, min_motion: float) -> Recipe:
    return parse_recipe(recipe_text(durations, min_motion), where="test", default_name="test")


def recipe_text(durations: str, min_motion: float) -> str:
    return RECIPE_TEXT % (durations, min_motion)


def settings(folder: Path, **pool: Any) -> Settings:
    """Settings of a lake under ``folder``, quick to poll and to commit."""
    return Settings(
        local={"state_dir": str(folder)},
        pool={
            "poll_interval_s": 0.05,
            "commit_interval_s": 0.1,
            "cpus_per_actor": 0.25,
            "micro_batch_clips": 4,
            "stages_deadline_s": 0.5,
            **pool,
        },
        decode={"deadline_base_s": 0.5, "deadline_per_video_second_s": 0.1},
        fetch={"deadline_s": 0.5},
    )


def new_lake(configured: Settings) -> Lake:
    lake = Lake(configured)
    lake.ensure_tables()
    return lake


def clip_id(number: int) -> str:
    return hashlib.md5(str(number).encode()).hexdigest()


def clip(number: int, **changes: Any) -> dict[str, Any]:
    """A row of ``clips``; three a video."""
    return {
        "clip_id": clip_id(number),
        "video_key": f"video-{number // 3}",
        "video_id": f"video-{number // 3}",
        "uri": "file:///fine.mp4",
        "clip_index": number % 3,
        "start_s": 3.0 * (number % 3),
        "end_s": 3.0 * (number % 3) + 3.0,
        "start_pts": 3 * (number % 3),
        "end_pts": 3 * (number % 3) + 3,
        "time_base": "1/1",
        "duration_s": 3.0,
        "split_fingerprint": recipe().split_fingerprint,
        "duration_ok": True,
        "kafka_topic": "video-uploads",
        "kafka_partition": 1,
        "kafka_offset": number,
        "kafka_timestamp": datetime(2026, 1, 31, 12, tzinfo=UTC),
        **changes,
    }


def append_clips(lake: Lake, rows: Iterable[Mapping[str, Any]]) -> None:
    """One APPEND snapshot of ``clips``."""
    _write(lake, rows, overwrite=False)


def overwrite_clips(lake: Lake, rows: Iterable[Mapping[str, Any]]) -> None:
    """One OVERWRITE snapshot of ``clips``."""
    _write(lake, rows, overwrite=True)


def _write(lake: Lake, rows: Iterable[Mapping[str, Any]], *, overwrite: bool) -> None:
    builder = lake.table("clips").new_batch_write_builder()
    if overwrite:
        builder = builder.overwrite()
    writer, commit = builder.new_write(), builder.new_commit()
    writer.write_arrow(pa.Table.from_pylist(list(rows), schema=CLIPS.arrow_schema()))
    commit.commit(writer.prepare_commit())
    writer.close()
    commit.close()


def recreate(lake: Lake, name: str) -> None:
    """Drop a table and make it again under its old name."""
    lake.catalog.drop_table(f"{lake.database}.{name}")
    assert name in {table.name for table in TABLES}
    Lake.ensure_tables(lake)


def expire(lake: Lake, name: str, snapshots: Iterable[int]) -> None:
    """Delete snapshot files, as snapshot expiry does."""
    manager = lake.table(name).snapshot_manager()
    for number in snapshots:
        manager.file_io.delete(manager.get_snapshot_path(number))


def snapshots(lake: Lake, name: str) -> list[Any]:
    return list(lake.table(name).snapshot_manager().list_snapshots())


def rows_ever_appended(lake: Lake, name: str) -> int:
    """Rows of all APPEND commits together: more than the table has if work was done twice."""
    return sum(s.delta_record_count for s in snapshots(lake, name) if s.commit_kind == "APPEND")
