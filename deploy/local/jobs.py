"""Keeps the two Flink jobs on the cluster: a JobManager that died comes back without them.

A submission starts from the newest checkpoint and leaves a job alone that is there already
(``ingest.client``). `JobKeeper.tick` never blocks.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from deploy.local.errors import StackError
from deploy.local.marked import Mark, sweep
from deploy.local.processes import ChildProcess, exit_words, last_lines
from deploy.local.submit import CANNOT
from deploy.local.supervisor import Restarts
from ingest.client import JobStatus, jobs
from schemas.settings import CHECKOUT, Settings

CHECK_EVERY_S = 2.0
LOST_AFTER = 2
"""Checks in a row that must miss a job: a new JobManager answers before it knows its jobs."""


class JobKeeper:
    """Submits what is missing, with the same bounded back-off as processes have."""

    def __init__(
        self,
        settings: Settings,
        settings_file: Path,
        mark: Mark,
        executor: ThreadPoolExecutor,
        *,
        new_state: bool,
        log: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._command = [sys.executable, "-m", "deploy.local.submit", str(settings_file)]
        self._once = ["--new-state"] if new_state else []
        self._mark = mark.of_part("submit")
        self._output = settings.state_dir / "logs" / "submit.log"
        self._executor = executor
        self._restarts = Restarts(settings.local)
        self._log = log
        self._submission: ChildProcess | None = None
        self._check: Future[list[JobStatus]] | None = None
        self._submitted = False
        self._missed = 0
        self._next_at = 0.0

    @property
    def submitted(self) -> bool:
        """Whether both jobs were handed to the cluster at least once."""
        return self._submitted

    def tick(self) -> None:
        """One round, while the cluster serves; StackError when the jobs are given up."""
        if self._submission is not None:
            self._look_at_submission(self._submission)
        elif self._check is not None:
            self._look_at_check(self._check)
        elif time.monotonic() >= self._next_at:
            if self._submitted and self._missed < LOST_AFTER:
                self._check = self._executor.submit(jobs, self._settings)
            else:
                self._submit()

    def stop(self) -> None:
        """End a submission that is under way."""
        if self._submission is not None:
            self._submission.kill()
            sweep(self._mark)

    def _submit(self) -> None:
        self._submission = ChildProcess(
            [*self._command, *self._once],
            environment=self._mark.environment(),
            log=self._output,
            cwd=CHECKOUT,
        )

    def _look_at_submission(self, submission: ChildProcess) -> None:
        code = submission.exit_code()
        if code is None:
            return
        self._submission = None
        if code == 0:
            self._submitted, self._missed, self._once = True, 0, []
            self._next_at = time.monotonic() + CHECK_EVERY_S
            return
        # The Flink client that it started may have outlived it, and hang.
        sweep(self._mark, grace_s=0.0)
        why = last_lines(self._output) or exit_words(code)
        # What stands in the way of the first submission will stand in the way of the next.
        if not self._submitted and code == CANNOT:
            raise StackError(why)
        self._try_again("the Flink jobs could not be submitted", why)

    def _look_at_check(self, check: Future[list[JobStatus]]) -> None:
        if not check.done():
            return
        self._check = None
        self._next_at = time.monotonic() + CHECK_EVERY_S
        if check.exception() is not None:
            return  # it does not answer just now: its process is watched elsewhere
        lost = [job for job in check.result() if not job.alive]
        self._missed = self._missed + 1 if lost else 0
        if self._missed == LOST_AFTER:
            self._try_again("a Flink job is gone", "; ".join(_words(job) for job in lost))

    def _try_again(self, what: str, why: str) -> None:
        delay = self._restarts.next_delay(time.monotonic())
        if delay is None:
            most = self._restarts.most
            raise StackError(f"{what}, after {most} restarts within ten minutes: {why}")
        self._log(f"{what} ({why}); submitting again in {delay:.1f} s")
        self._next_at = time.monotonic() + delay


def _words(job: JobStatus) -> str:
    cause = f": {job.root_cause}" if job.root_cause else ""
    return f"{job.name} is {job.state.lower()}{cause}"
