"""The real stack: whatever part of it is killed, it comes back and every row is there once."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cliplake.accounts import read_accounts
from deploy.local.errors import StackError
from deploy.local.flink_cluster import ask_rest
from deploy.local.marked import find
from deploy.local.stack import Stack
from deploy.local.state import StateFolder
from ingest.client import jobs
from ingest.job_names import JOBS, flink_name
from ingest.producer import Producer
from processors.pool.lake import Lake
from schemas.problems import ConfigError
from tests.media import cut_frames, write_video

pytestmark = pytest.mark.e2e

FPS = 25
SHOTS = (60, 55, 65)
"""Frames a shot: all of them pass the duration filter."""


def watch_until(stack: Stack, condition: Callable[[], bool], timeout: float = 240.0) -> None:
    """Have the stack watched until the condition holds; fails when it takes too long."""
    deadline = time.monotonic() + timeout

    def holds() -> bool:
        assert time.monotonic() < deadline, f"not so within {timeout} s"
        return condition()

    stack.watch(holds)


def is_settled(stack: Stack) -> bool:
    accounts = read_accounts(stack.settings)
    assert accounts.problems == ()
    return accounts.balanced


def both_jobs_run(stack: Stack) -> bool:
    try:
        return all(job.ready for job in jobs(stack.settings))
    except ConfigError:  # the JobManager has not set the job up yet
        return False


def send_video(stack: Stack, path: Path) -> str:
    with Producer(stack.settings) as producer:
        key = producer.send(write_video(path, SHOTS).as_uri())
        producer.flush()
    return key


def clips_of(stack: Stack, video_key: str) -> list[tuple[int, int]]:
    """(first frame, frame after the last) of every clip in ``clips``, each with its one verdict."""
    lake = Lake(stack.settings)
    rows = lake.read("clips", ["clip_id", "video_key", "start_s", "end_s"]).to_pylist()
    ours = [row for row in rows if row["video_key"] == video_key]
    judged = lake.read("enriched_clips", ["clip_id", "status"]).to_pylist()
    for row in ours:
        verdicts = [verdict for verdict in judged if verdict["clip_id"] == row["clip_id"]]
        assert len(verdicts) == 1
        assert verdicts[0]["status"] != "failed"
    return sorted((round(row["start_s"] * FPS), round(row["end_s"] * FPS)) for row in ours)


def test_the_web_page_shows_both_jobs_running(stack: Stack) -> None:
    assert stack.flink_web_url.startswith("http://127.0.0.1:")
    watch_until(stack, lambda: both_jobs_run(stack))
    overview = ask_rest(stack.settings, "/jobs/overview")
    # Other tests of the session may have stopped jobs on the same cluster; the page keeps those.
    running = [job["name"] for job in overview["jobs"] if job["state"] == "RUNNING"]
    assert sorted(running) == sorted(flink_name(stack.settings, job) for job in JOBS)


def test_tasks_run_on_both_taskmanagers(stack: Stack) -> None:
    watch_until(stack, lambda: both_jobs_run(stack))
    found = ask_rest(stack.settings, "/taskmanagers")["taskmanagers"]
    assert sorted(manager["id"] for manager in found) == ["taskmanager", "taskmanager-2"]
    # Four slots are taken, two by each job; neither has them all.
    assert all(manager["freeSlots"] < manager["slotsNumber"] for manager in found)


def test_a_second_stack_on_the_same_folder_is_refused(stack: Stack) -> None:
    with pytest.raises(StackError, match=f"pid {os.getpid()}"):
        Stack(stack.settings).start()
    flink = {"jobmanager", "taskmanager", "taskmanager-2"}
    assert set(stack.pids()) == {"broker", *flink, "ray", "pool"}


def test_others_find_the_ports_of_a_running_stack(stack: Stack) -> None:
    found = StateFolder(stack.settings.state_dir).running_settings()
    assert found is not None
    assert found.model_dump() == stack.settings.model_dump()


@pytest.mark.parametrize("part", ["pool", "taskmanager", "broker", "jobmanager", "ray"])
def test_a_killed_part_comes_back_and_nothing_is_lost_or_doubled(stack: Stack, part: str) -> None:
    folder = stack.settings.state_dir.parent
    before = send_video(stack, folder / f"before-{part}.mp4")
    # In the middle of it: seen by the first job, and most likely not through the pool yet.
    lake = Lake(stack.settings)
    watch_until(
        stack, lambda: before in lake.read("videos", ["video_key"])["video_key"].to_pylist()
    )
    mark = StateFolder(stack.settings.state_dir).mark()
    workers = {process.pid for process in find(mark.of_part(part))}
    pid = stack.pids()[part]
    assert pid in workers
    os.kill(pid, signal.SIGKILL)
    watch_until(stack, lambda: stack.pids().get(part) not in (None, pid) and stack.is_serving())
    assert not workers & {process.pid for process in find(mark)}
    watch_until(stack, lambda: both_jobs_run(stack))
    after = send_video(stack, folder / f"after-{part}.mp4")
    watch_until(stack, lambda: is_settled(stack))
    assert clips_of(stack, before) == cut_frames(SHOTS)
    assert clips_of(stack, after) == cut_frames(SHOTS)
