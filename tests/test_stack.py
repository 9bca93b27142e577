"""The real stack: what runs, where, and who may start another. What kills do is in test_ledger."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest

from deploy.local.errors import StackError
from deploy.local.flink_cluster import ask_rest
from deploy.local.stack import Stack
from deploy.local.state import StateFolder
from ingest.job_names import JOBS, flink_name
from tests.ledger.chaos import both_jobs_run

pytestmark = pytest.mark.e2e


def watch_until(stack: Stack, condition: Callable[[], bool], timeout: float = 240.0) -> None:
    """Have the stack watched until the condition holds; fails when it takes too long."""
    deadline = time.monotonic() + timeout

    def holds() -> bool:
        assert time.monotonic() < deadline, f"not so within {timeout} s"
        return condition()

    stack.watch(holds)


def test_the_web_page_shows_both_jobs_running(stack: Stack) -> None:
    assert stack.flink_web_url.startswith("http://127.0.0.1:")
    watch_until(stack, lambda: both_jobs_run(stack.settings))
    overview = ask_rest(stack.settings, "/jobs/overview")
    # Other tests of the session may have stopped jobs on the same cluster; the page keeps those.
    running = [job["name"] for job in overview["jobs"] if job["state"] == "RUNNING"]
    assert sorted(running) == sorted(flink_name(stack.settings, job) for job in JOBS)


def test_tasks_run_on_both_taskmanagers(stack: Stack) -> None:
    def free_slots() -> dict[str, int]:
        found = ask_rest(stack.settings, "/taskmanagers") or {"taskmanagers": []}
        return {manager["id"]: manager["freeSlots"] for manager in found["taskmanagers"]}

    # Of six slots one is taken by arrivals and two by the split. Nothing was killed before this
    # test: what is left alone by the death of the other TaskManager is not moved back.
    def tasks_are_placed() -> bool:
        return both_jobs_run(stack.settings) and sum(free_slots().values()) == 3

    watch_until(stack, tasks_are_placed)
    free = free_slots()
    assert sorted(free) == ["taskmanager", "taskmanager-2"]
    assert max(free.values()) < 3


def test_a_second_stack_on_the_same_folder_is_refused(stack: Stack) -> None:
    with pytest.raises(StackError, match=f"pid {os.getpid()}"):
        Stack(stack.settings).start()
    flink = {"jobmanager", "taskmanager", "taskmanager-2"}
    assert set(stack.pids()) == {"broker", *flink, "ray", "pool", "letters"}


def test_others_find_the_ports_of_a_running_stack(stack: Stack) -> None:
    found = StateFolder(stack.settings.state_dir).running_settings()
    assert found is not None
    assert found.model_dump() == stack.settings.model_dump()
