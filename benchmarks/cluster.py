"""A broker and a Flink cluster on free ports, without jobs: for whoever starts one alone."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil

from deploy.local.broker import broker
from deploy.local.flink_cluster import flink_parts, remove_temporary
from deploy.local.marked import Mark, find, sweep
from deploy.local.resolve import resolve
from deploy.local.state import StateFolder
from deploy.local.supervisor import Supervisor
from ingest.topic import create_topic
from processors.pool.lake import Lake
from schemas.settings import Settings
from tests.free_ports import free_port_settings


def benchmark_settings(folder: Path, **sections: dict[str, object]) -> Settings:
    """Settings of a stack in ``folder`` on free ports; ``sections`` win."""
    # What was measured over a restart is worth nothing.
    return free_port_settings(folder, {"local": {"max_restarts": 0}}, sections)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class FlinkCluster:
    """What runs: its settings with the real ports, and the CPU time of its processes."""

    def __init__(self, settings: Settings, mark: Mark) -> None:
        self.settings = settings
        self._mark = mark

    def cpu_seconds(self, part: str) -> dict[str, float]:
        """CPU seconds so far of a part's living processes, by kind: ``java``, ``python``."""
        found: dict[str, float] = {}
        for process in find(self._mark.of_part(part)):
            try:
                times, name = process.cpu_times(), process.name()
            except psutil.Error:
                continue  # it ended meanwhile
            kind = "java" if name.startswith("java") else "python"
            found[kind] = found.get(kind, 0.0) + times.user + times.system
        return found


@contextmanager
def flink_cluster(settings: Settings) -> Iterator[FlinkCluster]:
    """Broker, JobManager and TaskManagers, with the lake's tables and the topic made.

    With ``local.start_kafka: false`` the broker is there already.
    """
    state = StateFolder(settings.state_dir)
    owner = state.own()
    mark = state.mark(owner.run)
    try:
        resolved = resolve(settings)
        supervisor = Supervisor(mark, resolved.settings.local, log=_say)
        if settings.local.start_kafka:
            supervisor.add(broker(resolved.settings))
        for part in flink_parts(resolved.settings):
            supervisor.add(part)
        with ThreadPoolExecutor(1) as executor:
            tables = executor.submit(lambda: Lake(resolved.settings).ensure_tables())
            while not supervisor.is_ready():
                supervisor.tick()
                time.sleep(0.2)
            tables.result()
        create_topic(resolved.settings)
        yield FlinkCluster(resolved.settings, mark)
    finally:
        sweep(mark)
        remove_temporary(settings)
        state.release()
