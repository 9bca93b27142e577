"""Poisonous messages: each is rejected with its reason, and what is stored of one harms nobody."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ingest.validation import parsed_rows
from processors.pool.lake import Lake
from schemas.ids import default_video_id
from schemas.message import MAX_MESSAGE_BYTES
from schemas.reasons import RejectedMessageReason as Reason
from schemas.settings import CHECKOUT, Settings, load_settings
from schemas.tables import ENRICHED_CLIPS, FAILED_VIDEOS, REJECTED_MESSAGES, ColumnType, Table
from schemas.text import printable
from tests.cli import cliplake

GOOD = {"schema_version": 1, "uri": "file:///videos/a.mp4"}
SCRIPT = "<script>alert(document.cookie)</script>"
SQL = "x'; DROP TABLE videos; --"
CONTROLS = "a\x1b[2J\x07\x7f\x9b2J\u2028b"
BIDI = "a\u202egpj.\u2066exe\u2069\u202c"


def message(**fields: Any) -> bytes:
    return json.dumps({**GOOD, **fields}).encode()


def raw(more: str) -> bytes:
    """A message with further JSON as it is written."""
    return f'{{"schema_version": 1, "uri": "file:///a.mp4", {more}}}'.encode()


REJECTED: dict[str, tuple[bytes | None, Reason]] = {
    "null": (None, Reason.EMPTY_MESSAGE),
    "empty": (b"", Reason.EMPTY_MESSAGE),
    "white space": (b" \r\n\t", Reason.EMPTY_MESSAGE),
    "a byte order mark and nothing": (b"\xef\xbb\xbf", Reason.NOT_JSON),
    "two byte order marks": (b"\xef\xbb\xbf" * 2 + message(), Reason.NOT_JSON),
    "Latin-1": ('{"uri": "Ä"}'.encode("latin-1"), Reason.NOT_UTF8),
    "UTF-16": (message().decode().encode("utf-16"), Reason.NOT_UTF8),
    "UTF-32": (message().decode().encode("utf-32"), Reason.NOT_UTF8),
    "overlong UTF-8": (b'{"uri": "\xc0\xaf"}', Reason.NOT_UTF8),
    "surrogates in UTF-8": (b'{"uri": "\xed\xa0\x80"}', Reason.NOT_UTF8),
    "zeros": (bytes(100), Reason.NOT_JSON),
    "JSON null": (b"null", Reason.NOT_AN_OBJECT),
    "a number": (b"1e999", Reason.NOT_AN_OBJECT),
    "two documents": (message() + message(), Reason.NOT_JSON),
    "half a document": (message()[:-5], Reason.NOT_JSON),
    "a deep list": (b"[" * 500_000, Reason.NOT_JSON),
    "a deep object": (b'{"a":' * 200_000, Reason.NOT_JSON),
    "a deep and whole list": (b"[" * 400_000 + b"]" * 400_000, Reason.NOT_JSON),
    "deep attributes": (
        raw('"attributes": ' + '{"a":' * 50 + "1" + "}" * 50),
        Reason.INVALID_FIELD,
    ),
    "a key twice": (raw('"uri": "file:///b.mp4"'), Reason.INVALID_FIELD),
    "a key twice, once escaped": (raw('"\\u0075ri": "file:///b.mp4"'), Reason.INVALID_FIELD),
    "an attribute twice": (raw('"attributes": {"a": "1", "a": "2"}'), Reason.INVALID_FIELD),
    "NaN": (raw('"uploaded_at": NaN'), Reason.NOT_JSON),
    "infinity": (raw('"attributes": {"a": -Infinity}'), Reason.NOT_JSON),
    "a version beyond 64 bits": (
        b'{"schema_version": 18446744073709551617}',
        Reason.UNKNOWN_SCHEMA_VERSION,
    ),
    "a version of a million digits": (
        b'{"schema_version": ' + b"1" * 1_000_000 + b"}",
        Reason.NOT_JSON,
    ),
    "a version that is almost 1": (
        b'{"schema_version": 1.0000000000000000001}',
        Reason.UNKNOWN_SCHEMA_VERSION,
    ),
    "an id beyond 64 bits": (raw('"video_id": 99999999999999999999999'), Reason.INVALID_FIELD),
    "a time beyond 64 bits": (raw('"uploaded_at": 99999999999999999999999'), Reason.INVALID_FIELD),
    "a time of no calendar": (message(uploaded_at="99999-99-99T00:00:00Z"), Reason.INVALID_FIELD),
    "10 MB": (message(video_id="x" * 10_000_000), Reason.MESSAGE_TOO_LARGE),
    "10 MB of white space": (b" " * 10_000_000 + message(), Reason.MESSAGE_TOO_LARGE),
    "an uri of null": (message(uri=None), Reason.MISSING_URI),
    "controls in a uri": (message(uri=f"file:///{CONTROLS}"), Reason.INVALID_FIELD),
    "a zero in a uri": (message(uri="file:///a\0.mp4"), Reason.INVALID_FIELD),
    "the terminal's other escape in an id": (message(video_id="\x9b2J"), Reason.INVALID_FIELD),
    "a separator of lines in a source": (message(source="a\u2028b"), Reason.INVALID_FIELD),
    "a turned uri": (message(uri=f"file:///{BIDI}"), Reason.INVALID_FIELD),
    "a turned id": (message(video_id=BIDI), Reason.INVALID_FIELD),
    "a turned name of an attribute": (message(attributes={BIDI: "x"}), Reason.INVALID_FIELD),
    "a script as a key": (message(**{SCRIPT: "x"}), Reason.INVALID_FIELD),
    "a script as a uri": (message(uri="javascript:alert(1)"), Reason.INVALID_URI),
}


@pytest.mark.parametrize("what", REJECTED)
def test_a_poisonous_message_is_one_row_with_its_reason(what: str) -> None:
    payload, reason = REJECTED[what]
    (row,) = parsed_rows(payload)
    assert row.reason == reason
    assert row.error is not None
    # It goes to logs, terminals and a column of text.
    assert row.error.isprintable()
    assert len(row.error) < 1000
    assert row.uri is row.video_key is row.attributes is None


ACCEPTED: dict[str, bytes] = {
    "a byte order mark": b"\xef\xbb\xbf" + message(),
    "an id that looks like a path": message(video_id="../../x"),
    "an id that looks like SQL": message(video_id=SQL),
    "scripts in attributes": message(attributes={SCRIPT: SCRIPT, "quotes": "\"'`"}),
    "controls in an attribute": message(attributes={"title": CONTROLS}),
    "turned text in an attribute": message(attributes={"title": BIDI}),
    "a path out of any folder": message(uri="file:///videos/../../etc/passwd"),
}


@pytest.mark.parametrize("what", ACCEPTED)
def test_what_only_looks_poisonous_is_text_and_stays_as_it_came(what: str) -> None:
    (row,) = parsed_rows(ACCEPTED[what])
    assert row.reason is None
    sent = json.loads(ACCEPTED[what].decode("utf-8-sig"))
    assert row.uri == sent["uri"]
    assert row.video_id == sent.get("video_id", default_video_id(sent["uri"]))
    assert row.attributes == sent.get("attributes")
    # What names files and keys is a hash, whatever the id is.
    assert row.video_key is not None
    assert row.video_key.isalnum()


def test_the_largest_message_is_read_in_full() -> None:
    start = message(attributes={"a": "b"})
    (row,) = parsed_rows(start + b" " * (MAX_MESSAGE_BYTES - len(start)))
    assert row.reason is None


# What is stored, and shown.

HOSTILE = f"{CONTROLS}{BIDI}{SCRIPT}{SQL}[bold red]x[/]"


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Settings]:
    """A lake whose texts are all hostile, as far as a message or a video can decide them."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "cliplake.yaml").write_text(
        f"catalog: {{options: {{warehouse: '{(folder / 'lake').as_uri()}'}}}}\n"
        f"local: {{state_dir: '{folder / 'state'}'}}\n"
    )
    settings = load_settings(folder / "cliplake.yaml")
    lake = Lake(settings)
    lake.ensure_tables()
    for table in (ENRICHED_CLIPS, FAILED_VIDEOS, REJECTED_MESSAGES):
        _write(lake, table)
    return folder, settings


def _write(lake: Lake, table: Table) -> None:
    values: Mapping[ColumnType, Any] = {
        ColumnType.STRING: HOSTILE,
        ColumnType.BYTES: HOSTILE.encode(),
        ColumnType.BOOLEAN: True,
        ColumnType.INT: 2**31 - 1,
        ColumnType.BIGINT: 2**63 - 1,
        ColumnType.DOUBLE: 1e308,
        ColumnType.TIMESTAMP: datetime(2026, 1, 31, tzinfo=UTC),
        ColumnType.STRING_MAP: [(HOSTILE, HOSTILE)],
        ColumnType.DOUBLE_MAP: [(HOSTILE, 0.5)],
    }
    row = {column.name: values[column.type] for column in table.columns}
    builder = lake.table(table.name).new_batch_write_builder()
    writer, commit = builder.new_write(), builder.new_commit()
    writer.write_arrow(pa.Table.from_pylist([row], schema=table.arrow_schema()))
    commit.commit(writer.prepare_commit())
    writer.close()
    commit.close()


def _harmless(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


TABLES = ("enriched_clips", "failed_videos", "rejected_messages")


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_no_stored_text_drives_the_terminal(
    table: str, form: tuple[str, ...], lake: tuple[Path, Settings]
) -> None:
    done = cliplake("sql", *form, f"select * from {table}", cwd=lake[0])
    assert done.returncode == 0, done.stderr
    assert _harmless(done.stdout)
    assert _harmless(done.stderr)
    assert "script" in done.stdout


def test_json_and_csv_hold_the_text_as_it_is(lake: tuple[Path, Settings]) -> None:
    query = "select caption, kafka_offset from enriched_clips"
    (row,) = json.loads(cliplake("sql", "--json", query, cwd=lake[0]).stdout)
    assert row == {"caption": HOSTILE, "kafka_offset": 2**63 - 1}
    text = cliplake("sql", "--csv", query, cwd=lake[0]).stdout
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert row["caption"] == HOSTILE


def test_csv_on_a_terminal_is_harmless(lake: tuple[Path, Settings]) -> None:
    ours, theirs = pty.openpty()
    query = "select caption from enriched_clips"
    try:
        subprocess.run(
            [sys.executable, "-m", "cliplake.main", "sql", "--csv", query],
            cwd=lake[0],
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
            stdout=theirs,
            stderr=subprocess.DEVNULL,
            timeout=120,
            check=True,
        )
        shown = os.read(ours, 100_000).decode().replace("\r\n", "\n")
    finally:
        os.close(ours)
        os.close(theirs)
    assert _harmless(shown)
    assert printable(BIDI) in shown


def test_stored_text_is_never_taken_for_sql(lake: tuple[Path, Settings]) -> None:
    quoted = HOSTILE.replace("'", "''")
    query = f"select count(*) as n from failed_videos where reason = '{quoted}'"
    found = cliplake("sql", "--json", query, cwd=lake[0])
    assert json.loads(found.stdout) == [{"n": 1}], found.stderr


def test_the_status_of_a_hostile_lake_is_harmless(lake: tuple[Path, Settings]) -> None:
    done = cliplake("status", cwd=lake[0])
    assert "failed_videos" in done.stdout, done.stderr
    assert _harmless(done.stdout)
    assert _harmless(done.stderr)


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_the_names_of_tried_files_are_harmless(form: tuple[str, ...], tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("process: [video_split_by_scene_mapper, video_motion_score_filter]\n")
    file = tmp_path / f"{CONTROLS}{BIDI}[bold]x.mp4"
    file.write_bytes(b"no video")
    done = cliplake("try", *form, "--recipe", "r.yaml", file.name, cwd=tmp_path)
    assert done.returncode == 1, done.stderr  # a file that could not be read
    assert _harmless(done.stdout)
    assert _harmless(done.stderr)
    assert "not_a_video" in done.stdout
