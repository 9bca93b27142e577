"""Flink's REST interface, as much of it as the jobs need: what runs, how it does, and cancel."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from schemas.problems import ConfigError, Unreachable
from schemas.settings import Settings

_TIMEOUT_S = 10.0
ENDED = frozenset({"FINISHED", "CANCELED", "FAILED"})
"""States that a job does not leave."""
MISSING = "MISSING"
"""Our word for a job that the cluster does not know."""


@dataclass(frozen=True)
class JobStatus:
    """One of our jobs on the cluster, the latest of its name."""

    name: str
    job_id: str = ""
    state: str = MISSING
    """Flink's word (RUNNING, RESTARTING, FAILED, CANCELED …), or MISSING."""
    tasks_running: int = 0
    tasks: int = 0
    restarts: int = 0
    checkpoints_completed: int = 0
    checkpoints_failed: int = 0
    last_checkpoint_ms: int | None = None
    """How long the latest completed checkpoint took."""
    last_checkpoint_at: float | None = None
    """When it was completed, seconds since 1970."""
    root_cause: str | None = None
    """The innermost exception of the latest failure, in one line."""

    @property
    def alive(self) -> bool:
        """Whether it runs or Flink is about to run it (again)."""
        return self.state != MISSING and self.state not in ENDED

    @property
    def ready(self) -> bool:
        """Whether every task of it runs."""
        return self.state == "RUNNING" and self.tasks > 0 and self.tasks_running == self.tasks


class FlinkRest:
    """The cluster of the settings. `ConfigError` from any call if it does not answer."""

    def __init__(self, settings: Settings) -> None:
        self.url = f"http://{settings.flink.rest_address}:{settings.flink.rest_port}"

    def jobs_named(self, name: str) -> list[dict[str, Any]]:
        """Overviews (``jid``, ``state``, ``start-time``) of all jobs of a name, latest first."""
        jobs: list[dict[str, Any]] = self._get("/jobs/overview")["jobs"]
        found = [job for job in jobs if job["name"] == name]
        return sorted(found, key=lambda job: int(job["start-time"]), reverse=True)

    def running(self, name: str) -> str | None:
        """Id of the job of that name that has not ended; `ConfigError` if there are several."""
        ids = [str(job["jid"]) for job in self.jobs_named(name) if job["state"] not in ENDED]
        if len(ids) > 1:
            raise ConfigError(
                f"{len(ids)} jobs named {name} run on the Flink cluster at {self.url} "
                f"({', '.join(ids)}); cancel all of them on its web page, then start again"
            )
        return ids[0] if ids else None

    def status(self, name: str) -> JobStatus:
        """The running job of that name, else the one that ended last, else one that is MISSING."""
        jobs = self.jobs_named(name)
        if not jobs:
            return JobStatus(name)
        job = next((job for job in jobs if job["state"] not in ENDED), jobs[0])
        job_id = str(job["jid"])
        checkpoints = self._get(f"/jobs/{job_id}/checkpoints")
        latest = (checkpoints.get("latest") or {}).get("completed") or {}
        counts = checkpoints.get("counts") or {}
        metrics = self._get(f"/jobs/{job_id}/metrics?get=numRestarts")
        tasks = job.get("tasks") or {}
        return JobStatus(
            name=name,
            job_id=job_id,
            state=str(job["state"]),
            tasks_running=int(tasks.get("running", 0)),
            tasks=int(tasks.get("total", 0)),
            restarts=int(float(metrics[0]["value"])) if metrics else 0,
            checkpoints_completed=int(counts.get("completed", 0)),
            checkpoints_failed=int(counts.get("failed", 0)),
            last_checkpoint_ms=latest.get("end_to_end_duration"),
            last_checkpoint_at=latest["latest_ack_timestamp"] / 1000 if latest else None,
            root_cause=self.root_cause(job_id),
        )

    def root_cause(self, job_id: str) -> str | None:
        """The innermost exception of a job's latest failure; None if it has had none."""
        history = self._get(f"/jobs/{job_id}/exceptions").get("exceptionHistory") or {}
        entries = history.get("entries") or []
        return innermost(entries[0].get("stacktrace") or "") if entries else None

    def request_cancel(self, job_id: str) -> None:
        """Ask a job to end; its checkpoints stay."""
        self._request("PATCH", f"/jobs/{job_id}?mode=cancel")

    def wait_ended(self, job_id: str, timeout_s: float = 60.0) -> None:
        """Return once the job has ended; `ConfigError` if it does not."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self._get(f"/jobs/{job_id}")["state"] in ENDED:
                return
            time.sleep(0.2)
        raise ConfigError(f"job {job_id} did not end within {timeout_s:.0f} s of being cancelled")

    def _get(self, path: str) -> Any:
        return self._request("GET", path)

    def _request(self, method: str, path: str) -> Any:
        request = urllib.request.Request(self.url + path, method=method)
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
                body = answer.read()
        except urllib.error.HTTPError as error:
            detail = error.read(2000).decode(errors="replace")
            raise ConfigError(
                f"Flink at {self.url} answered {error.code} to {method} {path}: {detail}"
            ) from None
        except (OSError, urllib.error.URLError) as error:
            reason = getattr(error, "reason", error)
            raise Unreachable(
                f"the Flink cluster at {self.url} does not answer ({reason}); is it running, and "
                "are flink.rest_address and flink.rest_port right?"
            ) from None
        try:
            return json.loads(body) if body else {}
        except ValueError:
            raise ConfigError(f"{self.url}{path} is no Flink REST interface") from None


def innermost(stacktrace: str) -> str | None:
    """The last cause in a Java stack trace, with what Python's worker says in it."""
    lines = [line.strip() for line in stacktrace.splitlines() if line.strip()]
    if not lines:
        return None
    causes = [number for number, line in enumerate(lines) if line.startswith("Caused by: ")]
    start = causes[-1] if causes else 0
    block = lines[start:]
    message = [line for line in block if not line.startswith(("at ", "... "))]
    if any("Traceback (most recent call last)" in line for line in message):
        # The exception that Python's worker raised is the traceback's last line.
        return message[-1]
    return message[0].removeprefix("Caused by: ")
