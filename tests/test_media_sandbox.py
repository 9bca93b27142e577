"""The sandbox outlives what happens in it, and nothing of it outlives its owner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from processors.errors import MediaError
from processors.media.sandbox import Sandbox
from schemas.reasons import MediaReason
from schemas.settings import CHECKOUT, DecodeSettings
from tests import sandbox_tasks as tasks
from tests.conftest import wait_until

LONG = 60.0


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(DecodeSettings(memory_bytes=256 * 2**20)) as running:
        yield running


def _reason(sandbox: Sandbox, function: object, *args: object, deadline_s: float = LONG) -> str:
    with pytest.raises(MediaError) as caught:
        sandbox.run(function, *args, deadline_s=deadline_s)  # type: ignore[arg-type]
    return caught.value.reason


def _still_works(sandbox: Sandbox) -> bool:
    return sandbox.run(tasks.add, 1, 2, deadline_s=LONG) == 3


def test_the_child_stays_warm(sandbox: Sandbox) -> None:
    first = sandbox.run(tasks.process_id, deadline_s=LONG)
    assert first not in (0, os.getpid())
    assert sandbox.run(tasks.process_id, deadline_s=LONG) == first


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_a_crash_costs_the_task_and_names_the_signal(sandbox: Sandbox, number: int) -> None:
    with pytest.raises(MediaError, match=signal.Signals(number).name) as caught:
        sandbox.run(tasks.die, number, deadline_s=LONG)
    assert caught.value.reason is MediaReason.DECODER_CRASHED
    assert _still_works(sandbox)


def test_an_exit_is_a_crash(sandbox: Sandbox) -> None:
    assert _reason(sandbox, tasks.leave, 0) is MediaReason.DECODER_CRASHED
    assert _still_works(sandbox)


@pytest.mark.parametrize("task", [tasks.spin, tasks.sleep])
def test_the_deadline_ends_what_hangs(sandbox: Sandbox, task: object) -> None:
    pid = sandbox.run(tasks.process_id, deadline_s=LONG)
    args = () if task is tasks.spin else (LONG,)
    assert _reason(sandbox, task, *args, deadline_s=0.3) is MediaReason.DECODER_TIMEOUT
    assert not psutil.pid_exists(pid)
    assert _still_works(sandbox)


def test_memory_has_a_limit(sandbox: Sandbox) -> None:
    assert sandbox.run(tasks.allocate, 64 * 2**20, deadline_s=LONG) == 64 * 2**20
    assert _reason(sandbox, tasks.allocate, 2**30) is MediaReason.OUT_OF_MEMORY
    assert _still_works(sandbox)


def test_a_media_error_comes_back_as_it_was(sandbox: Sandbox) -> None:
    pid = sandbox.run(tasks.process_id, deadline_s=LONG)
    with pytest.raises(MediaError) as caught:
        sandbox.run(tasks.refuse, deadline_s=LONG, stage="split")
    error = caught.value
    assert (error.reason, error.error) == (MediaReason.TRUNCATED, "half of it is missing")
    assert error.stage == "probe"
    assert sandbox.run(tasks.process_id, deadline_s=LONG) == pid


def test_the_caller_names_the_stage_of_errors_that_have_none(sandbox: Sandbox) -> None:
    with pytest.raises(MediaError) as caught:
        sandbox.run(tasks.leave, 1, deadline_s=LONG, stage="split")
    assert caught.value.stage == "split"


@pytest.mark.parametrize("task", [tasks.fail, tasks.unpicklable])
def test_any_other_exception_is_a_stage_error_with_its_traceback(
    sandbox: Sandbox, task: object
) -> None:
    with pytest.raises(MediaError) as caught:
        sandbox.run(task, deadline_s=LONG)  # type: ignore[arg-type]
    assert caught.value.reason is MediaReason.STAGE_ERROR
    assert "Traceback" in "".join(caught.value.__notes__)
    assert _still_works(sandbox)


def test_arguments_that_cannot_be_pickled_harm_nothing(sandbox: Sandbox) -> None:
    with pytest.raises(TypeError):
        sandbox.run(tasks.add, threading.Lock(), 1, deadline_s=LONG)
    assert _still_works(sandbox)


def test_the_child_writes_no_file(sandbox: Sandbox, tmp_path: Path) -> None:
    target = tmp_path / "written"
    assert _reason(sandbox, tasks.write_file, str(target)) is MediaReason.STAGE_ERROR
    assert not target.exists() or target.stat().st_size == 0
    assert sandbox.run(tasks.ignores_interrupts, deadline_s=LONG)


def test_memory_cpu_files_and_cores_are_limited_for_good(sandbox: Sandbox) -> None:
    limits = sandbox.run(tasks.limits, deadline_s=5.0)
    # Soft and hard ones: what has taken over the decoder cannot raise them again.
    assert limits["CORE"] == (0, 0)
    assert limits["FSIZE"] == (0, 0)
    assert limits["NOFILE"] == (64, 64)
    soft, hard = limits["AS"]
    assert soft == hard
    assert 256 * 2**20 < soft < 8 * 2**30
    # CPU counts over the child's life, so the next task has to be able to have more.
    assert limits["CPU"][0] <= limits["used"][0] + 5 + 12


def test_open_files_have_a_limit(sandbox: Sandbox) -> None:
    sandbox.run(tasks.open_files, 40, deadline_s=LONG)
    assert _reason(sandbox, tasks.open_files, 70) is MediaReason.STAGE_ERROR
    assert _still_works(sandbox)


def test_cpu_that_is_used_up_ends_the_child_as_its_clock_would(sandbox: Sandbox) -> None:
    assert _reason(sandbox, tasks.burn, LONG) is MediaReason.DECODER_TIMEOUT
    assert _still_works(sandbox)


def test_the_child_sees_no_secret_of_its_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "CLIPLAKE_KEY_CAPTIONS", "CLIPLAKE__KAFKA__X")
    for name in secrets:
        monkeypatch.setenv(name, "canary")
    monkeypatch.setenv("CLIPLAKE_STACK", "mark")
    with Sandbox(DecodeSettings()) as sandbox:
        seen = sandbox.run(tasks.environment, deadline_s=LONG)
    assert "canary" not in seen.values()
    # By its mark it is found and ended, should its owner be killed.
    assert seen["CLIPLAKE_STACK"] == "mark"


def test_the_child_loads_what_decoding_needs_and_not_what_its_hosts_are(sandbox: Sandbox) -> None:
    heavy = ("av", "cv2", "numpy", "pydantic", "pypaimon", "pyarrow", "ray", "pyflink", "boto3")
    assert sandbox.run(tasks.loaded_modules, *heavy, deadline_s=LONG) == ["av", "cv2", "numpy"]


def test_threads_share_it_and_get_their_own_answers(sandbox: Sandbox) -> None:
    answers: dict[int, int] = {}

    def work(number: int) -> None:
        for _ in range(20):
            answers[number] = sandbox.run(tasks.add, number, 100, deadline_s=LONG)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: number + 100 for number in range(4)}


def test_the_child_outlives_the_thread_that_started_it(sandbox: Sandbox) -> None:
    pids: list[int] = []
    starter = threading.Thread(
        target=lambda: pids.append(sandbox.run(tasks.process_id, deadline_s=LONG))
    )
    starter.start()
    starter.join()
    assert sandbox.run(tasks.sleep, 0.5, deadline_s=LONG) is None
    assert sandbox.run(tasks.process_id, deadline_s=LONG) == pids[0]


def test_closing_ends_the_child_and_refuses_further_tasks() -> None:
    sandbox = Sandbox(DecodeSettings())
    pid = sandbox.run(tasks.process_id, deadline_s=LONG)
    sandbox.close()
    assert not psutil.pid_exists(pid)
    with pytest.raises(ValueError, match="closed"):
        sandbox.run(tasks.add, 1, 2, deadline_s=LONG)


def test_a_killed_owner_leaves_no_child_behind() -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert owner.stdout is not None
        child = psutil.Process(int(owner.stdout.readline()))
        assert child.is_running()
    finally:
        owner.kill()
        owner.wait()
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


_OWNER = """
from processors.media.sandbox import Sandbox
from schemas.settings import DecodeSettings
from tests import sandbox_tasks as tasks

sandbox = Sandbox(DecodeSettings())
print(sandbox.run(tasks.process_id, deadline_s=60), flush=True)
sandbox.run(tasks.spin, deadline_s=600)
"""


def test_deadlines_grow_with_the_video() -> None:
    sandbox = Sandbox(DecodeSettings(deadline_base_s=5, deadline_per_video_second_s=2))
    assert sandbox.deadline_for(10) == 25
    assert sandbox.deadline_for(-1) == 5


def test_functions_of_main_are_refused(sandbox: Sandbox) -> None:
    def function() -> None: ...

    function.__module__ = "__main__"
    with pytest.raises(ValueError, match="__main__"):
        sandbox.run(function, deadline_s=LONG)


def test_a_deadline_may_be_longer_than_a_timer_can_run(sandbox: Sandbox) -> None:
    assert sandbox.run(tasks.add, 1, 2, deadline_s=1e15) == 3
