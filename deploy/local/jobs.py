"""Keeps the two Flink jobs on the cluster: a JobManager that died comes back without them.

They are submitted by ``ingest.client``, which starts from the newest checkpoint and leaves a job
alone that is there already. All of it runs beside the caller's thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from deploy.local.errors import StackError
from deploy.local.supervisor import Restarts
from schemas.settings import Settings

CHECK_EVERY_S = 2.0
LOST_AFTER = 2
"""Checks in a row that must miss a job: a new JobManager answers before it knows its jobs."""


class JobKeeper:
    """Submits what is missing, with the same bounded back-off as processes have."""

    def __init__(
        self,
        settings: Settings,
        executor: ThreadPoolExecutor,
        *,
        max_restarts: int,
        log: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._executor = executor
        self._restarts = Restarts(max_restarts)
        self._max_restarts = max_restarts
        self._log = log
        self._check: Future[list[str]] | None = None
        self._submission: Future[dict[str, str]] | None = None
        self._submitted = False
        self._missed = 0
        self._next_at = 0.0

    @property
    def submitted(self) -> bool:
        """Whether both jobs were handed to the cluster at least once."""
        return self._submitted

    def submit(self) -> None:
        """Submit what is not there; StackError at a later `tick` if that fails too often."""
        self._submission = self._executor.submit(_submit, self._settings)

    def tick(self) -> None:
        """One round; call it while the cluster serves."""
        if self._submission is not None:
            self._look_at_submission(self._submission)
        elif self._check is not None:
            self._look_at_check(self._check)
        elif time.monotonic() >= self._next_at:
            if self._submitted and self._missed < LOST_AFTER:
                self._check = self._executor.submit(self._lost)
            else:
                self.submit()

    def _lost(self) -> list[str]:
        from ingest.client import jobs

        return sorted(job.name for job in jobs(self._settings) if not job.alive)

    def _look_at_submission(self, submission: Future[dict[str, str]]) -> None:
        if not submission.done():
            return
        self._submission = None
        self._missed = 0
        error = submission.exception()
        if error is None:
            self._submitted = True
            self._next_at = time.monotonic() + CHECK_EVERY_S
            return
        delay = self._restarts.next_delay(time.monotonic())
        if delay is None:
            raise StackError(
                f"the Flink jobs could not be submitted, after {self._max_restarts} more tries "
                f"within ten minutes: {error}"
            ) from error
        self._log(f"Flink jobs: not submitted ({error}); trying again in {delay:.1f} s")
        self._next_at = time.monotonic() + delay

    def _look_at_check(self, check: Future[list[str]]) -> None:
        if not check.done():
            return
        self._check = None
        self._next_at = time.monotonic() + CHECK_EVERY_S
        if check.exception() is not None:
            return  # it does not answer just now: its process is watched elsewhere
        lost = check.result()
        self._missed = self._missed + 1 if lost else 0
        if self._missed < LOST_AFTER:
            return
        delay = self._restarts.next_delay(time.monotonic())
        if delay is None:
            raise StackError(
                f"the Flink job {lost[0]} ended {self._max_restarts + 1} times within ten minutes: "
                "see the log of the jobmanager"
            )
        self._log(f"Flink jobs: {', '.join(lost)} gone; submitting again in {delay:.1f} s")
        self._next_at = time.monotonic() + delay


def _submit(settings: Settings) -> dict[str, str]:
    from ingest.client import submit_jobs

    return submit_jobs(settings)
