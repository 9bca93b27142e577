"""What dies or stands still in a round of chaos."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from typing import TypeVar

import psutil

from deploy.local.flink_cluster import ask_rest, taskmanagers
from deploy.local.pool_driver import pool_driver
from deploy.local.state import SETTINGS
from ingest.client import jobs
from processors.failpoints import POINTS
from processors.pool.errors import AlreadyRunning
from schemas.settings import Settings
from tests.ledger.chaos import Chaos, Fault, both_jobs_run

T = TypeVar("T")


def kill_part(part: str) -> Fault:
    """SIGKILL to the part's main process."""
    return lambda chaos: os.kill(chaos.pid(part), signal.SIGKILL)


def kill_one_of(part: str, *words: str) -> Fault:
    """SIGKILL to one of a part's further processes, once there is one."""
    return lambda chaos: _one(chaos, lambda: chaos.processes(part, *words)).kill()


def kill_python_worker(chaos: Chaos) -> None:
    """SIGKILL to a Python worker of any TaskManager."""
    _one(chaos, lambda: [w for some in _python_workers(chaos).values() for w in some]).kill()


def kill_taskmanager(chaos: Chaos) -> None:
    """SIGKILL to a TaskManager that has work: one that was started anew has none at first."""
    os.kill(chaos.pid(_busy_taskmanager(chaos)), signal.SIGKILL)


def _busy_taskmanager(chaos: Chaos) -> str:
    return _one(chaos, lambda: [name for name, some in _python_workers(chaos).items() if some])


def _python_workers(chaos: Chaos) -> dict[str, list[psutil.Process]]:
    """Those of each TaskManager."""
    names = taskmanagers(chaos.settings)
    return {name: chaos.processes(name, "pyflink") for name in names}


def _one(chaos: Chaos, candidates: Callable[[], list[T]]) -> T:
    """One of what there is, once there is one."""
    found: list[T] = []

    def there_is_one() -> bool:
        found[:] = candidates()
        return bool(found)

    chaos.watch(there_is_one)
    return chaos.rng.choice(found)


def kill_client(chaos: Chaos) -> None:
    """SIGKILL to Flink's client while it hands the jobs to a JobManager that is new."""
    kill_part("jobmanager")(chaos)
    kill_one_of("submit")(chaos)


def kill_at_checkpoint(when: str) -> Fault:
    """SIGKILL to a TaskManager while a checkpoint of the split job is under way, or just done."""

    def inject(chaos: Chaos) -> None:
        chaos.watch(lambda: both_jobs_run(chaos.settings))
        pid = chaos.pid(_busy_taskmanager(chaos))
        job = next(j.job_id for j in jobs(chaos.settings) if j.name.endswith("split"))
        seen = _checkpoints(chaos.settings, job)[1]
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            under_way, completed = _checkpoints(chaos.settings, job)
            if (when == "before" and under_way) or (when == "after" and completed > seen):
                break
            time.sleep(0.01)
        os.kill(pid, signal.SIGKILL)

    return inject


def _checkpoints(settings: Settings, job: str) -> tuple[int, int]:
    counts = (ask_rest(settings, f"/jobs/{job}/checkpoints") or {}).get("counts", {})
    return counts.get("in_progress", 0), counts.get("completed", 0)


def freeze_driver(seconds: float) -> Fault:
    """SIGSTOP to the pool's driver for a while; a second one that starts meanwhile is refused."""

    def inject(chaos: Chaos) -> None:
        pid = chaos.pid("pool")
        os.kill(pid, signal.SIGSTOP)
        try:
            until = time.monotonic() + seconds
            code = _second_driver(chaos.settings)
            if code != AlreadyRunning.exit_code:
                raise AssertionError(f"a second driver ended with {code}")
            chaos.watch(lambda: time.monotonic() > until, seconds + 60)
        finally:
            os.kill(pid, signal.SIGCONT)

    return inject


def _second_driver(settings: Settings) -> int:
    part = pool_driver(settings, settings.state_dir / SETTINGS)
    command = subprocess.run(
        part.command, env={**os.environ, **part.environment}, cwd=part.cwd, timeout=90, check=False
    )
    return command.returncode


def terminate_driver(chaos: Chaos) -> None:
    """SIGTERM to the pool's driver under load: it drains and ends within 30 s, as it should."""
    told = len(chaos.told)
    os.kill(chaos.pid("pool"), signal.SIGTERM)
    chaos.watch(lambda: "pool: ended (exit code 0)" in " ".join(chaos.told[told:]), 30)


STORM = tuple(point for point in POINTS if point != "scratch.write")
"""All points at which state changes hands; that one is for a scratch folder that fills up."""
KILLS: dict[str, Fault] = {
    "kill the driver": kill_part("pool"),
    "kill the publisher of dead letters": kill_part("letters"),
    "kill Ray": kill_part("ray"),
    "kill a Ray actor": kill_one_of("ray", "ray::EnrichActor"),
    "kill a decoding child of an actor": kill_one_of("ray", "processors.media"),
    "kill the broker": kill_part("broker"),
    "kill the JobManager": kill_part("jobmanager"),
    "kill the JobManager, then the Flink client": kill_client,
    "kill a TaskManager": kill_taskmanager,
    "kill a Python worker of Flink": kill_python_worker,
    "kill before a checkpoint": kill_at_checkpoint("before"),
    "kill after a checkpoint": kill_at_checkpoint("after"),
    "terminate the driver": terminate_driver,
}
OF_CHECKPOINTS = tuple(name for name in KILLS if name.endswith("a checkpoint"))
"""Failpoints of Flink's own; they are met as often as ours."""
IN_SERIES = tuple(name for name in KILLS if name != "terminate the driver")
"""What may strike at any time. A driver ends with 0 on SIGTERM unless what it needs is gone too."""
