"""The one writer of clip_frames, failed_clips and enriched_clips.

Order within a commit: frames, failures, then the enriched rows with the source position. Dying
in between leaves frames or failures whose ``enrich_seq`` no enriched row has; readers join on
``clip_id`` and ``frames_seq`` or ``enrich_seq``, so those are never seen, and the clips are done
again.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pyarrow as pa
from tenacity import (
    RetryCallState,
    Retrying,
    stop_after_attempt,
    wait_exponential,
    wait_random,
)

from processors.failpoints import passing
from processors.pool.errors import CommitFailed
from processors.pool.keyed_write import KeyedWrite, SequenceNumbers
from processors.pool.lake import Lake
from processors.pool.position import TARGET, Position
from processors.pool.verdicts import Verdicts
from processors.results import ClipResult
from schemas.tables import CLIP_FRAMES, ENRICHED_CLIPS, FAILED_CLIPS, Table

ATTEMPTS = 6
WAIT = wait_exponential(multiplier=0.5, max=10) + wait_random(0, 0.5)
"""Waits of 0.5 s doubling to 10, with some jitter: a store may be out, or a disk full, for a
quarter of a minute."""

logger = logging.getLogger(__name__)
Messages = list[Any]


class Committer:
    """Collects results and commits them. Not thread-safe."""

    def __init__(self, lake: Lake, epoch: int) -> None:
        self._lake = lake
        self._user = f"cliplake-pool-{epoch}"
        self._identifier = 0
        self._rows: list[pa.Table] = []
        self._enriched: list[dict[str, Any]] = []
        self._failed: list[dict[str, Any]] = []
        self._resolved: dict[str, tuple[int, datetime]] = {}
        self._frames: list[bytes] = []
        self._sequence_numbers = {TARGET: SequenceNumbers(), FAILED_CLIPS.name: SequenceNumbers()}

    @property
    def pending(self) -> int:
        """Results that wait for the next commit."""
        return len(self._enriched) + sum(len(rows) for rows in self._rows)

    def add(self, result: ClipResult, enrich_seq: int) -> None:
        """Take a clip's rows; its frames come by `add_frames`."""
        self._enriched.append({**result.enriched, "enrich_seq": enrich_seq})
        if result.failure is not None:
            self._failed.append({**result.failure, "enrich_seq": enrich_seq})

    def add_verdicts(self, verdicts: Verdicts) -> None:
        """Take the rows of several clips; their frames come by `add_frames`."""
        self._rows.append(verdicts.rows)
        sequence = verdicts.rows.column("enrich_seq")
        for place, failure in verdicts.failures.items():
            self._failed.append({**failure, "enrich_seq": sequence[place].as_py()})

    def resolve(self, clip_id: str, enrich_seq: int, moment: datetime) -> None:
        """Mark the clip's row of ``failed_clips`` resolved, in the commit of its result."""
        self._resolved[clip_id] = (enrich_seq, moment)

    def add_frames(self, messages: bytes) -> None:
        """Take the pickled commit messages of frame files that an actor has written."""
        self._frames.append(messages)

    def commit(self, position: Position) -> None:
        """Commit what is pending, and the position with it; also without rows.

        `CommitFailed` after `ATTEMPTS` tries. Each try writes with a fresh writer.
        """
        self._identifier += 1
        passing("commit.begun")
        if self._frames:
            self.commit_frames()
        passing("commit.after_frames")
        if self._failed or self._resolved:
            self.commit_failed()
        passing("commit.after_failures")
        self.commit_enriched(position)
        passing("commit.after_enriched")
        self._frames, self._failed, self._resolved = [], [], {}
        self._rows, self._enriched = [], []

    def commit_frames(self) -> None:
        messages = [m for pickled in self._frames for m in pickle.loads(pickled)]
        self._commit(CLIP_FRAMES.name, lambda builder: messages)

    def commit_failed(self) -> None:
        self._commit(FAILED_CLIPS.name, lambda builder: self._write(FAILED_CLIPS, builder))

    def commit_enriched(self, position: Position) -> None:
        self._commit(
            TARGET,
            lambda builder: self._write(ENRICHED_CLIPS, builder),
            position.properties(),
        )

    def _write(self, table: Table, builder: Any) -> Messages:
        if table is ENRICHED_CLIPS:
            parts, rows = self._rows, self._enriched
        else:
            parts, rows = [], [*self._failed, *self._letters()]
        schema = table.arrow_schema()
        data = pa.concat_tables([*parts, pa.Table.from_pylist(rows, schema=schema)])
        if data.num_rows == 0:
            return []
        writer = KeyedWrite(builder.table, self._user, self._sequence_numbers[table.name])
        try:
            writer.write_arrow(data.combine_chunks())
            passing("rows.before_prepare")
            messages: Messages = writer.prepare_commit(self._identifier)
            passing("rows.after_prepare")
            return messages
        finally:
            writer.close()

    def _letters(self) -> list[dict[str, Any]]:
        """The rows of ``failed_clips`` that are resolved, as they are now, with the time."""
        if not self._resolved:
            return []
        # All versions of a row have its key, so the predicate hides no newer one.
        mine = self._lake.predicates(FAILED_CLIPS.name).is_in("clip_id", list(self._resolved))
        rows = []
        for row in self._lake.read(FAILED_CLIPS.name, filter=mine).to_pylist():
            sequence, moment = self._resolved[row["clip_id"]]
            rows.append({**row, "resolved_at": moment, "enrich_seq": sequence})
        return rows

    def _commit(
        self,
        name: str,
        prepare: Callable[[Any], Messages],
        properties: dict[str, str] | None = None,
    ) -> None:
        base: int | None = None

        def attempt() -> None:
            nonlocal base
            # The first read of a table and of its snapshots may fail as anything else.
            table = self._lake.table(name)
            if base is None:
                base = self._lake.latest_snapshot_id(name) or 0
            elif self._landed(name, base):
                return
            if properties is not None:
                # The position is worth a snapshot even when no row goes with it.
                table = table.copy({"snapshot.ignore-empty-commit": "false"})
            # The user has no public setter; with it, a commit of ours can be found again by name.
            builder = table.new_stream_write_builder()._with_commit_user(self._user)
            commit = builder.new_commit()
            try:
                commit.commit(prepare(builder), self._identifier, snapshot_properties=properties)
            finally:
                commit.close()

        try:
            Retrying(
                stop=stop_after_attempt(ATTEMPTS),
                wait=WAIT,
                before_sleep=_log_retry(name),
                reraise=True,
            )(attempt)
        except Exception as error:
            raise CommitFailed(
                f"table {name} could not be committed to after {ATTEMPTS} tries: "
                f"{type(error).__name__}: {error}"
            ) from error

    def _landed(self, name: str, base: int) -> bool:
        """Whether a try that seemed to fail made it: then a second one would double its rows."""
        manager = self._lake.table(name).snapshot_manager()
        latest = manager.get_latest_snapshot()
        for number in range(latest.id if latest else 0, base, -1):
            snapshot = manager.get_snapshot_by_id(number)
            if (
                snapshot is not None
                and snapshot.commit_user == self._user
                and snapshot.commit_identifier == self._identifier
            ):
                return True
        return False


def _log_retry(name: str) -> Callable[[RetryCallState], None]:
    def log(state: RetryCallState) -> None:
        problem = state.outcome.exception() if state.outcome else None
        logger.warning("commit to %s failed, trying again: %s", name, problem)

    return log
