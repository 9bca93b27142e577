"""Files are pypaimon's own, and the newest version of a row is read whoever wrote and reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pypaimon import Schema
from pypaimon.write.row_key_extractor import FixedBucketRowKeyExtractor

from processors.pool.commits import Committer
from processors.pool.keyed_write import KeyedWrite, SequenceNumbers
from processors.pool.lake import Lake
from processors.pool.lock import only_driver
from processors.pool.maintenance import maintain
from processors.pool.position import EPOCH_BITS, Position
from processors.results import passed
from schemas.tables import ENRICHED_CLIPS
from tests import pool_lake
from tests.ledger.read import by_flink

ROWS = 40


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return pool_lake.new_lake(pool_lake.settings(tmp_path))


def table_of(versions: list[tuple[int, int]]) -> pa.Table:
    """Rows of enriched_clips by (clip, enrich_seq)."""
    recipe = pool_lake.recipe()
    rows = [
        {
            **passed(pool_lake.clip(clip), recipe, {"motion_score": float(sequence)}).enriched,
            "enrich_seq": sequence,
            "stage_seconds": {"motion": str(sequence)},
            "enriched_at": pool_lake.clip(clip)["kafka_timestamp"],
        }
        for clip, sequence in versions
    ]
    return pa.Table.from_pylist(rows, schema=ENRICHED_CLIPS.arrow_schema())


def written(writer: Any, data: pa.Table) -> list[Any]:
    writer.write_arrow(data)
    messages: list[Any] = writer.prepare_commit(1)
    writer.close()
    return messages


def test_files_and_what_is_said_of_them_are_those_of_pypaimons_own_writer(lake: Lake) -> None:
    # Two versions of every third clip, the older one last for some.
    versions = [(n, 100 + n) for n in range(ROWS)] + [(n, 90 + 2 * n) for n in range(0, ROWS, 3)]
    data = pa.concat_tables([table_of(versions[:30]), table_of(versions[30:])])
    table = lake.table("enriched_clips")
    plain = written(table.new_stream_write_builder().new_write(), data)
    ours = written(KeyedWrite(table, "somebody", SequenceNumbers()), data)
    assert [m.bucket for m in ours] == [m.bucket for m in plain] == [0, 1]
    for one, other in zip(ours, plain, strict=True):
        (mine,), (theirs,) = one.new_files, other.new_files
        read, wanted = pq.read_table(mine.file_path), pq.read_table(theirs.file_path)
        assert read.schema.equals(wanted.schema, check_metadata=True)
        assert read.equals(wanted)
        for what in (
            "row_count", "min_key", "max_key", "key_stats", "value_stats", "level", "schema_id",
            "min_sequence_number", "max_sequence_number", "value_stats_cols", "delete_row_count",
        ):  # fmt: skip
            assert getattr(mine, what) == getattr(theirs, what), what


@pytest.mark.parametrize("buckets", [1, 2, 7])
def test_a_key_goes_where_pypaimon_puts_it(lake: Lake, buckets: int) -> None:
    options = {**ENRICHED_CLIPS.options, "bucket": str(buckets)}
    table = new_table(lake, options)
    ids = [pool_lake.clip_id(n) for n in range(500)]
    for keys in (ids, ids[1:4], ["short", "é" * 16, "x" * 32]):
        batch = pa.RecordBatch.from_arrays(
            [pa.array([k if c == "clip_id" else None for k in keys], t) for c, t in _types()],
            schema=ENRICHED_CLIPS.arrow_schema(),
        )
        extractor = KeyedWrite(table, "somebody", SequenceNumbers()).row_key_extractor
        found = extractor.extract_partition_bucket_batch(batch.slice(1))[1]
        plain = FixedBucketRowKeyExtractor(table.table_schema)
        assert found == plain.extract_partition_bucket_batch(batch.slice(1))[1]


def new_table(lake: Lake, options: dict[str, str]) -> Any:
    schema = Schema.from_pyarrow_schema(
        ENRICHED_CLIPS.arrow_schema(), primary_keys=["clip_id"], options=options
    )
    lake.catalog.create_table(f"{lake.database}.other", schema, False)
    return lake.table("other")


def _types() -> list[tuple[str, pa.DataType]]:
    return [(field.name, field.type) for field in ENRICHED_CLIPS.arrow_schema()]


def test_a_table_of_another_kind_is_refused(lake: Lake) -> None:
    table = new_table(lake, {**ENRICHED_CLIPS.options, "merge-engine": "partial-update"})
    with pytest.raises(ValueError, match="one version a key"):
        KeyedWrite(table, "somebody", SequenceNumbers())


def test_the_newest_version_is_read_over_commits_restarts_and_compactions(
    lake: Lake, tmp_path: Path
) -> None:
    settings = pool_lake.settings(tmp_path)
    pool_lake.append_clips(lake, [pool_lake.clip(n) for n in range(ROWS)])
    wanted: dict[str, float] = {}

    def commit(committer: Committer, epoch: int, clips: range, score: float) -> None:
        for place, number in enumerate(clips):
            sequence = (epoch << EPOCH_BITS) + int(score) * ROWS + place
            result = passed(pool_lake.clip(number), pool_lake.recipe(), {"motion_score": score})
            committer.add(result, sequence)
            wanted[pool_lake.clip_id(number)] = score
        committer.commit(Position(lake.identity("clips"), 1, epoch=epoch))

    kept = Committer(lake, 1)
    commit(kept, 1, range(ROWS), 1.0)
    commit(kept, 1, range(0, ROWS, 2), 2.0)
    with only_driver(settings):
        maintain(settings, ["enriched_clips"])
    # It knows nothing of the compaction.
    commit(kept, 1, range(0, ROWS, 3), 3.0)
    again = Committer(Lake(settings), 2)
    commit(again, 2, range(0, ROWS, 4), 1.0)
    with only_driver(settings):
        maintain(settings, ["enriched_clips"])
    commit(again, 2, range(0, ROWS, 5), 2.0)
    assert scores(Lake(settings).read("enriched_clips").to_pylist()) == wanted
    assert scores(by_flink(settings)["enriched_clips"]) == wanted


def scores(rows: Any) -> dict[str, float]:
    found = {row["clip_id"]: row["motion_score"] for row in rows}
    assert len(found) == len(rows)
    return found
