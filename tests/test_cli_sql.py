"""`sql`: answers from the lake, and can change nothing in it."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cliplake.query import LakeSql, QueryError
from processors.pool.lake import Lake
from schemas.problems import ConfigError
from schemas.settings import Settings, load_settings
from schemas.tables import ENRICHED_CLIPS, VIDEOS, ColumnType, Table
from tests.cli import cliplake

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Settings]:
    """A folder with a settings file and a lake of twenty clips, each written twice."""
    folder = tmp_path_factory.mktemp("sql")
    (folder / "cliplake.yaml").write_text(
        f"catalog: {{options: {{warehouse: '{(folder / 'lake').as_uri()}'}}}}"
    )
    settings = load_settings(folder / "cliplake.yaml")
    Lake(settings).ensure_tables()
    for version in (1, 2):
        _write(
            settings,
            ENRICHED_CLIPS,
            [
                {
                    "clip_id": f"c{i:02d}",
                    "enrich_seq": version,
                    "motion_score": version + i / 100,
                    "kept": i % 2 == 0,
                    "stage_seconds": [("motion", "0.5")],
                    "caption": "first\x1b[2J",
                    "enriched_at": NOW,
                }
                for i in range(20)
            ],
        )
    _write(settings, VIDEOS, [{"video_key": "v", "message": b"\x00\xff", "dt": "2026-01-31"}])
    return folder, settings


def _write(settings: Settings, table: Table, rows: list[dict[str, Any]]) -> None:
    fillers: dict[ColumnType, Any] = {
        ColumnType.STRING: "x",
        ColumnType.BOOLEAN: True,
        ColumnType.INT: 0,
        ColumnType.BIGINT: 0,
        ColumnType.DOUBLE: 0.0,
    }
    full = [
        {c.name: row.get(c.name, None if c.nullable else fillers[c.type]) for c in table.columns}
        for row in rows
    ]
    builder = Lake(settings).table(table.name).new_batch_write_builder()
    writer, commit = builder.new_write(), builder.new_commit()
    writer.write_arrow(pa.Table.from_pylist(full, schema=table.arrow_schema()))
    commit.commit(writer.prepare_commit())
    writer.close()
    commit.close()


def test_a_key_is_one_row_with_its_latest_version(lake: tuple[Path, Settings]) -> None:
    found = LakeSql(lake[1]).query(
        "select count(*) as n, min(enrich_seq) as seq, sum(motion_score) as s from enriched_clips"
    )
    assert found.to_pylist() == [{"n": 20, "seq": 2, "s": pytest.approx(41.9)}]


@pytest.mark.parametrize("name", ["enriched_clips", "cliplake.enriched_clips", "ENRICHED_CLIPS"])
def test_tables_have_a_short_and_a_full_name(lake: tuple[Path, Settings], name: str) -> None:
    assert LakeSql(lake[1]).numbers(f"select count(*) as n from {name};") == {"n": 20}


def test_system_tables_and_joins_work(lake: tuple[Path, Settings]) -> None:
    sql = LakeSql(lake[1])
    assert sql.numbers('select count(*) as n from "enriched_clips$snapshots"') == {"n": 2}
    joined = "select v.video_key from videos v left join enriched_clips e using (video_key)"
    assert sql.query(joined).num_rows == 1


def test_show_tables_lists_this_lake_s(lake: tuple[Path, Settings]) -> None:
    names = LakeSql(lake[1]).query("show  tables").column(0).to_pylist()
    assert "enriched_clips" in names
    assert len(names) == 9


def test_a_result_without_rows_keeps_its_columns(lake: tuple[Path, Settings]) -> None:
    found = LakeSql(lake[1]).query("select clip_id, uri as where_it_is from clips order by 1")
    assert found.column_names == ["clip_id", "where_it_is"]
    assert found.num_rows == 0


def test_a_limit_keeps_the_order_and_yields_to_the_query_s_own(
    lake: tuple[Path, Settings],
) -> None:
    sql = LakeSql(lake[1])
    best = "select clip_id from enriched_clips order by motion_score desc"
    assert sql.query(best, 2).column(0).to_pylist() == ["c19", "c18", "c17"]
    assert sql.query(f"{best} limit 1", 2).num_rows == 1
    assert sql.query(f"{best} -- the best", 2).num_rows == 3


@pytest.mark.parametrize(
    "statement",
    [
        "drop table enriched_clips",
        "delete from enriched_clips",
        "insert into videos select * from videos",
        "update videos set uri = ''",
        "create table mine as select 1",
        "truncate table videos",
        "alter table videos add column x int",
        "copy (select 1) to 'x.csv'",
        "call sys.compact('cliplake.videos')",
        "set x = 1",
        "explain analyze insert into videos select * from videos",
        "with v as (select * from videos) insert into videos select * from v",
        "/* only looking */ drop table videos",
        "-- only looking\ndrop table videos",
        "select 1; drop table videos",
        "select 1) as a; drop table videos --",
        "",
        "  ;",
        "-- nothing",
    ],
)
def test_only_queries_run_and_the_lake_stays_as_it_is(
    lake: tuple[Path, Settings], statement: str
) -> None:
    sql = LakeSql(lake[1])
    with pytest.raises(QueryError):
        sql.query(statement)
    assert sql.numbers(
        'select (select count(*) from videos) as v, (select count(*) from "videos$snapshots") as s'
    ) == {"v": 1, "s": 1}


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("select * from enriched_clip", "did you mean enriched_clips?"),
        ("select motion from enriched_clips", "did you mean motion_score?"),
        ("select e.motion_scor from enriched_clips e", "did you mean 'e.motion_score'?"),
        ("select * from clips where", "sql parser"),
        ("selec 1", "SELEC"),
    ],
)
def test_a_typo_is_answered_with_what_there_is(
    lake: tuple[Path, Settings], statement: str, says: str
) -> None:
    with pytest.raises(QueryError) as caught:
        LakeSql(lake[1]).query(statement)
    assert says.lower() in str(caught.value).lower()


def test_a_folder_without_a_lake_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    settings = load_settings(catalog={"options": {"warehouse": tmp_path.as_uri()}})
    with pytest.raises(ConfigError, match="there is no lake"):
        LakeSql(settings)


def test_json_is_an_array_of_rows(lake: tuple[Path, Settings]) -> None:
    query = "select clip_id, kept, stage_seconds, enriched_at from enriched_clips order by 1"
    done = cliplake("sql", "--json", "--limit", "2", query, cwd=lake[0])
    rows = json.loads(done.stdout)
    assert rows[0] == {
        "clip_id": "c00",
        "kept": True,
        "stage_seconds": {"motion": "0.5"},
        "enriched_at": "2026-01-31T12:00:00+00:00",
    }
    assert len(rows) == 2


def test_csv_has_a_header_and_all_rows(lake: tuple[Path, Settings]) -> None:
    done = cliplake("sql", "--csv", "-", cwd=lake[0], stdin="select clip_id from enriched_clips")
    assert len(list(csv.DictReader(io.StringIO(done.stdout)))) == 20


def test_a_table_says_when_there_is_more_and_text_cannot_drive_the_terminal(
    lake: tuple[Path, Settings],
) -> None:
    done = cliplake("sql", "--limit", "3", "select caption from enriched_clips", cwd=lake[0])
    assert done.returncode == 0
    assert "\x1b[2J" not in done.stdout
    assert done.stdout.count(r"first\x1b[2J") == 3
    assert "there are more" in done.stderr


def test_bytes_are_base64_in_json(lake: tuple[Path, Settings]) -> None:
    done = cliplake("sql", "--json", "select message from videos", cwd=lake[0])
    assert json.loads(done.stdout) == [{"message": "AP8="}]
