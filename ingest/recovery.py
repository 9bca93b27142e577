"""Where a job goes on: from its newest completed checkpoint, if its state still fits.

Checkpoints of all runs of a job since its last start with new state lie under
``<checkpoint_dir>/<job>/<generation>/<Flink job id>/chk-N``; N goes on counting over restarts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ingest.job_record import JobRecord, NewState, changes, read_record
from schemas.problems import ConfigError
from schemas.settings import Settings

_CHECKPOINT = re.compile(r"chk-(\d+)")

HOW_TO_START_ANEW = (
    "`cliplake ingest --new-state` (or `cliplake up --new-state`) starts it with new state: it "
    "reads from the lake what is done already, so that nothing is lost or doubled"
)


@dataclass(frozen=True)
class Start:
    """How to submit a job."""

    record: JobRecord
    checkpoint_dir: str
    """URI under which this run writes its checkpoints."""
    restore_from: str | None
    """URI of the checkpoint to go on from; None to start with empty state."""


def job_folder(settings: Settings, job: str) -> Path:
    """Folder of a job's checkpoints and record; `ConfigError` unless it is on a file system."""
    uri = settings.checkpoint_dir
    parts = urlsplit(uri)
    if parts.scheme not in ("", "file") or parts.netloc not in ("", "localhost"):
        raise ConfigError(
            f"flink.checkpoint_dir is {uri}: this version finds checkpoints under file: URIs "
            "only; name a folder that this machine and all Flink processes share"
        )
    path = Path(unquote(parts.path) if parts.scheme else uri)
    if not path.is_absolute():
        raise ConfigError(f"flink.checkpoint_dir is {uri}, and an absolute path is needed")
    return path / job


def newest_checkpoint(folder: Path) -> Path | None:
    """The completed checkpoint with the highest number under any run in ``folder``.

    A checkpoint without ``_metadata`` was never completed. Where two runs have the same number
    (one died between writing it and going on), the later one counts.
    """
    found = []
    for metadata in folder.glob("*/chk-*/_metadata"):
        match = _CHECKPOINT.fullmatch(metadata.parent.name)
        if match and metadata.stat().st_size > 0:
            found.append((int(match[1]), metadata.stat().st_mtime_ns, metadata.parent))
    return max(found)[2] if found else None


def plan_start(
    settings: Settings,
    job: str,
    signature: dict[str, str],
    *,
    has_rows: bool,
    new_state: NewState | None,
) -> Start:
    """Decide how to start a job that is not running.

    ``has_rows``: whether a table that the job writes has ever been committed to. Raises
    `ConfigError` where old state cannot be taken over or is lost, with what to do.
    """
    folder = job_folder(settings, job)
    if new_state is not None:
        # The old record may be what cannot be read.
        generation = 1 + max([0, *_generations(folder)])
        record = JobRecord(generation, signature, new_state)
        return Start(record, (folder / str(generation)).as_uri(), None)
    old = read_record(folder)
    if old is None:
        old = JobRecord(0, signature)
    elif different := changes(old.signature, signature):
        raise ConfigError(
            f"job {job} cannot take over the state of its checkpoints in {folder}:\n  "
            + "\n  ".join(different)
            + f"\nundo the change, or start anew: {HOW_TO_START_ANEW}"
        )
    generation_folder = folder / str(old.generation)
    checkpoint = newest_checkpoint(generation_folder)
    if checkpoint is None and has_rows and old.new_state is None:
        raise ConfigError(
            f"job {job} has written to the lake before, and there is no checkpoint of it in "
            f"{folder}: from empty state it would write the same rows again; {HOW_TO_START_ANEW}"
        )
    if checkpoint is None and old.new_state is not None:
        raise ConfigError(
            f"job {job} was started with new state and ended before its first checkpoint, so "
            f"what is in the lake may have changed since; {HOW_TO_START_ANEW}"
        )
    return Start(
        JobRecord(old.generation, signature, old.new_state),
        generation_folder.as_uri(),
        None if checkpoint is None else checkpoint.as_uri(),
    )


def next_generation(settings: Settings, job: str) -> int:
    """Number of the folder that a start with new state will use."""
    return 1 + max([0, *_generations(job_folder(settings, job))])


def _generations(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    return [int(entry.name) for entry in folder.iterdir() if entry.name.isdigit()]
