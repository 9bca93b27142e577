"""Processes of a stack are found and ended by their mark, whoever their parent is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from deploy.local.marked import Mark, find, sweep
from deploy.local.processes import ChildProcess
from schemas.settings import CHECKOUT
from tests.conftest import wait_until

TREE = "sleep 300 & (sleep 300 & wait) & wait"
"""A shell with a child and a grandchild."""


@pytest.fixture
def mark() -> Iterator[Mark]:
    mark = Mark(stack=f"test-{uuid.uuid4().hex}", run="1")
    yield mark
    sweep(Mark(mark.stack), grace_s=0.0)


def start(script: str, mark: Mark, log: Path) -> ChildProcess:
    return ChildProcess(
        ["/bin/sh", "-c", script], environment=mark.environment(), log=log, cwd=log.parent
    )


def test_orphans_of_a_killed_process_are_ended(mark: Mark, tmp_path: Path) -> None:
    child = start(TREE, mark, tmp_path / "log")
    wait_until(lambda: len(find(mark)) == 4)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait(5.0)
    assert len(find(mark)) == 3
    assert len(sweep(mark)) == 3
    assert find(mark) == []


def test_a_process_that_ignores_sigterm_is_killed(mark: Mark, tmp_path: Path) -> None:
    trapped = tmp_path / "trapped"
    script = f"trap '' TERM; touch {trapped}; while true; do sleep 1; done"
    child = start(script, mark, tmp_path / "log")
    wait_until(trapped.exists)
    sweep(mark, grace_s=0.5)
    assert find(mark) == []
    assert child.exit_code() == -signal.SIGKILL


def test_only_what_carries_the_whole_mark_is_ended(mark: Mark, tmp_path: Path) -> None:
    one = start("exec sleep 300", mark.of_part("one"), tmp_path / "one")
    two = start("exec sleep 300", mark.of_part("two"), tmp_path / "two")
    other = Mark(mark.stack, run="2", part="one")
    three = start("exec sleep 300", other, tmp_path / "three")
    wait_until(lambda: len(find(Mark(mark.stack))) == 3)
    sweep(mark.of_part("one"))
    assert one.exit_code() is not None
    assert {process.pid for process in find(Mark(mark.stack))} == {two.pid, three.pid}


OWNER = """
import os, subprocess, sys, time
from pathlib import Path
from deploy.local.marked import Mark
from deploy.local.processes import ChildProcess
mark = Mark(sys.argv[1], "1")
if sys.argv[3] == "watched":
    command = [sys.executable, "-m", "deploy.local.marked", mark.stack, mark.run]
    after = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
tree = "sleep 300 & (sleep 300 & wait) & wait"
ChildProcess(["/bin/sh", "-c", tree], environment=mark.environment(),
             log=Path(sys.argv[2]), cwd=Path("/"))
time.sleep(300)
"""


def run_owner(mark: Mark, tmp_path: Path, how: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", OWNER, mark.stack, str(tmp_path / "log"), how]
    return subprocess.Popen(command, cwd=CHECKOUT)


def test_a_child_ends_with_the_process_that_started_it(mark: Mark, tmp_path: Path) -> None:
    owner = run_owner(mark, tmp_path, "alone")
    wait_until(lambda: len(find(mark)) == 4)
    top = min(find(mark), key=psutil.Process.create_time)
    owner.kill()
    owner.wait()
    wait_until(lambda: not top.is_running() or top.status() == psutil.STATUS_ZOMBIE)


def test_nothing_is_left_when_the_owner_is_killed(mark: Mark, tmp_path: Path) -> None:
    owner = run_owner(mark, tmp_path, "watched")
    wait_until(lambda: len(find(mark)) == 4)
    owner.kill()
    owner.wait()
    wait_until(lambda: find(mark) == [])
