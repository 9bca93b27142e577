"""The job ``split``: rows of videos become rows of clips, or of failed_videos.

``videos`` as a stream → fetched and probed (one task, several videos at once) → segments, spread
over the workers that decode and score them → merged by row of ``videos`` → SQL sinks. What the
operators do is in `ingest.split_probe` and `ingest.split_operators`. A replay is one more row of
``videos``, and goes the same way.
"""

from __future__ import annotations

from typing import Any

from pyflink.common import WatermarkStrategy
from pyflink.common.typeinfo import Types
from pyflink.datastream.connectors.number_seq import NumberSequenceSource

from ingest import elements
from ingest.flink_env import KEEP_CONSUMERS, LOOKUP, FlinkEnvironment, options_hint
from ingest.job_record import NewState
from ingest.split_operators import (
    FAILED_TAG,
    RESOLVED_TAG,
    MergeSegments,
    ScoreSegment,
    row_type,
)
from ingest.split_probe import FetchVideos, ReadVideos, Tick
from schemas.recipe import Recipe
from schemas.settings import Settings
from schemas.tables import (
    CLIPS,
    FAILED_VIDEOS,
    KAFKA_COLUMN_NAMES,
    Column,
    ColumnType,
    Table,
)

STATE_FORMAT = f"3.{elements.FORMAT}"
"""Raised when the operators of this job change so that an older checkpoint does not fit."""

CONSUMER_ID = "cliplake-split"
DISCOVERY_INTERVAL = "500 ms"
UIDS = (
    "split-read",
    "split-numbers",
    "split-clock",
    "split-fetch",
    "split-score",
    "split-merge",
)
"""Names under which the operators' state is found again; never reused for another purpose.
``split-probe`` is taken: it was one video after the other, without state."""
_ALL = "all"
"""The key of all rows while they are fetched: Flink has state in Python for keyed streams only."""


def options(settings: Settings) -> dict[str, str]:
    """Flink options of this job."""
    timeout_s = 600 + 2 * settings.fetch.deadline_s + 4 * settings.decode.deadline_base_s
    return {
        # A checkpoint waits for all elements of a bundle, and an element may take seconds.
        "python.fn-execution.bundle.size": "1",
        "python.fn-execution.bundle.time": "10",
        # A task that has to fetch a video to score it holds a checkpoint back; a timeout would only
        # repeat it.
        "execution.checkpointing.timeout": f"{round(timeout_s)} s",
    }


def build(
    environment: FlinkEnvironment, settings: Settings, recipe: Recipe, new_state: NewState | None
) -> Any:
    """The job as a statement set, ready to execute."""
    tables = environment.tables
    scratch_dir = str(settings.scratch_dir)
    fetch, decode = settings.fetch, settings.decode
    rows = tables.to_data_stream(tables.sql_query(source_query(environment.table("videos"))))
    videos = rows.flat_map(ReadVideos(new_state), output_type=Types.PICKLED_BYTE_ARRAY())
    videos.uid(UIDS[0]).name("read videos")
    # Numbers without end, as slowly as they are let through: the table `datagen` would give those
    # of a second all at once.
    numbers = environment.streams.from_source(
        NumberSequenceSource(0, 2**62), WatermarkStrategy.no_watermarks(), "numbers"
    )
    ticks = numbers.uid(UIDS[1]).map(Tick(), output_type=Types.LONG())
    ticks.uid(UIDS[2]).name("clock")
    probed = (
        videos.key_by(_one_key, key_type=Types.STRING())
        .connect(ticks.key_by(_one_key, key_type=Types.STRING()))
        .process(
            FetchVideos(fetch, decode, scratch_dir, settings.flink.parallelism),
            output_type=Types.PICKLED_BYTE_ARRAY(),
        )
    )
    probed.uid(UIDS[3]).name("fetch and probe")
    segments = probed.rebalance().flat_map(
        ScoreSegment(fetch, decode, scratch_dir), output_type=Types.PICKLED_BYTE_ARRAY()
    )
    segments.set_parallelism(settings.flink.parallelism).uid(UIDS[4]).name("score segment")
    merged = segments.key_by(lambda part: part.row, key_type=Types.STRING()).process(
        MergeSegments(recipe), output_type=row_type(CLIPS)
    )
    merged.set_parallelism(1).uid(UIDS[5]).name("merge segments")
    for view, stream in (
        ("clips_rows", merged),
        ("failed_rows", merged.get_side_output(FAILED_TAG)),
        ("resolved_rows", merged.get_side_output(RESOLVED_TAG)),
    ):
        tables.create_temporary_view(view, tables.from_data_stream(stream))
    clips, failed = environment.table(CLIPS.name), environment.table(FAILED_VIDEOS.name)
    statements = tables.create_statement_set()
    statements.add_insert_sql(f"INSERT INTO {clips} SELECT {_columns(CLIPS)} FROM clips_rows")
    # One INSERT, since two would compact the table at once.
    statements.add_insert_sql(
        f"INSERT INTO {failed} SELECT {_columns(FAILED_VIDEOS)} FROM failed_rows "
        f"UNION ALL {resolved_query(failed)}"
    )
    return statements


def _one_key(_: Any) -> str:
    return _ALL


def resolved_query(letters: str) -> str:
    """The rows of failed_videos, ``letters``, of videos that have been split since.

    The row takes the coordinates of the message that succeeded: its offset is the sequence.
    """
    taken = {"resolved_at", *KAFKA_COLUMN_NAMES}
    columns = [
        _column(column, "s") if column.name in taken else f"r.`{column.name}`"
        for column in FAILED_VIDEOS.columns
    ]
    return (
        f"SELECT {', '.join(columns)} "
        "FROM (SELECT *, PROCTIME() AS proc FROM resolved_rows) AS s "
        f"JOIN {letters} {options_hint(LOOKUP)} FOR SYSTEM_TIME AS OF s.proc AS r "
        "ON r.video_key = s.video_key WHERE r.resolved_at IS NULL"
    )


def source_query(videos: str) -> str:
    """``videos`` as an unbounded stream: what is there, then what comes.

    How far it got is in the job's checkpoints. The consumer only keeps snapshots from expiring
    that were not read yet; its own progress is ignored, and kept in the mode that lets a
    checkpoint pass between two rows instead of between two files.
    """
    columns = [
        f"CAST({name} AS STRING)" if name == "kafka_timestamp" else name
        for name in elements.VIDEO_COLUMNS
    ]
    hints = {
        "continuous.discovery-interval": DISCOVERY_INTERVAL,
        "consumer-id": CONSUMER_ID,
        # Paimon wants it stated here, and heeds it in the job that writes the table.
        **KEEP_CONSUMERS,
        "consumer.mode": "at-least-once",
        "consumer.ignore-progress": "true",
        "scan.parallelism": "1",
        # Paimon's reader hands on a whole batch before a checkpoint may pass: of 1024 rows, which
        # in a backlog are taken in a second each.
        "read.batch-size": "1",
    }
    return f"SELECT {', '.join(columns)} FROM {videos} {options_hint(hints)}"


def _columns(table: Table) -> str:
    return ", ".join(_column(column) for column in table.columns)


def _column(column: Column, of: str = "") -> str:
    name = f"{of}.`{column.name}`" if of else f"`{column.name}`"
    return f"TO_TIMESTAMP_LTZ({name}, 3)" if column.type is ColumnType.TIMESTAMP else name
