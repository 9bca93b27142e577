"""The tables as Flink and as pypaimon would make them are the same tables."""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa
import pytest
from pypaimon import CatalogFactory, Schema

from schemas.reasons import ClipStatus, MediaReason, RejectedMessageReason, RejectReason
from schemas.tables import (
    CLIP_COLUMN_NAMES,
    CLIPS,
    ENRICHED_CLIPS,
    KAFKA_COLUMN_NAMES,
    TABLES,
    ColumnType,
    Table,
)

_DDL_COLUMN = re.compile(r"^  `(\w+)` (.+?)( NOT NULL)?,?$")


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Any:
    catalog = CatalogFactory.create({"warehouse": tmp_path_factory.mktemp("lake").as_uri()})
    catalog.create_database("cliplake", False)
    for table in TABLES:
        schema = Schema.from_pyarrow_schema(
            table.arrow_schema(),
            partition_keys=list(table.partition_keys),
            primary_keys=list(table.primary_key),
            options=dict(table.options),
        )
        catalog.create_table(f"cliplake.{table.name}", schema, False)
    return catalog


def stored(catalog: Any, table: Table) -> tuple[list[tuple[str, str, bool]], Any]:
    """Columns as (name, type, nullable) from the schema that Paimon wrote."""
    schema = catalog.get_table(f"cliplake.{table.name}").table_schema
    columns = []
    for column in schema.fields:
        type_ = str(column.type)
        columns.append((column.name, type_.removesuffix(" NOT NULL"), "NOT NULL" not in type_[-8:]))
    return columns, schema


def ddl_columns(table: Table) -> list[tuple[str, str, bool]]:
    matches = [_DDL_COLUMN.match(line) for line in table.flink_ddl().splitlines()]
    return [(m[1], m[2], m[3] is None) for m in matches if m]


@pytest.mark.parametrize("table", TABLES, ids=lambda t: t.name)
def test_the_ddl_and_the_table_that_pypaimon_makes_have_the_same_columns(
    catalog: Any, table: Table
) -> None:
    columns, schema = stored(catalog, table)
    ours = ddl_columns(table)
    assert [name for name, _, _ in ours] == [name for name, _, _ in columns]
    assert (
        table.differences(columns, schema.primary_keys, schema.partition_keys, schema.options) == []
    )
    assert table.differences(ours, table.primary_key, table.partition_keys, table.options) == []


@pytest.mark.parametrize("table", TABLES, ids=lambda t: t.name)
def test_keys_are_columns_that_are_never_null(table: Table) -> None:
    for key in (*table.primary_key, *table.partition_keys):
        assert not table.column(key).nullable
    sequence = table.options.get("sequence.field")
    assert (sequence is not None) == bool(table.primary_key)
    if sequence:
        assert table.column(sequence).type is ColumnType.BIGINT
        assert table.options["bucket"].isdigit()


@pytest.mark.parametrize("table", TABLES, ids=lambda t: t.name)
def test_every_table_can_be_read_by_sparks_older_readers(table: Table) -> None:
    assert table.options["metadata.stats-mode"] == "full"


@pytest.mark.parametrize("table", TABLES, ids=lambda t: t.name)
def test_every_column_says_what_it_holds_and_stands_once(table: Table) -> None:
    assert all(column.doc for column in table.columns)
    assert len(set(table.column_names)) == len(table.columns)


def test_a_row_goes_through_paimon_unchanged(catalog: Any) -> None:
    values = {
        ColumnType.STRING: "ключ",
        ColumnType.BOOLEAN: True,
        ColumnType.INT: -1,
        ColumnType.BIGINT: 2**62,
        ColumnType.DOUBLE: 0.1,
        ColumnType.BYTES: b"\x00\xff",
        ColumnType.STRING_MAP: [("a", "b")],
        ColumnType.DOUBLE_MAP: [("a", 0.1)],
        ColumnType.DOUBLE_ARRAY: [0.5, 1.5],
        ColumnType.BYTES_ARRAY: [b"\x00", b""],
        ColumnType.TIMESTAMP: pa.scalar(1_769_860_800_123, pa.timestamp("ms", tz="UTC")).as_py(),
    }
    for table in TABLES:
        full = {c.name: values[c.type] for c in table.columns}
        least = {c.name: None if c.nullable else values[c.type] for c in table.columns}
        for row in (full, least):
            store = catalog.get_table(f"cliplake.{table.name}")
            builder = store.new_batch_write_builder().overwrite()
            writer, commit = builder.new_write(), builder.new_commit()
            writer.write_arrow(pa.Table.from_pylist([row], schema=table.arrow_schema()))
            commit.commit(writer.prepare_commit())
            writer.close()
            commit.close()
            reader = store.new_read_builder()
            read = reader.new_read().to_arrow(reader.new_scan().plan().splits())
            assert read.to_pylist() == [row], table.name


def test_differences_are_said_in_sentences_with_both_sides(catalog: Any) -> None:
    columns, schema = stored(catalog, CLIPS)
    changed = [(name, type_, nullable) for name, type_, nullable in columns if name != "fps"]
    changed[0] = ("clip_id", "BIGINT", False)
    changed.append(("mine", "STRING", True))
    changed.append(("yours", "STRING", False))
    problems = CLIPS.differences(
        changed,
        ["clip_id", "video_key"],
        ["dt"],
        {**schema.options, "bucket": "7", "snapshot.time-retained": "1 d"},
    )
    assert problems == [
        "column clip_id is BIGINT, and should be STRING",
        "column fps (DOUBLE) is missing",
        "column yours is not ours and is NOT NULL, so nothing can be written",
        "the primary key should be (clip_id), not (clip_id, video_key)",
        "the partition keys should be (), not (dt)",
        "option bucket is 7, and should be 2",
    ]


def test_a_column_that_changed_whether_it_may_be_null_is_a_difference(catalog: Any) -> None:
    columns, schema = stored(catalog, CLIPS)
    flipped = [
        (name, type_, not nullable if name in ("etag", "uri") else nullable)
        for name, type_, nullable in columns
    ]
    problems = CLIPS.differences(flipped, schema.primary_keys, [], schema.options)
    assert problems == ["column uri should be NOT NULL", "column etag should allow nulls"]


def test_an_unknown_column_is_a_key_error_that_names_the_table() -> None:
    with pytest.raises(KeyError, match="clips has no column 'nope'"):
        CLIPS.column("nope")


def test_enriched_clips_hold_all_that_clips_say_of_a_clip() -> None:
    for name in (*CLIP_COLUMN_NAMES, *KAFKA_COLUMN_NAMES):
        assert ENRICHED_CLIPS.column(name) == CLIPS.column(name)


def test_reasons_are_words_that_can_be_labels() -> None:
    for reasons in (RejectedMessageReason, MediaReason, RejectReason, ClipStatus):
        for reason in reasons:
            assert re.fullmatch(r"[a-z0-9_]+", reason.value)
            assert reason.value == reason.name.lower()
