"""Submits the two jobs to the Flink cluster, or finds them running; the flink interpreter runs it.

``python -m ingest.submit_jobs --settings-json FILE [--recipe FILE] [--only JOB]
[--new-state FILE]`` prints one line of JSON, ``{"arrivals": "<job id>", "split": "<job id>"}``,
and ends. What it cannot do it says in one message on stderr, with exit code 2. `ingest.client`
runs it as a child.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from ingest import job_names
from ingest.job_record import JobRecord, NewState, changes, read_record, write_record
from ingest.packages import build_package
from ingest.recovery import HOW_TO_START_ANEW, Start, job_folder, plan_start
from ingest.rest import FlinkRest
from ingest.topic import topic_id
from schemas.ids import fingerprint
from schemas.problems import ConfigError
from schemas.recipe import Recipe, load_recipe
from schemas.settings import CHECKOUT, Settings, load_settings_json
from schemas.tables import TABLES

TOPIC_ID = "the topic's id (another one if it was deleted and made again)"
_WRITES = {
    "arrivals": ("videos", "repeats", "rejected_messages"),
    "split": ("clips", "failed_videos"),
}
_READS = {"arrivals": (), "split": ("videos",)}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="ingest.submit_jobs", description=__doc__)
    parser.add_argument("--settings-json", required=True)
    parser.add_argument("--recipe", default="")
    parser.add_argument("--only", choices=job_names.JOBS)
    parser.add_argument("--new-state", default="", help="JSON file: job -> NewState")
    options = parser.parse_args(arguments)
    try:
        settings = load_settings_json(options.settings_json)
        recipe = load_recipe(options.recipe or settings.recipe)
        prepare_jvm(settings)
        jobs = [options.only] if options.only else list(job_names.JOBS)
        new_states = _read_new_states(options.new_state)
        ids = {job: submit(settings, recipe, job, new_states.get(job)) for job in jobs}
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(ids), flush=True)
    return 0


def submit(settings: Settings, recipe: Recipe, job: str, new_state: NewState | None) -> str:
    """The Flink id of a job, which runs already or is submitted from its newest checkpoint."""
    rest = FlinkRest(settings)
    name = job_names.flink_name(settings, job)
    running = rest.running(name)
    environment = _Client(settings, recipe, job)
    signature = environment.signature()
    folder = job_folder(settings, job)
    if running is not None:
        _check_running(settings, job, running, signature, read_record(folder))
        return running
    start = plan_start(
        settings, job, signature, has_rows=environment.has_rows(), new_state=new_state
    )
    record = replace(start.record, topic_id=signature.get(TOPIC_ID, ""))
    # Before the submission: a job without its record could not be told from a stranger's.
    write_record(folder, record)
    job_id = environment.execute(name, start)
    write_record(folder, replace(record, job_id=job_id))
    return job_id


def prepare_jvm(settings: Settings) -> None:
    """What PyFlink's gateway reads from the environment when it starts the client's JVM."""
    import pyflink

    home = Path(pyflink.__file__).parent
    logs = settings.state_dir / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    # PyFlink takes its own folders only if it is told where it lies itself.
    os.environ["FLINK_HOME"] = str(home)
    for name in ("lib", "opt", "plugins", "conf"):
        os.environ.setdefault(f"FLINK_{name.upper()}_DIR", str(home / name))
    os.environ.setdefault("FLINK_LOG_DIR", str(logs))
    connectors = f"{settings.flink_jars}/*"
    os.environ["HADOOP_CLASSPATH"] = ":".join(
        part for part in (connectors, os.environ.get("HADOOP_CLASSPATH")) if part
    )
    # The JVM lives for seconds: compiling well, or a heap of a quarter of the memory, is waste.
    os.environ.setdefault("JVM_ARGS", "-Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1")


class _Client:
    """One job's Flink environment and what is asked of it before the job is submitted."""

    def __init__(self, settings: Settings, recipe: Recipe, job: str) -> None:
        from ingest.flink_env import lake_tables

        self._settings = settings
        self._recipe = recipe
        self._job = job
        self._tables = lake_tables(settings, (*_READS[job], *_WRITES[job]))

    def signature(self) -> dict[str, str]:
        """What must stay the same for a job's state to be taken over."""
        from ingest.flink_env import MAX_PARALLELISM, VERSION

        settings = self._settings
        jars = sorted(jar.name for jar in settings.flink_jars.glob("*.jar"))
        signature = {
            "Flink": VERSION,
            "jars": ", ".join(jar for jar in jars if not jar.startswith("hadoop")),
            "maximum parallelism": str(MAX_PARALLELISM),
            "catalog.database": settings.catalog.database,
            "the job's own program": self._program(),
        }
        if self._job == "arrivals":
            signature["kafka.topic"] = settings.kafka.topic
            signature[TOPIC_ID] = topic_id(settings)
        for name, table in self._tables.items():
            signature[f"table {name} (its path and time of creation)"] = table.uuid
        return signature

    def has_rows(self) -> bool:
        """Whether a table that the job writes was ever committed to."""
        return any(self._tables[name].has_snapshot for name in _WRITES[self._job])

    def execute(self, name: str, start: Start) -> str:
        from ingest.flink_env import FlinkEnvironment, JobOptions

        package = build_package(CHECKOUT, self._settings.state_dir / "packages")
        module = self._module()
        options = JobOptions(
            name, start.checkpoint_dir, package, start.restore_from, module.options(self._settings)
        )
        environment = FlinkEnvironment(self._settings, options)
        return environment.submit(
            lambda environment: module.build(
                environment, self._settings, self._recipe, start.record.new_state
            )
        )

    def _module(self) -> Any:
        if self._job == "arrivals":
            from ingest import arrivals

            return arrivals
        from ingest import split_job

        return split_job

    def _program(self) -> str:
        return fingerprint(
            {
                "state": self._module().STATE_FORMAT,
                "columns": {
                    table.name: [(c.name, c.type.value) for c in table.columns]
                    for table in TABLES
                    if table.name in _WRITES[self._job]
                },
            }
        )


def _check_running(
    settings: Settings, job: str, job_id: str, signature: dict[str, str], record: JobRecord | None
) -> None:
    """A running job is ours to attach to only if it is the one that we would submit."""
    where = f"job {job_names.flink_name(settings, job)} ({job_id}) runs on the Flink cluster"
    if record is None or record.job_id not in ("", job_id):
        raise ConfigError(
            f"{where}, and was not submitted with these checkpoints "
            f"({job_folder(settings, job)}); cancel it there, or use another catalog.database"
        )
    if different := changes(record.signature, signature):
        raise ConfigError(
            f"{where} with other settings:\n  " + "\n  ".join(different) + "\n"
            f"`cliplake down` stops it; {HOW_TO_START_ANEW}"
        )


def _read_new_states(file: str) -> dict[str, NewState]:
    if not file:
        return {}
    values = json.loads(Path(file).read_text(encoding="utf-8"))
    return {
        job: NewState(
            state["keys_file"],
            state["records_file"],
            {int(p): int(o) for p, o in state["start_offsets"].items()},
        )
        for job, state in values.items()
    }


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # The gateway's JVM ends with us; waiting for its threads takes seconds and gives nothing.
    os._exit(code)
