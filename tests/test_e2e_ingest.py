"""The two jobs on the real stack: every record and video is accounted for, whatever stops them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from deploy.local.stack import Stack
from ingest.client import jobs, stop_jobs, submit_jobs
from ingest.job_names import flink_name
from ingest.producer import Producer
from ingest.recovery import job_folder, newest_checkpoint
from ingest.rest import FlinkRest
from ingest.topic import topic_offsets
from processors.pool.lake import Lake
from schemas.problems import ConfigError
from schemas.settings import Settings, dump_settings
from tests.media import write_video

pytestmark = pytest.mark.e2e

SHOTS = (60, 55)
TIMEOUT_S = 240.0


def until(condition: Callable[[], bool]) -> None:
    """Return once the condition holds; the stack is left alone meanwhile."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"not so within {TIMEOUT_S} s"
        time.sleep(0.3)


def rows(settings: Settings, table: str, columns: list[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = Lake(settings).read(table, columns).to_pylist()
    return found


def keys(settings: Settings, table: str, wanted: set[str]) -> list[str]:
    """Keys of those rows of a table that are about the wanted videos, repeats and all."""
    found = [row["video_key"] for row in rows(settings, table, ["video_key"])]
    return sorted(key for key in found if key in wanted)


def is_all_recorded(settings: Settings) -> bool:
    """Whether every record of the topic is a row of one of the three tables."""
    topic = settings.kafka.topic
    received = sum(ends.end - ends.begin for ends in topic_offsets(settings).values())
    rejected = [row["kafka_topic"] for row in rows(settings, "rejected_messages", ["kafka_topic"])]
    references = [
        row["record_index"]
        for table in ("videos", "repeats")
        for row in rows(settings, table, ["record_index"])
    ]
    # A record may name several objects; the first of them stands for it.
    return received == references.count(0) + rejected.count(topic)


def is_split(settings: Settings, wanted: set[str]) -> bool:
    done = {*keys(settings, "clips", wanted), *keys(settings, "failed_videos", wanted)}
    return done == wanted


def new_id() -> str:
    return uuid.uuid4().hex


def test_junk_and_repeats_are_counted_and_stop_nothing(stack: Stack) -> None:
    settings = stack.settings
    stack.watch(lambda: all(job.ready for job in jobs(settings)))
    before = len(rows(settings, "rejected_messages", ["reason"]))
    junk = [b"junk", b"\xff\xfe", b"[1]", b"{}", None, b'{"schema_version": 1, "uri": "ftp://a/b"}']
    sent: dict[str, tuple[str, str]] = {}
    with Producer(settings) as producer:
        for number in range(300):
            uri, video_id = f"file:///nowhere/{number}.mp4", new_id()
            sent[producer.send(uri, video_id=video_id)] = (uri, video_id)
            if number % 3 == 0:
                producer.send(uri, video_id=video_id)
            if number % 5 == 0:
                producer.send_raw(junk[number // 5 % len(junk)])
    until(lambda: is_all_recorded(settings))
    assert keys(settings, "videos", set(sent)) == sorted(sent)
    repeated = [key for number, key in enumerate(sent) if number % 3 == 0]
    assert keys(settings, "repeats", set(sent)) == sorted(repeated)
    rejected = rows(settings, "rejected_messages", ["reason", "payload"])
    assert len(rejected) == before + 60
    assert {row["reason"] for row in rejected} >= {
        "not_json",
        "not_utf8",
        "not_an_object",
        "unknown_schema_version",
        "empty_message",
        "invalid_uri",
    }
    assert {b"junk", b"\xff\xfe", None} <= {row["payload"] for row in rejected}
    until(lambda: is_split(settings, set(sent)))


def test_an_object_stores_event_is_a_video_an_object(stack: Stack) -> None:
    settings = stack.settings
    bucket = new_id()
    record = {
        "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": bucket}, "object": {"key": "a+b.mp4", "eTag": "e"}},
    }
    with Producer(settings) as producer:
        producer.send_raw(json.dumps({"Records": [record, record]}).encode())

    def found(table: str) -> list[dict[str, Any]]:
        columns = ["video_id", "record_index"]
        return [row for row in rows(settings, table, columns) if row["video_id"] == video_id]

    until(lambda: is_all_recorded(settings))
    videos = rows(settings, "videos", ["video_id", "uri"])
    (video_id,) = [v["video_id"] for v in videos if v["uri"] == f"s3://{bucket}/a%20b.mp4"]
    assert [row["record_index"] for row in found("videos")] == [0]
    until(lambda: [row["record_index"] for row in found("repeats")] == [1])


def test_stopped_jobs_go_on_from_their_newest_checkpoint(stack: Stack) -> None:
    settings = stack.settings
    uri = write_video(settings.state_dir.parent / f"{new_id()}.mp4", SHOTS).as_uri()
    with Producer(settings) as producer:
        first = producer.send(uri, video_id=new_id())
    stop_jobs(settings)
    assert not any(job.alive for job in jobs(settings))
    with Producer(settings) as producer:
        second = producer.send(uri, video_id=new_id())
    ids = submit_jobs(settings)
    # Submitting what runs finds it.
    assert submit_jobs(settings) == ids
    wanted = {first, second}
    until(lambda: is_split(settings, wanted))
    assert keys(settings, "videos", wanted) == sorted(wanted)
    assert len(keys(settings, "clips", wanted)) == len(SHOTS) * 2


def test_arrivals_go_on_with_more_tasks_and_fewer(stack: Stack) -> None:
    settings = stack.settings
    wanted: list[str] = []
    for tasks in (2, 1):
        stop_jobs(settings)
        flink = settings.flink.model_copy(update={"arrivals_parallelism": tasks})
        submit_jobs(settings.model_copy(update={"flink": flink}))
        with Producer(settings) as producer:
            # What was counted by other tasks is still known: only the last is not a repeat.
            uris = [*wanted, f"file:///nowhere/{new_id()}.mp4"]
            sent = [producer.send(uri, video_id=uri) for uri in uris]
        wanted = uris
        until(lambda: is_all_recorded(settings))
        assert keys(settings, "videos", set(sent)) == sorted(sent)
        assert keys(settings, "repeats", set(sent)) == sorted(sent[:-1])


def test_a_client_that_outlives_its_parent_and_another_one_submit_each_job_once(
    stack: Stack, tmp_path: Path
) -> None:
    settings = stack.settings
    stop_jobs(settings)
    file = tmp_path / "settings.json"
    file.write_text(dump_settings(settings), encoding="utf-8")
    with subprocess.Popen([sys.executable, "-m", "deploy.local.submit", str(file)]) as parent:
        children: list[psutil.Process] = []
        until(lambda: bool(children.extend(psutil.Process(parent.pid).children()) or children))
        parent.kill()
    with ThreadPoolExecutor() as executor:
        submissions = [executor.submit(submit_jobs, settings) for _ in range(2)]
    first, second = [submission.result() for submission in submissions]
    assert first == second
    rest = FlinkRest(settings)
    for job, job_id in first.items():
        # It raises if there are several.
        assert rest.running(flink_name(settings, job)) == job_id


def test_new_state_loses_and_doubles_nothing(stack: Stack) -> None:
    settings = stack.settings
    with Producer(settings) as producer:
        old = {producer.send(f"file:///nowhere/{new_id()}.mp4") for _ in range(20)}
    until(lambda: is_split(settings, old))
    stop_jobs(settings)
    for job in ("arrivals", "split"):
        shutil.rmtree(job_folder(settings, job))
    with pytest.raises(ConfigError, match="--new-state"):
        submit_jobs(settings)
    uris = [f"file:///nowhere/{new_id()}.mp4" for _ in range(20)]
    with Producer(settings) as producer:
        new = {producer.send(uri) for uri in uris}
    submit_jobs(settings, new_state=True, read=Lake(settings).read)
    with Producer(settings) as producer:
        repeated = producer.send(uris[0])
    until(lambda: is_split(settings, old | new) and is_all_recorded(settings))
    assert keys(settings, "videos", old | new) == sorted(old | new)
    assert keys(settings, "repeats", old | new) == [repeated]
    folders = [job_folder(settings, job) / "1" for job in ("arrivals", "split")]
    until(lambda: all(newest_checkpoint(folder) for folder in folders))
