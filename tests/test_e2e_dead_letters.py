"""Dead letters on the real stack: what is replayed and succeeds ends as rows, and is resolved."""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest

from cliplake.accounts import read_accounts
from cliplake.query import LakeSql
from deploy.local.stack import Stack
from ingest.client import jobs, stop_jobs, submit_jobs
from ingest.producer import Producer
from processors.pool.lake import Lake
from processors.pool.lock import lock_file
from schemas.message import render_message
from schemas.replay import MessageName, Replay, new_replay_id
from schemas.settings import dump_settings
from schemas.tables import REJECTED_MESSAGES
from tests.cli import cliplake
from tests.media import write_video

pytestmark = pytest.mark.e2e

TIMEOUT_S = 240.0


class Letters:
    """The commands and the lake of the running stack."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.settings = stack.settings
        self.folder: Path = stack.settings.state_dir.parent
        self.sql = LakeSql(stack.settings)
        self._file = self.folder / "letters-settings.json"
        self._file.write_text(dump_settings(stack.settings))

    def run(self, *arguments: str) -> str:
        command = ("--settings-json", str(self._file), "dead-letters", *arguments)
        done = cliplake(*command, cwd=self.folder)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def rows(self, query: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.sql.query(query).to_pylist()
        return found

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < deadline, f"not so within {TIMEOUT_S} s"
            self.stack.watch(lambda: True)
            time.sleep(0.5)

    def until_balanced(self) -> None:
        self.until(lambda: read_accounts(self.settings, self.sql).balanced)

    def send(self, path: Path) -> str:
        with Producer(self.settings) as producer:
            return producer.send(path.as_uri(), video_id=uuid.uuid4().hex)

    def send_raw(self, payload: bytes) -> None:
        with Producer(self.settings) as producer:
            producer.send_raw(payload)


@pytest.fixture
def letters(stack: Stack) -> Letters:
    stack.watch(lambda: all(job.ready for job in jobs(stack.settings)))
    return Letters(stack)


def test_a_video_that_was_not_there_is_replayed_once_it_is(letters: Letters) -> None:
    file = letters.folder / f"{uuid.uuid4().hex}.mp4"
    key = letters.send(file)
    mine = f"FROM failed_videos WHERE video_key = '{key}'"
    letters.until(lambda: letters.rows(f"SELECT reason {mine}"))
    (letter,) = json.loads(letters.run("list", "--json", "--where", f"video_key = '{key}'"))
    assert (letter["table_name"], letter["id"], letter["reason"]) == (
        "failed_videos",
        key,
        "not_found",
    )
    assert file.as_uri() in letters.run("show", key)
    write_video(file, (60, 75))
    # Without the header it is a repeat, and changes nothing.
    (message,) = letters.rows(f"SELECT message FROM videos WHERE video_key = '{key}'")
    letters.send_raw(message["message"])
    letters.until(lambda: letters.rows(f"SELECT * FROM repeats WHERE video_key = '{key}'"))
    letters.until_balanced()
    assert letters.rows(f"SELECT resolved_at {mine}") == [{"resolved_at": None}]
    letters.run("replay", key, "--yes")
    letters.until(lambda: letters.rows(f"SELECT * {mine} AND resolved_at IS NOT NULL"))
    letters.until_balanced()
    videos = letters.rows(f"SELECT replay_id FROM videos WHERE video_key = '{key}'")
    assert [row["replay_id"] is None for row in videos].count(True) == 1
    assert len(videos) == 2
    ended = letters.rows(f"SELECT status FROM enriched_clips WHERE video_key = '{key}'")
    assert len(ended) == 2
    assert "failed" not in {row["status"] for row in ended}
    assert letters.run("list", "--json", "--where", f"video_key = '{key}'") == "[]\n"


def test_clips_that_failed_are_scored_by_a_replay(letters: Letters) -> None:
    file = letters.folder / f"{uuid.uuid4().hex}.mp4"
    write_video(file, (60, 75))
    away = file.with_suffix(".away")
    # The file goes away between the split and the pool, and so its clips fail.
    pid = int(lock_file(letters.settings).with_suffix(".pid").read_text())
    driver = psutil.Process(pid)
    driver.suspend()
    try:
        key = letters.send(file)
        letters.until(lambda: letters.rows(f"SELECT 1 FROM clips WHERE video_key = '{key}'"))
        shutil.move(file, away)
    finally:
        driver.resume()
    mine = f"FROM enriched_clips WHERE video_key = '{key}'"
    letters.until(lambda: len(letters.rows(f"SELECT 1 {mine}")) == 2)
    assert {row["status"] for row in letters.rows(f"SELECT status {mine}")} == {"failed"}
    shutil.move(away, file)
    where = f"table_name = 'failed_clips' AND video_key = '{key}'"
    letters.run("replay", "--where", where, "-y")
    resolved = f"SELECT 1 FROM failed_clips WHERE video_key = '{key}' AND resolved_at IS NOT NULL"
    letters.until(lambda: len(letters.rows(resolved)) == 2)
    letters.until_balanced()
    ended = [row["status"] for row in letters.rows(f"SELECT status {mine}")]
    assert len(ended) == 2
    assert "failed" not in ended
    assert letters.run("list", "--json", "--where", where) == "[]\n"


def test_a_message_that_is_valid_now_resolves_its_letter(letters: Letters) -> None:
    # What a former version rejected cannot be made with this one: its row is written by hand.
    settings, name = letters.settings, MessageName("older", 0, 1_000_000)
    payload = render_message(f"file:///nowhere/{uuid.uuid4().hex}.mp4")
    stop_jobs(settings)
    row = {
        "kafka_topic": name.topic,
        "kafka_partition": name.partition,
        "kafka_offset": name.offset,
        "reason": "unknown_schema_version",
        "payload": payload,
        "seq": 0,
    }
    builder = Lake(settings).table("rejected_messages").new_batch_write_builder()
    writer, commit = builder.new_write(), builder.new_commit()
    writer.write_arrow(pa.Table.from_pylist([row], schema=REJECTED_MESSAGES.arrow_schema()))
    commit.commit(writer.prepare_commit())
    submit_jobs(settings)
    with Producer(settings) as producer:
        producer.send_again(payload, Replay(new_replay_id(), name))
    found = "SELECT resolved_at, reason, payload FROM rejected_messages WHERE kafka_topic = 'older'"
    letters.until(lambda: letters.rows(f"{found} AND resolved_at IS NOT NULL"))
    (letter,) = letters.rows(found)
    assert (letter["reason"], letter["payload"]) == ("unknown_schema_version", payload)
    letters.until_balanced()


def test_a_message_that_is_rejected_again_stays_one_letter(letters: Letters) -> None:
    junk = f"junk {uuid.uuid4().hex}".encode()
    letters.send_raw(junk)
    text = junk.decode()
    query = (
        "SELECT kafka_topic, kafka_partition, kafka_offset, replay_of, resolved_at "
        f"FROM rejected_messages WHERE CAST(payload AS VARCHAR) = '{text}' ORDER BY kafka_offset"
    )
    letters.until(lambda: letters.rows(query))
    (row,) = letters.rows(query)
    name = MessageName(row["kafka_topic"], row["kafka_partition"], row["kafka_offset"])
    letters.run("replay", str(name), "--yes")
    letters.until(lambda: len(letters.rows(query)) == 2)
    first, second = letters.rows(query)
    assert (first["resolved_at"], second["resolved_at"]) == (None, None)
    assert second["replay_of"] == str(name)
    assert len(json.loads(letters.run("list", "--json", "--reason", "not_json"))) >= 1
    again = MessageName(name.topic, second["kafka_partition"], second["kafka_offset"])
    listed = {x["id"] for x in json.loads(letters.run("list", "--json"))}
    assert str(name) in listed
    assert str(again) not in listed
    # A valid message that says it is the replay of other bytes resolves nothing.
    forged = render_message((letters.folder / "nowhere.mp4").as_uri(), video_id=text)
    with Producer(letters.settings) as producer:
        producer.send_again(forged, Replay(new_replay_id(), name))
    letters.until(lambda: letters.rows(f"SELECT 1 FROM videos WHERE video_id = '{text}'"))
    letters.until_balanced()
    assert [row["resolved_at"] for row in letters.rows(query)] == [None, None]
