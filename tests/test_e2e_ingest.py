"""The two jobs on the real stack: every record and video is accounted for, whatever stops them."""

from __future__ import annotations

import json
import os
import shutil
import signal
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

from deploy.local.flink_cluster import taskmanagers
from deploy.local.stack import Stack
from ingest.client import jobs, stop_jobs, submit_jobs
from ingest.job_names import flink_name
from ingest.producer import Producer
from ingest.recovery import job_folder, newest_checkpoint
from ingest.rest import FlinkRest, JobStatus
from ingest.topic import topic_offsets
from processors.failpoints import arm, hits
from processors.pool.lake import Lake
from schemas.problems import ConfigError
from schemas.settings import Settings, dump_settings
from tests.conftest import file_server
from tests.media import write_video
from tests.servers import Gate, serve

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


def written(settings: Settings, table: str, after: int) -> int:
    """Rows that were written to a table since a snapshot, each as often as it was."""
    lake = Lake(settings)
    manager = lake.table(table).snapshot_manager()
    numbers = range(after + 1, (lake.latest_snapshot_id(table) or 0) + 1)
    found = [manager.get_snapshot_by_id(number) for number in numbers]
    assert all(found), "a snapshot has expired"
    return sum(one.delta_record_count for one in found if one.commit_kind == "APPEND")


def split_status(settings: Settings) -> JobStatus:
    return FlinkRest(settings).status(flink_name(settings, "split"))


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


def test_a_video_that_hangs_holds_up_neither_others_nor_a_checkpoint(
    stack: Stack, tmp_path: Path
) -> None:
    settings = stack.settings
    folder = settings.state_dir.parent
    body = write_video(tmp_path / "v.mp4", SHOTS).read_bytes()
    gate = Gate()
    with serve({"/slow.mp4": gate.page(body), "/near.mp4": body}) as server:
        with Producer(settings) as producer:
            slow = producer.send(f"{server.url}/slow.mp4", video_id=new_id())
        until(lambda: gate.waiting == 1)
        before = split_status(settings).checkpoints_completed
        others = [f"{server.url}/near.mp4", write_video(folder / f"{new_id()}.mp4", SHOTS).as_uri()]
        with Producer(settings) as producer:
            sent = {producer.send(uri, video_id=new_id()) for uri in others}
        until(lambda: is_split(settings, sent))
        assert len(keys(settings, "clips", sent)) == len(SHOTS) * 2
        until(lambda: split_status(settings).checkpoints_completed > before + 1)
        assert gate.waiting == 1
        assert not is_split(settings, {slow})
        gate.open()
        until(lambda: is_split(settings, {slow}))
        until(lambda: keys(settings, "enriched_clips", sent | {slow}).count(slow) == len(SHOTS))


def test_what_is_being_fetched_when_the_job_is_killed_or_stopped_is_split_once(
    stack: Stack, tmp_path: Path
) -> None:
    settings = stack.settings
    shots = (60, 55, 60, 70)
    body = write_video(tmp_path / "v.mp4", shots).read_bytes()
    gate = Gate()
    uris = [f"/{number}.mp4" for number in range(3)]
    with serve({uri: gate.page(body) for uri in uris}) as server:
        snapshot = Lake(settings).latest_snapshot_id("clips") or 0
        with Producer(settings) as producer:
            sent = {producer.send(server.url + uri, video_id=new_id()) for uri in uris}
        until(lambda: len(server.requests) >= 3)
        seen = split_status(settings).checkpoints_completed
        until(lambda: split_status(settings).checkpoints_completed > seen + 1)
        for name in taskmanagers(settings):
            os.kill(stack.pids()[name], signal.SIGKILL)
        # Of a row that is in no checkpoint any more, nobody would fetch anything again.
        stack.watch(lambda: len(server.requests) >= 6)
        stack.watch(lambda: all(job.ready for job in jobs(settings)))
        seen = split_status(settings).checkpoints_completed
        until(lambda: split_status(settings).checkpoints_completed > seen)
        stop_jobs(settings)
        submit_jobs(settings)
        until(lambda: len(server.requests) >= 9)
        gate.open()
        until(lambda: is_split(settings, sent))
        until(lambda: len(keys(settings, "enriched_clips", sent)) == len(shots) * 3)
    assert len(keys(settings, "clips", sent)) == len(shots) * 3
    assert written(settings, "clips", snapshot) == len(shots) * 3
    assert keys(settings, "failed_videos", sent) == []


def test_a_video_of_which_some_segments_were_passed_on_goes_on_with_the_rest(
    stack: Stack,
) -> None:
    settings = stack.settings
    folder = settings.state_dir.parent
    shots = (60,) * 40
    uri = write_video(folder / f"{new_id()}.mp4", shots, size=(160, 96)).as_uri()
    snapshot = Lake(settings).latest_snapshot_id("clips") or 0
    points = folder / "failpoints"
    # A hundred segments, four in a call: checkpoints are taken between the first and the last.
    for nth in (25, 10):
        met = hits(points, "split.segment_scored")
        arm(points, "split.segment_scored", nth=nth)
        if nth == 25:
            with Producer(settings) as producer:
                key = producer.send(uri, video_id=new_id())
        stack.watch(lambda met=met: hits(points, "split.segment_scored") > met)
    stack.watch(lambda: is_split(settings, {key}))
    stack.watch(lambda: len(keys(settings, "enriched_clips", {key})) == len(shots))
    assert written(settings, "clips", snapshot) == len(shots)
    assert keys(settings, "failed_videos", {key}) == []


def test_a_store_that_is_out_starts_the_job_anew_until_it_is_back(stack: Stack) -> None:
    settings = stack.settings
    store = file_server(settings.state_dir.parent)
    away = store.with_name(f"{store.name}-away")
    away.mkdir()
    write_video(away / "v.mp4", SHOTS)
    snapshot = Lake(settings).latest_snapshot_id("clips") or 0
    restarts = split_status(settings).restarts
    with Producer(settings) as producer:
        waiting = {producer.send(f"{store.as_uri()}/v.mp4", video_id=new_id()) for _ in range(9)}
        near = write_video(settings.state_dir.parent / f"{new_id()}.mp4", SHOTS).as_uri()
        other = {producer.send(near, video_id=new_id())}
    until(lambda: split_status(settings).restarts > restarts)
    until(lambda: is_split(settings, other))
    assert keys(settings, "failed_videos", waiting) == []
    away.rename(store)
    until(lambda: is_split(settings, waiting))
    assert keys(settings, "failed_videos", waiting | other) == []
    assert written(settings, "clips", snapshot) == len(SHOTS) * 10


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
