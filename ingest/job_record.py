"""What is remembered beside a job's checkpoints: which job made them, and what it started from.

A checkpoint holds the state of operators, and says nothing about the topic, tables or program
that the state belongs to. This record does, so that state is taken over only where it fits.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from schemas.problems import ConfigError

FILE = "job.json"
VERSION = 1


@dataclass(frozen=True)
class NewState:
    """Where a job began when it was started with new state, and what was done before that."""

    keys_file: str
    """`DoneKeys`: videos that are in the lake already."""
    records_file: str = ""
    """`DoneRecords`: records beyond the start offsets that are in the lake already."""
    start_offsets: dict[int, int] = field(default_factory=dict)
    """First offset to read, by partition; a partition that is not here is read from its start."""


@dataclass(frozen=True)
class JobRecord:
    """One job's record. ``signature`` is what must be equal for state to be taken over."""

    generation: int
    """Counts starts with new state; each has its own folder of checkpoints."""
    signature: dict[str, str]
    new_state: NewState | None = None
    job_id: str = ""
    topic_id: str = ""
    """The broker's id of the topic that the offsets are of."""


def read_record(folder: Path) -> JobRecord | None:
    """The record in a job's folder; None if there is none. `ConfigError` if it cannot be read."""
    file = folder / FILE
    try:
        values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if values["version"] != VERSION:
            raise ConfigError(
                f"{file} was written by another version (format {values['version']}, and this "
                f"one reads {VERSION}); start the jobs with --new-state"
            )
        new_state = values["new_state"]
        if new_state is not None:
            offsets = {int(p): int(o) for p, o in new_state["start_offsets"].items()}
            new_state = NewState(**{**new_state, "start_offsets": offsets})
        return JobRecord(
            generation=int(values["generation"]),
            signature=dict(values["signature"]),
            new_state=new_state,
            job_id=str(values["job_id"]),
            topic_id=str(values["topic_id"]),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{file} cannot be read ({error}); if its checkpoints are lost, start the jobs "
            "with --new-state"
        ) from error


def write_record(folder: Path, record: JobRecord) -> None:
    """Replace the record at once: a crash leaves the old one or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"version": VERSION, **asdict(record)}, indent=2, sort_keys=True)
    partial = folder / f"{FILE}.{os.getpid()}.tmp"
    with partial.open("w", encoding="utf-8") as target:
        target.write(text + "\n")
        target.flush()
        os.fsync(target.fileno())
    partial.replace(folder / FILE)


def changes(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """What differs between two signatures, a line each."""
    lines = []
    for key in sorted({*old, *new}):
        before, now = old.get(key), new.get(key)
        if before != now:
            lines.append(f"{key}: was {before or 'not there'}, is {now or 'not there'}")
    return lines
