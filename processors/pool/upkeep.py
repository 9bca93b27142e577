"""When the driver maintains its tables: after so many commits, and when somebody asks for it.

It also looks after consumer files of all tables, so that none stops the Flink jobs for good.

Its commits wait meanwhile; reading and scoring go on. `cliplake maintain` asks by a file in the
state folder, since the driver alone knows when it does not commit.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from processors.pool.consumer import heal_consumers
from processors.pool.lake import Lake, LakeNotReady
from processors.pool.maintenance import OURS, Maintenance, MaintenanceFailed, Step, steps
from processors.pool.metrics import PoolMetrics
from schemas.settings import Settings
from schemas.tables import TABLES

ORPHANS_EVERY_S = 6 * 3600.0
"""Looking for files that nobody names lists whole tables."""
LOOK_EVERY_S = 1.0
"""For a request."""
HEAL_EVERY_S = 30.0
"""A Flink job whose commits fail over a damaged consumer file is restarted until it is whole."""

logger = logging.getLogger(__name__)


class Upkeep:
    """Starts, watches and ends the maintenance of one driver."""

    def __init__(self, settings: Settings, lake: Lake, metrics: PoolMetrics) -> None:
        self._settings = settings
        self._lake = lake
        self._metrics = metrics
        self._run: Maintenance | None = None
        self._asked: str | None = None
        """Id of the request that is being worked on."""
        self._commits = 0
        self._orphans_at = 0.0
        self._look_at = 0.0
        self._heal_at = 0.0
        _request_file(settings).unlink(missing_ok=True)

    def committed(self) -> None:
        """Count a commit."""
        self._commits += 1

    def heal(self) -> None:
        """Make damaged consumer files whole, now and then."""
        if time.monotonic() < self._heal_at:
            return
        self._heal_at = time.monotonic() + HEAL_EVERY_S
        try:
            heal_consumers(self._lake, [table.name for table in TABLES])
        except (OSError, LakeNotReady) as error:
            # While the lake cannot be reached there is nothing to heal; work itself will complain.
            logger.warning("consumer files cannot be looked at: %s", error)

    @property
    def due(self) -> bool:
        """Whether to `start` now: enough commits, or a request."""
        every = self._settings.maintenance.every_commits
        if every and self._commits >= every:
            return True
        if time.monotonic() < self._look_at:
            return False
        self._look_at = time.monotonic() + LOOK_EVERY_S
        return _request_file(self._settings).exists()

    def start(self) -> None:
        """Begin; the newest commit must hold the position, and none may follow while it `runs`."""
        self._commits = 0
        request = _take_request(self._settings)
        self._asked = request[0] if request else None
        orphans = bool(request) or time.monotonic() >= self._orphans_at
        tables = request[1] if request else [table.name for table in TABLES]
        try:
            todo = [
                step
                for name in tables
                if name in OURS or orphans
                for step in steps(self._lake, [name], orphans=orphans)
            ]
            if not todo:
                self._answer([], None)
                return
            logger.info("maintaining the lake's tables; commits wait")
            self._run = Maintenance(self._settings, todo)
        except MaintenanceFailed as error:
            self._failed(error)
            return
        if orphans:
            self._orphans_at = time.monotonic() + ORPHANS_EVERY_S

    def runs(self) -> bool:
        """Whether it is still at work; commits have to wait then."""
        if self._run is None:
            return False
        seconds = self._run.seconds
        try:
            done = self._run.ended()
        except MaintenanceFailed as error:
            self._end(seconds)
            self._failed(error)
            return False
        if done is None:
            return True
        self._end(seconds)
        logger.info("maintained %s in %.1f s", ", ".join({s.table: 0 for s in done}), seconds)
        self._answer(done, None)
        return False

    def stop(self) -> None:
        """End it if it is at work: the driver has to commit now."""
        if self._run is not None:
            run, self._run = self._run, None
            run.stop()
            self._answer([], "the driver stopped meanwhile")

    def _end(self, seconds: float) -> None:
        self._run = None
        self._metrics.maintenance_seconds.observe(seconds)

    def _failed(self, error: MaintenanceFailed) -> None:
        # Commits only get dearer: no reason to stop scoring.
        self._metrics.maintenance_failures.inc()
        logger.warning("the lake's tables could not be maintained: %s", error)
        self._answer([], str(error))

    def _answer(self, done: list[Step], problem: str | None) -> None:
        if self._asked is None:
            return
        answer = {"id": self._asked, "steps": [asdict(s) for s in done], "problem": problem}
        self._asked = None
        with suppress(OSError):
            _replace(_answer_file(self._settings), json.dumps(answer))


def ask_driver(settings: Settings, tables: list[str]) -> list[Step]:
    """Have the driver that runs here maintain these tables, and wait for it.

    `MaintenanceFailed` if it could not, ends meanwhile, or does not answer: one on another
    machine has another state folder.
    """
    asked = uuid.uuid4().hex
    answer_file = _answer_file(settings)
    _replace(_request_file(settings), json.dumps({"id": asked, "tables": tables}))
    # One that is under way comes first.
    deadline = time.monotonic() + 2 * settings.maintenance.timeout_s + 60.0
    while time.monotonic() < deadline:
        with suppress(OSError, ValueError):
            answer = json.loads(answer_file.read_text(encoding="utf-8"))
            if answer["id"] == asked:
                answer_file.unlink(missing_ok=True)
                if answer["problem"]:
                    raise MaintenanceFailed(answer["problem"])
                return [Step(**step) for step in answer["steps"]]
        time.sleep(0.2)
    _request_file(settings).unlink(missing_ok=True)
    raise MaintenanceFailed("the driver does not answer; see its log, and whether it still runs")


def _take_request(settings: Settings) -> tuple[str, list[str]] | None:
    """The request that waits, if it is one; what cannot be read is thrown away."""
    file = _request_file(settings)
    known = {table.name for table in TABLES}
    try:
        request = json.loads(file.read_text(encoding="utf-8"))
        return str(request["id"]), [name for name in request["tables"] if name in known]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    finally:
        file.unlink(missing_ok=True)


def _request_file(settings: Settings) -> Path:
    return settings.state_dir / "pool" / "maintain-request.json"


def _answer_file(settings: Settings) -> Path:
    return settings.state_dir / "pool" / "maintain-answer.json"


def _replace(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(file)
