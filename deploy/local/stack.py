"""The whole service on one machine: broker, Flink with both jobs, Ray and the pool's driver.

Used by ``cliplake up``, by the demo and by the tests. Each part is started here or, with
``local.start_*: false``, expected at the address in the settings.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from deploy.local import flink_cluster, ray_head
from deploy.local.broker import broker
from deploy.local.errors import StackError
from deploy.local.flink_cluster import JOBMANAGER, flink_parts, taskmanagers
from deploy.local.jobs import JobKeeper
from deploy.local.letter_publisher import PUBLISHER, letter_publisher
from deploy.local.marked import Mark, sweep
from deploy.local.parts import Part
from deploy.local.pool_driver import DRIVER, pool_driver
from deploy.local.resolve import Resolved, resolve
from deploy.local.state import StateFolder
from deploy.local.supervisor import Supervisor
from schemas.settings import CHECKOUT, Settings

ROUND_S = 0.2
STOP_JOBS_S = 60.0


class Stack:
    """Start it with `start` or ``with``; then call `watch`, which restarts what dies.

    One state folder has one stack; another folder with other ports can run beside it. The
    processes end with this one, also when it is killed.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        log: Callable[[str], None] = print,
        new_state: bool = False,
    ) -> None:
        """``new_state``: the jobs start without their kept checkpoints (``ingest.client``)."""
        self.settings = settings
        """After `start`: with the real ports and addresses."""
        self._new_state = new_state
        self._log = log
        self._state = StateFolder(settings.state_dir)
        self._supervisor: Supervisor | None = None
        self._executor: ThreadPoolExecutor | None = None
        self._jobs: JobKeeper | None = None
        self._mark: Mark | None = None
        self._after_us: subprocess.Popen[bytes] | None = None
        self._old_sigterm: object = None

    @property
    def flink_web_url(self) -> str:
        """Address of Flink's web page."""
        return f"http://{self.settings.flink.rest_address}:{self.settings.flink.rest_port}"

    def pids(self) -> dict[str, int]:
        """Process ids of the parts that run now: broker, jobmanager, taskmanager, ray, pool,
        letters."""
        return self._supervisor.pids() if self._supervisor else {}

    def is_serving(self) -> bool:
        """Whether every process of the stack runs and serves; the jobs are another question."""
        return self._supervisor is not None and self._supervisor.is_ready()

    def start(self) -> None:
        """Start everything and return when it serves.

        StackError if a port is taken, another stack owns the state folder, or a part does not
        come up; nothing of ours runs then. Until `stop`, SIGTERM acts as Ctrl-C does.
        """
        if self._supervisor is not None:
            raise StackError("this stack is started already")
        owner = self._state.own()
        try:
            self._mark = self._state.mark(owner.run)
            left = sweep(self._state.mark())
            if left:
                self._log(f"ended {len(left)} processes left by an earlier run")
            self._take_sigterm()
            resolved = resolve(self.settings)
            self.settings = resolved.settings
            settings_file = self._state.publish(resolved.settings, resolved.ports)
            self._sweep_after_us(self._mark)
            self._executor = ThreadPoolExecutor(max_workers=3, thread_name_prefix="stack")
            self._supervisor = Supervisor(self._mark, self.settings.local, log=self._log)
            self._jobs = JobKeeper(
                self.settings,
                settings_file,
                self._mark,
                self._executor,
                new_state=self._new_state,
                log=self._log,
            )
            on_tables = _parts_on_tables(self.settings, settings_file)
            self._come_up(self._supervisor, self._jobs, self._executor, resolved, on_tables)
        except BaseException:
            self.stop()
            raise

    def _come_up(
        self,
        supervisor: Supervisor,
        jobs: JobKeeper,
        executor: ThreadPoolExecutor,
        resolved: Resolved,
        on_tables: list[Part],
    ) -> None:
        tables: Future[object] = executor.submit(_ensure_tables, self.settings)
        for part in _parts(resolved, self._state.mark().stack):
            supervisor.add(part)
        topic: Future[object] | None = None
        while on_tables or not (jobs.submitted and supervisor.is_ready(DRIVER, PUBLISHER)):
            supervisor.tick()
            if topic is None and supervisor.is_ready("broker"):
                topic = executor.submit(_ensure_topic, self.settings)
            tables_done = _is_done(tables)
            while tables_done and on_tables:
                supervisor.add(on_tables.pop())
            if tables_done and _is_done(topic) and supervisor.is_ready(JOBMANAGER):
                jobs.tick()
            time.sleep(ROUND_S)
        self._log(f"both jobs run: {self.flink_web_url}")

    def watch(self, until: Callable[[], bool]) -> None:
        """Restart what dies, until ``until()`` is true; StackError when something is given up.

        ``until`` is asked about twice a second, in this thread.
        """
        supervisor, jobs = self._supervisor, self._jobs
        if supervisor is None or jobs is None:
            raise StackError("this stack is not started")
        ask_at = 0.0
        while True:
            if time.monotonic() >= ask_at:
                if until():
                    return
                ask_at = time.monotonic() + 0.5
            supervisor.tick()
            if supervisor.is_ready("broker", JOBMANAGER, *taskmanagers(self.settings)):
                jobs.tick()
            time.sleep(ROUND_S)

    def stop(self) -> None:
        """Drain the pool, cancel the jobs keeping their checkpoints, and end every process.

        Ctrl-C meanwhile ends them at once. The lake, the topic's data and the checkpoints stay.
        """
        if self._mark is None:
            return
        grace_s = 3.0
        try:
            self._end_in_order()
        except KeyboardInterrupt:
            self._log("killing what is left")
            grace_s = 0.0
        finally:
            if self._executor is not None:
                self._executor.shutdown(wait=False, cancel_futures=True)
            sweep(self._mark, grace_s=grace_s)
            if self._after_us is not None:
                self._after_us.kill()
                self._after_us.wait()
            ray_head.remove_temporary(self.settings, self._mark.stack)
            flink_cluster.remove_temporary(self.settings)
            self._give_sigterm_back()
            self._state.release()
            self._supervisor = self._executor = self._jobs = self._mark = self._after_us = None

    def _end_in_order(self) -> None:
        supervisor, executor, jobs = self._supervisor, self._executor, self._jobs
        if supervisor is None or executor is None:
            return
        stopping: Future[object] | None = None
        if jobs is not None:
            jobs.stop()
        if jobs is not None and jobs.submitted and supervisor.is_ready(JOBMANAGER):
            stopping = executor.submit(_stop_jobs, self.settings)
        supervisor.stop(DRIVER)
        if stopping is not None:
            try:
                stopping.result(timeout=STOP_JOBS_S)
            except Exception as error:
                self._log(f"the jobs were not cancelled in order ({error}); checkpoints are kept")
        # Before the broker, so that what it has in hand gets there.
        supervisor.stop(PUBLISHER)
        supervisor.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _sweep_after_us(self, mark: Mark) -> None:
        """Start what ends our processes' orphans should this process be killed."""
        command = [sys.executable, "-m", "deploy.local.marked", mark.stack, mark.run]
        self._after_us = subprocess.Popen(
            command, stdin=subprocess.PIPE, cwd=CHECKOUT, start_new_session=True
        )

    def _take_sigterm(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._old_sigterm = signal.signal(signal.SIGTERM, _interrupt)

    def _give_sigterm_back(self) -> None:
        if self._old_sigterm is not None:
            signal.signal(signal.SIGTERM, self._old_sigterm)  # type: ignore[arg-type]
            self._old_sigterm = None


def _parts(resolved: Resolved, stack: str) -> list[Part]:
    settings = resolved.settings
    parts: list[Part] = []
    if settings.local.start_kafka:
        parts.append(broker(settings))
    if settings.local.start_flink:
        parts += flink_parts(settings)
    if settings.local.start_ray:
        parts.append(ray_head.ray_head(settings, stack, resolved.ray_spare_ports))
    return parts


def _parts_on_tables(settings: Settings, settings_file: Path) -> list[Part]:
    """Those that start once the lake's tables are there."""
    parts: list[Part] = []
    if settings.kafka.dead_letter_topic:
        parts.append(letter_publisher(settings, settings_file))
    if settings.local.start_pool:
        parts.append(pool_driver(settings, settings_file))
    return parts


def _is_done(future: Future[object] | None) -> bool:
    """Whether it ended well; raises what it raised."""
    if future is None or not future.done():
        return False
    future.result()
    return True


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


# Imported where they are used: each of them takes a second, while the JVMs start.


def _ensure_tables(settings: Settings) -> None:
    from processors.pool.consumer import heal_consumers
    from processors.pool.lake import Lake
    from processors.pool.letter_positions import stop_publishing
    from schemas.tables import TABLES

    lake = Lake(settings)
    lake.ensure_tables()
    heal_consumers(lake, [table.name for table in TABLES])
    if not settings.kafka.dead_letter_topic:
        stop_publishing(settings, lake)


def _ensure_topic(settings: Settings) -> None:
    from ingest.topic import create_topic

    create_topic(settings)


def _stop_jobs(settings: Settings) -> None:
    from ingest.client import stop_jobs

    stop_jobs(settings)
