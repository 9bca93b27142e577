"""The jobs as the command line and `up` see them: submit, look, stop. Needs no Flink installed.

Submission needs the flink environment, so it happens in a child process of that interpreter;
the rest goes over Flink's REST interface.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from dataclasses import asdict
from pathlib import Path

from ingest import job_names
from ingest.job_record import NewState, read_record
from ingest.new_state import LakeReader, arrivals_state, split_state
from ingest.recovery import job_folder, next_generation
from ingest.rest import FlinkRest, JobStatus
from ingest.submission_lock import only_submission
from ingest.topic import create_topic, topic_id, topic_offsets
from schemas.problems import ConfigError
from schemas.settings import CHECKOUT, Settings, dump_settings

__all__ = ["JobStatus", "create_topic", "jobs", "stop_jobs", "submit_jobs"]

SUBMIT_TIMEOUT_S = 300.0
"""A client that has not handed over both jobs by then hangs: it takes about ten seconds."""


def submit_jobs(
    settings: Settings,
    *,
    new_state: bool = False,
    read: LakeReader | None = None,
    only: str | None = None,
) -> dict[str, str]:
    """Submit both jobs from their newest checkpoints, or find them running; their Flink ids.

    ``new_state``: stop them if they run, and start without old state from what ``read`` finds
    done in the lake (`processors.pool.lake.Lake.read`, which this package may not import).
    ``only`` names one of the jobs. Another submission that is under way is waited for first.
    `ConfigError` says what stands in the way and what to do.
    """
    chosen = [only] if only else list(job_names.JOBS)
    states: dict[str, NewState] = {}
    folder = job_folder(settings, chosen[0]).parent
    with only_submission(folder, patience_s=SUBMIT_TIMEOUT_S) as lock:
        if new_state:
            if read is None:
                raise ValueError("new_state needs a reader of the lake")
            _cancel(settings, chosen)
            states = _new_states(settings, chosen, read)
        return _run_submission(settings, only, states, lock)


def jobs(settings: Settings) -> list[JobStatus]:
    """Both jobs, in order; one that the cluster does not know is there with state MISSING."""
    rest = FlinkRest(settings)
    return [rest.status(job_names.flink_name(settings, job)) for job in job_names.JOBS]


def stop_jobs(settings: Settings) -> list[str]:
    """Cancel the jobs that run and wait until they have ended; their names.

    Their newest checkpoints stay and the next start goes on from there: what was done since is
    done again and never committed twice. (A savepoint would save that little, and would have to
    wait for segments that are being decoded.)
    """
    return _cancel(settings, list(job_names.JOBS))


def _cancel(settings: Settings, chosen: list[str]) -> list[str]:
    rest = FlinkRest(settings)
    names = [job_names.flink_name(settings, job) for job in chosen]
    running = {name: job_id for name in names if (job_id := rest.running(name))}
    for job_id in running.values():
        rest.request_cancel(job_id)
    for job_id in running.values():
        rest.wait_ended(job_id)
    return list(running)


def _new_states(settings: Settings, chosen: list[str], read: LakeReader) -> dict[str, NewState]:
    """What each job must know; its files lie beside the checkpoints that it will write."""
    states: dict[str, NewState] = {}
    for job in chosen:
        folder = job_folder(settings, job)
        data = folder / f"new-state-{next_generation(settings, job)}"
        data.mkdir(parents=True, exist_ok=True)
        if job == "arrivals":
            offsets = topic_offsets(settings)
            states[job] = arrivals_state(
                read,
                data,
                settings.kafka.topic,
                {partition: ends.begin for partition, ends in offsets.items()},
                {partition: ends.end for partition, ends in offsets.items()},
                same_topic=_is_same_topic(settings, folder),
            )
        else:
            states[job] = split_state(read, data)
    return states


def _is_same_topic(settings: Settings, folder: Path) -> bool:
    """Whether the coordinates in the lake are of the topic as it is now, as far as known."""
    try:
        record = read_record(folder)
    except ConfigError:
        return True  # the offsets themselves are compared too
    return record is None or record.topic_id in ("", topic_id(settings))


def _run_submission(
    settings: Settings, only: str | None, new_states: dict[str, NewState], lock: int
) -> dict[str, str]:
    """Run the Flink client; it has the descriptor ``lock`` as well, and outlives us if need be."""
    logs = settings.state_dir / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / "submit-jobs.log"
    with tempfile.TemporaryDirectory(prefix="cliplake-") as folder:
        # The settings may hold passwords: the folder is ours alone.
        settings_file = Path(folder) / "settings.json"
        settings_file.write_text(dump_settings(settings), encoding="utf-8")
        states_file = Path(folder) / "new-state.json"
        states = {job: asdict(state) for job, state in new_states.items()}
        states_file.write_text(json.dumps(states), encoding="utf-8")
        command = [
            str(settings.flink_python),
            "-m",
            "ingest.submit_jobs",
            "--settings-json",
            str(settings_file),
            "--recipe",
            str(settings.recipe_file),
            *(["--only", only] if only else []),
            *(["--new-state", str(states_file)] if new_states else []),
        ]
        paths = [str(CHECKOUT), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in paths if p)}
        try:
            done = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=SUBMIT_TIMEOUT_S,
                check=False,
                pass_fds=(lock,),
            )
        except FileNotFoundError:
            raise ConfigError(
                f"{settings.flink_python} is not there: run `make setup`, or set flink.python"
            ) from None
        except subprocess.TimeoutExpired:
            raise ConfigError(
                f"submitting the jobs took more than {SUBMIT_TIMEOUT_S:.0f} s; see the Flink "
                f"cluster's log"
            ) from None
    log.write_text(f"{done.stderr}\n{done.stdout}", encoding="utf-8")
    if done.returncode == 2 and "error: " in done.stderr:
        raise ConfigError(done.stderr[done.stderr.rindex("error: ") + len("error: ") :].strip())
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        last = (done.stderr.strip() or "no output").splitlines()[-1]
        raise ConfigError(f"the jobs could not be submitted: {last}; all of it is in {log}")
    ids: dict[str, str] = json.loads(lines[-1])
    return ids
