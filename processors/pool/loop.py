"""The driver's loop: read, dispatch, collect, commit; until it is stopped or has nothing to do."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from processors.failpoints import passing
from processors.pool.backlog import Backlog
from processors.pool.commits import Committer
from processors.pool.consumer import hold_snapshots
from processors.pool.dispatch import Dispatcher, Finished, Work
from processors.pool.done import DoneClips, load_done
from processors.pool.errors import CommitFailed, OtherSplit
from processors.pool.lake import Lake
from processors.pool.metrics import PoolMetrics
from processors.pool.position import EPOCH_BITS, Position
from processors.pool.progress import Progress
from processors.pool.reporter import Reporter
from processors.pool.scaling import Scaler
from processors.pool.source import Chunk, ClipSource
from processors.pool.upkeep import Upkeep
from processors.pool.verdicts import Verdicts, verdicts_of
from processors.pool.workers import Workers
from processors.results import duration_rejected
from schemas.reasons import ClipStatus
from schemas.recipe import Recipe
from schemas.settings import Settings

IDLE_COMMIT_S = 10.0
"""A position that moved without rows is committed this late: each commit makes a snapshot."""
HELD_PLANS = 10
"""Rows between the position and the last one read, in plans: a clip that takes very long holds
the position back, and what finished behind it is remembered by a byte each."""
DROPPED_AT_ONCE = 1000
"""Clips that the duration filter drops, as Python objects at a time."""

logger = logging.getLogger(__name__)


class Run:
    """The state of one run of the driver."""

    def __init__(
        self,
        settings: Settings,
        recipe: Recipe,
        lake: Lake,
        workers: Workers,
        start: Position,
        metrics: PoolMetrics,
        stop: threading.Event,
        any_split: bool,
    ) -> None:
        self._pool = settings.pool
        self._recipe = recipe
        self._lake = lake
        self._metrics = metrics
        self._stop = stop
        self._any_split = any_split
        self._source = ClipSource(lake, start)
        self._progress = Progress(start)
        self._backlog = Backlog()
        self._workers = workers
        self._scaler = Scaler(self._pool, time.monotonic())
        self._asked_for = len(workers)
        self._dispatcher = Dispatcher(workers, recipe, settings)
        self._committer = Committer(lake, start.epoch)
        self._reporter = Reporter(settings, metrics)
        self._upkeep = Upkeep(settings, lake, metrics)
        self._sequence = start.epoch << EPOCH_BITS
        self._committed = start
        self._last_commit = time.monotonic()
        self._next_read = 0.0
        # The epoch is claimed before anything is written under it, and the snapshots that are
        # needed are held before the first of them is read.
        hold_snapshots(lake, start.snapshot)
        self._committer.commit(start)
        self._done: DoneClips = load_done(lake, recipe)
        logger.info(
            "driver epoch %d, %s from snapshot %d row %d of clips, %d clips have their row",
            start.epoch, start.mode, start.snapshot, start.offset, len(self._done),
        )  # fmt: skip

    def loop(self, until_idle: bool) -> None:
        try:
            while not self._stop.is_set():
                more = self._read()
                self._dispatch()
                self._collect(self._wait_s(more))
                self._commit_if_due()
                self._scale()
                self._upkeep.heal()
                if until_idle and not more and self._idle():
                    break
            self._drain()
        except CommitFailed:
            raise
        except Exception:
            # Finished work is worth keeping, whatever stopped us.
            with suppress(CommitFailed):
                self._commit()
            raise
        finally:
            self._report(last=True)

    # Reading

    def _read(self) -> bool:
        """Read ahead if there is room; whether there may be more to read at once."""
        room = self._pool.plan_rows - self._backlog.rows
        if room < max(1, self._pool.plan_rows // 2):
            return True
        if self._progress.rows_held >= HELD_PLANS * self._pool.plan_rows:
            return False
        if time.monotonic() < self._next_read:
            return False
        chunk = self._source.read(room)
        if chunk is None:
            self._next_read = time.monotonic() + self._pool.poll_interval_s
            return False
        self._admit(chunk)
        passing("plan.read")
        return True

    def _admit(self, chunk: Chunk) -> None:
        self._progress.add(chunk.span)
        if chunk.rows.num_rows == 0:
            return
        new = self._done.admit(chunk.rows.column("clip_id"), chunk.rows.column("kafka_offset"))
        for index in np.flatnonzero(~new):
            chunk.span.finish(int(index))
        self._reporter.skipped(int((~new).sum()))
        if not self._any_split:
            self._require_split(chunk.rows.filter(pa.array(new)))
        duration_ok = self._right_duration(chunk.rows)
        to_do = np.flatnonzero(new & duration_ok)
        self._backlog.add(chunk.rows.take(to_do), to_do, chunk.span)
        dropped = np.flatnonzero(new & ~duration_ok)
        for start in range(0, len(dropped), DROPPED_AT_ONCE):
            self._drop(chunk, dropped[start : start + DROPPED_AT_ONCE])

    def _drop(self, chunk: Chunk, indices: npt.NDArray[np.int64]) -> None:
        """Give these rows of a chunk the verdict of the duration filter."""
        rows = chunk.rows.take(indices)
        works = [
            Work(rows, place, chunk.span, int(index), self._next_sequence())
            for place, index in enumerate(indices)
        ]
        results = [duration_rejected(clip, self._recipe) for clip in rows.to_pylist()]
        self._finish(works, verdicts_of(results, [work.sequence for work in works]))

    def _require_split(self, rows: pa.Table) -> None:
        """`OtherSplit` if any of these clips was cut otherwise than the recipe says."""
        wanted = self._recipe.split_fingerprint
        other = rows.filter(pc.not_equal(rows.column("split_fingerprint"), wanted)).slice(0, 1)
        for clip in other.to_pylist():
            raise OtherSplit(clip["split_fingerprint"], wanted, clip["clip_id"])

    def _right_duration(self, rows: pa.Table) -> npt.NDArray[np.bool_]:
        """Which clips the recipe's duration filter lets pass.

        Not their ``duration_ok``: the split's recipe may be an older one.
        """
        duration, duration_s = self._recipe.duration, rows.column("duration_s").to_numpy()
        passes: npt.NDArray[np.bool_] = (duration_s >= duration.min_duration) & (
            duration_s <= duration.max_duration
        )
        return passes

    # Working

    def _dispatch(self) -> None:
        while (slots := self._dispatcher.free_slots()) > 0:
            # A short backlog is spread over the free slots rather than given to one of them.
            share = -(-self._backlog.rows // slots)
            taken = self._backlog.take(
                max(1, min(self._pool.micro_batch_clips, share)),
                self._dispatcher.next_node(),
                self._workers.nodes(),
            )
            if taken is None:
                return
            rows, span, indices = taken
            self._dispatcher.submit(
                [
                    Work(rows, place, span, index, self._next_sequence())
                    for place, index in enumerate(indices)
                ]
            )

    def _scale(self) -> None:
        """Start or give up actors as the clips that wait demand."""
        now, actors = time.monotonic(), len(self._workers)
        if actors < self._asked_for:
            self._scaler.refused(now)
        paused = self._dispatcher.paused
        self._asked_for = self._scaler.wanted(
            now,
            actors=actors,
            starting=len(self._workers.starting_refs()),
            # While something that the actors need is out, more of them would only wait as well.
            waiting=0 if paused else self._backlog.rows,
            working=self._dispatcher.in_flight - self._dispatcher.held,
        )
        if self._asked_for != actors:
            logger.info("going from %d actors to %d", actors, self._asked_for)
            self._workers.resize(self._asked_for)

    def _collect(self, wait_s: float) -> None:
        finished: Finished = self._dispatcher.poll(wait_s)
        for messages in finished.frames:
            self._committer.add_frames(messages)
        for works, verdicts in finished.batches:
            self._finish(works, verdicts)
        self._report()

    def _report(self, *, last: bool = False) -> None:
        self._reporter.update(
            snapshot=self._committed.snapshot,
            in_flight=self._backlog.rows + self._dispatcher.in_flight + self._committer.pending,
            paused=self._dispatcher.paused,
            actors=len(self._workers),
            latest=self._source.latest_snapshot,
            last=last,
        )

    def _finish(self, works: list[Work], verdicts: Verdicts) -> None:
        self._committer.add_verdicts(verdicts)
        if verdicts.failures or self._done.any_failed:
            self._note_failures(works, verdicts)
        for work in works:
            work.span.finish(work.index)
        self._reporter.finished(verdicts.statuses)

    def _note_failures(self, works: list[Work], verdicts: Verdicts) -> None:
        """Remember which clips failed, and resolve the letters of those that do no more."""
        columns = ("clip_id", "kafka_offset", "enriched_at")
        ended = zip(*(verdicts.rows.column(name).to_pylist() for name in columns), strict=True)
        for work, status, (clip_id, offset, moment) in zip(
            works, verdicts.statuses, ended, strict=True
        ):
            failed = status is ClipStatus.FAILED
            if self._done.finish(clip_id, offset, failed=failed):
                self._committer.resolve(clip_id, work.sequence, moment)

    def _next_sequence(self) -> int:
        self._sequence += 1
        return self._sequence

    def _wait_s(self, more: bool) -> float:
        if more and self._dispatcher.free_slots() > 0:
            return 0.0
        return min(self._pool.poll_interval_s, self._pool.commit_interval_s)

    def _idle(self) -> bool:
        return (
            self._backlog.rows == 0
            and self._dispatcher.in_flight == 0
            and self._source.next_snapshot > self._source.latest_snapshot()
        )

    # Committing

    def _commit_if_due(self) -> None:
        if self._upkeep.runs():
            return
        if self._upkeep.due:
            # With the position in it, whatever is pending: old snapshots are about to expire.
            self._commit(even_if_nothing_new=True)
            self._upkeep.start()
            return
        due_s = self._pool.commit_interval_s if self._committer.pending else IDLE_COMMIT_S
        if time.monotonic() - self._last_commit >= due_s:
            self._commit()

    def _commit(self, *, even_if_nothing_new: bool = False) -> None:
        self._upkeep.stop()
        position = self._progress.position()
        self._last_commit = time.monotonic()
        new = self._committer.pending > 0 or position != self._committed
        if not (new or even_if_nothing_new):
            return
        with self._metrics.commit_seconds.time():
            self._committer.commit(position)
        self._upkeep.committed()
        if position.snapshot != self._committed.snapshot:
            hold_snapshots(self._lake, position.snapshot)
        self._committed = position

    def _drain(self) -> None:
        """Wait for what the actors have, up to ``drain_timeout_s``, and commit what is finished.

        The rest is given back simply by not being finished: the next start reads it again.
        """
        deadline = time.monotonic() + self._pool.drain_timeout_s
        dispatcher = self._dispatcher
        while dispatcher.in_flight > dispatcher.held and time.monotonic() < deadline:
            self._collect(min(0.2, self._pool.poll_interval_s))
            self._commit_if_due()
        self._commit()
        left = self._dispatcher.give_back() + self._backlog.rows
        if left:
            logger.info("stopped; %d clips were given back for the next start", left)
