"""Dead letters over a real lake: one view, conditions that are one expression, and what to send."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cliplake.letters import (
    Filter,
    condition,
    find_letters,
    full_ids,
    message_of,
    parse_since,
)
from cliplake.query import LakeSql, QueryError
from cliplake.replaying import plan_replay
from ingest.topic import PartitionOffsets
from processors.pool.lake import Lake
from schemas.problems import ConfigError
from schemas.replay import MessageName
from schemas.settings import Settings, load_settings
from schemas.tables import TABLES
from tests.cli import cliplake

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
KEY, OTHER, CLIP, TWIN = "a" * 32, "b" * 32, "c" * 32, "f" * 31 + "0"
JUNK = b"junk \x1b[31m\xe2\x80\xae"
OFFSETS = {0: PartitionOffsets(0, 100)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("letters")


@pytest.fixture(scope="module")
def settings(folder: Path) -> Settings:
    found = load_settings(
        None, catalog={"options": {"warehouse": (folder / "lake").as_uri()}}, kafka={"topic": "t"}
    )
    lake = Lake(found)
    lake.ensure_tables()
    at = {"kafka_topic": "t", "kafka_partition": 0, "failed_at": NOW, "reason": "not_found"}
    rows: dict[str, list[dict[str, Any]]] = {
        "videos": [
            {**at, "video_key": KEY, "kafka_offset": 1, "message": b"one"},
            {**at, "video_key": OTHER, "kafka_offset": 2, "message": b"two"},
            {**at, "video_key": "d" * 32, "kafka_offset": 2, "message": b"two", "record_index": 1},
        ],
        "rejected_messages": [
            {**at, "kafka_offset": 3, "payload": JUNK, "reason": "not_json"},
            {**at, "kafka_offset": 4, "payload": b"junk", "replay_of": "t[0]@3"},
            {**at, "kafka_offset": 5, "payload": b"fine", "resolved_at": NOW},
            {**at, "kafka_topic": "old", "kafka_offset": 6, "payload": b"{"},
        ],
        "failed_videos": [
            {**at, "video_key": KEY, "kafka_offset": 1, "stage": "fetch", "error": "\x1b[2J gone"},
            {**at, "video_key": "e" * 32, "kafka_offset": 9, "stage": "fetch"},
            {**at, "video_key": TWIN, "kafka_offset": 1, "stage": "fetch", "resolved_at": NOW},
        ],
        "failed_clips": [
            {**at, "clip_id": CLIP, "video_key": OTHER, "kafka_offset": 2, "stage": "decode"},
            {**at, "clip_id": "f" * 32, "video_key": OTHER, "kafka_offset": 2, "stage": "decode"},
        ],
    }  # fmt: skip
    fill = {"video_id": "v", "uri": "file:///v.mp4", "dt": "2026-01-31", "enrich_seq": 1, "seq": 0}
    for table in TABLES:
        full = [{**fill, "record_index": 0, **row} for row in rows.get(table.name, [])]
        if full:
            builder = lake.table(table.name).new_batch_write_builder()
            writer, commit = builder.new_write(), builder.new_commit()
            writer.write_arrow(pa.Table.from_pylist(full, schema=table.arrow_schema()))
            commit.commit(writer.prepare_commit())
    return found


@pytest.fixture(scope="module")
def sql(settings: Settings) -> LakeSql:
    return LakeSql(settings)


def ids(sql: LakeSql, **wanted: Any) -> set[str]:
    return {row["id"] for row in find_letters(sql, Filter(**wanted)).to_pylist()}


def test_letters_of_three_tables_are_one_list_of_what_is_not_resolved(sql: LakeSql) -> None:
    assert ids(sql) == {"t[0]@3", "old[0]@6", KEY, "e" * 32, CLIP, "f" * 32}
    assert ids(sql, resolved=True) - ids(sql) == {"t[0]@4", "t[0]@5", TWIN}
    assert ids(sql, table="failed_clips") == {CLIP, "f" * 32}
    assert ids(sql, reasons=["not_json"]) == {"t[0]@3"}
    assert ids(sql, since=NOW + timedelta(seconds=1)) == set()
    assert len(ids(sql, since=NOW)) == 6
    assert ids(sql, ids=[CLIP, "t[0]@3"]) == {CLIP, "t[0]@3"}
    assert find_letters(sql, Filter(), 2).num_rows == 3


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("stage = 'fetch'", {KEY, "e" * 32}),
        ("stage = 'fetch' and kafka_offset > 5 -- 1".removesuffix(" -- 1"), {"e" * 32}),
        ("reason = ')' or id = 't[0]@3'", {"t[0]@3"}),
        ("video_key in (select video_key from videos where message = CAST('one' AS BYTEA))", {KEY}),
        ("retryable", set()),
        ("true", {"t[0]@3", "old[0]@6", KEY, "e" * 32, CLIP, "f" * 32}),
    ],
)
def test_a_condition_chooses_among_them(sql: LakeSql, where: str, found: set[str]) -> None:
    assert ids(sql, where=where) == found


@pytest.mark.parametrize(
    "where",
    [
        "",
        "reason",
        "1",
        "true) or (true",
        "true) union select 1 where (true",
        "true, false",
        "true as a",
        "true; drop table videos",
        "true -- )",
        "true /* ) */",
        "reason = 'x",
        "reason = E'\\')'",
        "no_such_column = 1",
        "count(*) > 1",
        "true order by 1",
    ],
)
def test_what_is_not_one_condition_is_refused(sql: LakeSql, where: str) -> None:
    with pytest.raises(QueryError, match="--where"):
        condition(sql, where)


def test_a_time_is_an_age_or_iso_8601() -> None:
    assert parse_since("2h", NOW) == NOW - timedelta(hours=2)
    assert parse_since("2026-01-31T13:00:00+01:00", NOW) == NOW
    assert parse_since("2026-01-31", NOW) == NOW.replace(hour=0)
    with pytest.raises(ConfigError, match="3d"):
        parse_since("yesterday", NOW)


def test_a_message_is_sent_once_for_all_letters_of_its_videos(sql: LakeSql) -> None:
    rows = find_letters(sql, Filter()).to_pylist()
    plan = plan_replay(sql, rows, "t", OFFSETS)
    assert plan.messages == {
        MessageName("t", 0, 3): set(),
        MessageName("t", 0, 1): {KEY},
        MessageName("t", 0, 2): {OTHER},
    }
    assert plan.letters == {
        ("rejected_messages", "not_json"): 1,
        ("failed_videos", "not_found"): 1,
        ("failed_clips", "not_found"): 2,
    }
    assert sorted(plan.left_out) == [
        "it is of topic old, and the settings say t",
        "its video has no row in videos any more",
    ]


def test_letters_of_a_topic_that_was_made_anew_are_left_out(sql: LakeSql) -> None:
    rows = find_letters(sql, Filter(ids=[KEY, CLIP])).to_pylist()
    plan = plan_replay(sql, rows, "t", {0: PartitionOffsets(0, 2)})
    assert list(plan.messages) == [MessageName("t", 0, 1)]
    assert plan.left_out == {"the topic was deleted and made again since": 1}


def test_a_letters_message_is_the_one_it_came_from(sql: LakeSql) -> None:
    by_id = {row["id"]: row for row in find_letters(sql, Filter()).to_pylist()}
    assert message_of(sql, by_id[CLIP]) == b"two"
    assert message_of(sql, by_id["old[0]@6"]) == b"{"
    assert message_of(sql, by_id["e" * 32]) is None


def run(folder: Path, settings: Settings, *arguments: str) -> Any:
    warehouse = json.dumps({"warehouse": settings.catalog_options["warehouse"]})
    return cliplake(
        "dead-letters", *arguments, cwd=folder, CLIPLAKE__CATALOG__OPTIONS=warehouse,
        CLIPLAKE__KAFKA__TOPIC="t",
    )  # fmt: skip


def test_nothing_from_outside_drives_the_terminal(folder: Path, settings: Settings) -> None:
    for arguments in (("list",), ("list", "--json"), ("show", "t[0]@3"), ("show", KEY)):
        done = run(folder, settings, *arguments)
        assert done.returncode == 0, done.stderr
        assert "\x1b" not in done.stdout
        assert "\u202e" not in done.stdout
    assert "junk \\x1b[31m\\u202e" in run(folder, settings, "show", "t[0]@3").stdout


def test_a_list_breaks_no_id_and_names_the_video(folder: Path, settings: Settings) -> None:
    wanted = ("--table", "failed_videos", "--reason", "not_found")
    lines = run(folder, settings, "list", *wanted).stdout.splitlines()
    assert lines[0].split() == ["id", "failed", "at", "(UTC)", "stage", "reason"]
    shown = dict(zip(lines[1::2], lines[2::2], strict=True))
    line = next(line for line in shown if line.startswith(KEY))
    assert line.split() == [KEY, "2026-01-31", "12:00", "fetch", "not_found"]
    assert shown[line].strip() == "file:///v.mp4; \\x1b[2J gone"


def test_the_start_of_an_id_names_it_if_it_is_the_only_one(sql: LakeSql) -> None:
    assert full_ids(sql, ["aaaa", CLIP, "t[0]@3"]) == [KEY, CLIP, "t[0]@3"]
    assert full_ids(sql, ["0123abc"]) == ["0123abc"]
    with pytest.raises(ConfigError, match=rf"several dead letters: {TWIN}, {'f' * 32}"):
        full_ids(sql, ["ffff"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("show", "nonsense"), "no dead letter"),
        (("show", "0" * 32), "there is no dead letter"),
        (("show", "0000"), "there is no dead letter"),
        (("show", "eee"), "no dead letter"),
        (("replay", "f" * 33), "no dead letter"),
        (("list", "--table", "videos"), "failed_videos"),
        (("list", "--reason", "notfound"), "did you mean 'not_found'?"),
        (("list", "--where", "true) or (true"), "--where"),
        (("replay",), "--where CONDITION"),
        (("replay", "t[0]@5"), "--again"),
    ],
)
def test_wrong_usage_says_what_to_do(
    folder: Path, settings: Settings, arguments: tuple[str, ...], says: str
) -> None:
    done = run(folder, settings, *arguments)
    assert done.returncode == 2
    assert says in done.stderr
