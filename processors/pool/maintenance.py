"""Compaction and clean-up of the lake by Paimon's procedures, in a child of Flink's environment.

pypaimon leaves these to others, and without them each commit is dearer than the one before it. A
commit of the child and one of ours to the same table could undo each other, so whoever starts it
holds the driver's lock and commits to none of the driver's tables until it has ended. It never
outlives its starter: it ends with its standard input.

Tables that a Flink job writes are compacted and expired inside that job; of these only files that
nobody names any more are removed here, which needs no commit.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from processors.pool.commits import Committer
from processors.pool.consumer import heal_consumers
from processors.pool.errors import PoolError
from processors.pool.lake import Lake
from processors.pool.position import load_stored
from schemas.problems import ConfigError
from schemas.settings import CHECKOUT, Settings, dump_settings
from schemas.tables import CLIP_FRAMES, ENRICHED_CLIPS, FAILED_CLIPS, TABLES

OURS = (ENRICHED_CLIPS.name, CLIP_FRAMES.name, FAILED_CLIPS.name)
"""The tables that the driver writes."""
_OURS_STEPS = ("expire_snapshots", "compact", "compact_manifest")
# Expiry is first: the newest snapshot, which always stays, is then the one with the position.
_ORPHANS = "remove_orphan_files"


class MaintenanceFailed(PoolError):
    """The procedures did not end well; what they had committed by then is whole."""


@dataclass(frozen=True)
class Step:
    """One procedure over one table, as it went."""

    table: str
    procedure: str
    seconds: float
    result: str


def steps(lake: Lake, tables: Iterable[str], *, orphans: bool = True) -> list[tuple[str, str]]:
    """What there is to do for these tables: ``(table, procedure)`` in order."""
    found = []
    for name in tables:
        if lake.latest_snapshot_id(name) is None:
            continue
        if name in OURS:
            found += [(name, procedure) for procedure in _OURS_STEPS]
        if orphans:
            found.append((name, _ORPHANS))
    return found


class Maintenance:
    """One run of the child; start it by making one. Not thread-safe."""

    def __init__(self, settings: Settings, todo: list[tuple[str, str]]) -> None:
        """`MaintenanceFailed` if the interpreter is not there."""
        self._timeout_s = settings.maintenance.timeout_s
        self._started = time.monotonic()
        logs = settings.state_dir / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        self._log = logs / "maintain.log"
        # The settings may hold passwords: the folder is ours alone.
        self._folder = tempfile.TemporaryDirectory(prefix="cliplake-")
        folder = Path(self._folder.name)
        (folder / "settings.json").write_text(dump_settings(settings), encoding="utf-8")
        self._out = folder / "out"
        paths = [str(CHECKOUT), os.environ.get("PYTHONPATH", "")]
        command = [str(settings.flink_python), "-m", "ingest.maintain"]
        command += ["--settings-json", str(folder / "settings.json")]
        for table, procedure in todo:
            command += ["--step", f"{table}:{procedure}"]
        try:
            with self._out.open("wb") as out, self._log.open("wb") as log:
                self._child = subprocess.Popen(
                    command,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in paths if p)},
                    stdin=subprocess.PIPE,
                    stdout=out,
                    stderr=log,
                    # A Ctrl-C at the terminal is ours to handle.
                    start_new_session=True,
                )
        except OSError as error:
            self._folder.cleanup()
            raise MaintenanceFailed(
                f"{settings.flink_python} cannot be run: {error.strerror}; run `make setup`, set "
                "flink.python, or have it done elsewhere (maintenance.every_commits: 0)"
            ) from None

    @property
    def seconds(self) -> float:
        """Since its start."""
        return time.monotonic() - self._started

    def ended(self) -> list[Step] | None:
        """What was done, or None while it works; `MaintenanceFailed` if it went wrong."""
        code = self._child.poll()
        if code is None:
            if self.seconds < self._timeout_s:
                return None
            self.stop()
            raise MaintenanceFailed(
                f"it took more than {self._timeout_s:.0f} s (maintenance.timeout_s) and was ended"
            )
        done = [Step(**json.loads(line)) for line in _lines(self._out)]
        self.stop()
        if code != 0:
            log = self._log.read_text(encoding="utf-8", errors="replace")
            problem = log[log.rindex("error: ") + 7 :] if "error: " in log else f"code {code}"
            raise MaintenanceFailed(f"{problem.strip()}; all of it is in {self._log}")
        return done

    def stop(self) -> None:
        """End it now; a procedure that is cut short leaves files for the next run to remove."""
        with suppress(OSError):
            assert self._child.stdin is not None
            self._child.stdin.close()
        try:
            self._child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._folder.cleanup()


def maintain(settings: Settings, tables: Iterable[str]) -> list[Step]:
    """Do it all now and wait; the caller holds the driver's lock.

    `MaintenanceFailed`, or `CommitFailed` where the position could not be carried on.
    """
    lake = Lake(settings)
    lake.require_atomic_commits()
    todo = steps(lake, tables)
    if not todo:
        return []
    heal_consumers(lake, [table for table, _ in todo])
    stored = load_stored(lake)
    if stored.position is not None and any(table == ENRICHED_CLIPS.name for table, _ in todo):
        # In a snapshot of its own again: one that expiry leaves alone.
        Committer(lake, stored.epoch).commit(stored.position)
    run = Maintenance(settings, todo)
    try:
        while (done := run.ended()) is None:
            time.sleep(0.1)
    finally:
        run.stop()
    return done


def known_tables(names: Iterable[str]) -> list[str]:
    """The names, or all tables for none; `ConfigError` for one that is no table."""
    known = [table.name for table in TABLES]
    chosen = list(names)
    for name in chosen:
        if name not in known:
            raise ConfigError(f"there is no table {name!r}; there are {', '.join(known)}")
    return chosen or known


def _lines(file: Path) -> list[str]:
    # The JVM may print beside us.
    text = file.read_text(encoding="utf-8", errors="replace")
    return [line for line in text.splitlines() if line.startswith('{"table"')]
