"""Hands micro-batches to the actors, and finds out who is to blame when one fails.

A dying actor also fails the calls queued behind the guilty one, so a failed batch only makes its
clips suspects. Suspects run alone, each on an actor that has just answered, and only a failure
then counts against a clip. A fault of something we depend on pauses everything and blames nobody;
where it is the store of some videos, only their clips wait (`processors.pool.holding`).
"""

from __future__ import annotations

import logging
import random
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray

from processors.errors import MediaError
from processors.failpoints import passing
from processors.pool.actors import BatchOutcome
from processors.pool.holding import Holding
from processors.pool.progress import Span
from processors.pool.verdicts import Verdicts, from_ipc, to_ipc, verdicts_of
from processors.pool.workers import Worker, Workers
from processors.results import failed
from schemas.reasons import MediaReason
from schemas.recipe import Recipe
from schemas.settings import Settings

CALL_SLACK_S = 10.0
"""On top of what fetching, decoding and the stages may take: queueing and writing frames."""
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
"""Back-off while something we depend on is out; a minute keeps the log readable for days."""

STAGE = "pool"
"""What stands as the stage of a clip whose worker died: nobody saw which stage it was in."""

_WORTH_RETRYING = frozenset(
    {MediaReason.DECODER_CRASHED, MediaReason.DECODER_TIMEOUT, MediaReason.OUT_OF_MEMORY}
)
"""Failures inside the decoder's process that may come from the machine's state, not the clip."""

logger = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Work:
    """One clip on its way: the row of ``clips``, and where it was read."""

    rows: pa.Table
    """Rows of ``clips`` that were read together."""
    place: int
    """Which of them it is."""
    span: Span
    index: int
    sequence: int
    """``enrich_seq`` of whatever rows come of it."""
    attempts: int = 0
    """Tries that failed by its own fault."""
    holds: int = 0
    """Tries for which its video's store was out."""

    @property
    def clip(self) -> dict[str, Any]:
        """The row of ``clips``; made anew each time."""
        row: dict[str, Any] = self.rows.slice(self.place, 1).to_pylist()[0]
        return row


@dataclass
class Finished:
    """Clips with their verdicts, and the frame files that belong to them."""

    batches: list[tuple[list[Work], Verdicts]] = field(default_factory=list)
    frames: list[bytes] = field(default_factory=list)


@dataclass(eq=False)
class Call:
    """A micro-batch that an actor has."""

    works: list[Work]
    ref: Any
    allowance_s: float
    alone: bool
    submitted: float = field(default_factory=time.monotonic)


class Dispatcher:
    """Feeds the actors; single-threaded, never blocks longer than asked (but for the start)."""

    def __init__(self, workers: Workers, recipe: Recipe, settings: Settings) -> None:
        self._workers = workers
        self._recipe = recipe
        self._settings = settings
        self._per_actor = settings.pool.calls_in_flight
        self._waiting: deque[list[Work]] = deque()
        """Batches that a fault sent back; nobody is to blame."""
        self._suspects: deque[Work] = deque()
        self._holding = Holding()
        self._paused_until = 0.0
        self._pause_s = 0.0
        self._finished = Finished()

    @property
    def in_flight(self) -> int:
        """Clips handed in with `submit` that `poll` has not given back."""
        running = sum(len(call.works) for worker in self._workers for call in worker.calls)
        waiting = sum(len(batch) for batch in self._waiting) + len(self._suspects)
        return running + waiting + self.held

    @property
    def held(self) -> int:
        """Clips among them that wait for the store of their video."""
        return len(self._holding)

    @property
    def paused(self) -> bool:
        """Whether nothing is done, as something that is needed is out."""
        return self._pausing or 0 < self.held == self.in_flight

    @property
    def _pausing(self) -> bool:
        return time.monotonic() < self._paused_until

    def free_slots(self) -> int:
        """Micro-batches that can be submitted now without queueing deeper than is allowed."""
        if self._pausing or self._waiting or self._suspects:
            return 0
        return sum(
            max(0, self._per_actor - len(worker.calls))
            for worker in self._workers.ready()
            if not any(call.alone for call in worker.calls)
        )

    def next_node(self) -> str:
        """Where `submit` is going to hand a micro-batch to; empty if nothing is free."""
        worker = self._workers.least_loaded(self._per_actor)
        return "" if worker is None else worker.node_id

    def submit(self, works: list[Work]) -> None:
        """Hand a micro-batch to the least loaded actor; ask `free_slots` first."""
        self._waiting.append(works)
        self._feed()

    def poll(self, timeout_s: float) -> Finished:
        """What has finished, after waiting at most ``timeout_s`` for the first of it.

        `StageStartError` or `PoolUnavailable` if an actor cannot be brought back.
        """
        self._feed()
        refs = [call.ref for worker in self._workers for call in worker.calls]
        refs += self._workers.starting_refs()
        if not refs:
            time.sleep(timeout_s)
        else:
            ready, _ = ray.wait(refs, num_returns=1, timeout=timeout_s)
            if ready:
                ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
                self._collect(set(ready))
        self._workers.check_started()
        self._kill_hanging()
        self._feed()
        finished, self._finished = self._finished, Finished()
        return finished

    # Feeding

    def _feed(self) -> None:
        if self._pausing:
            return
        self._waiting.extend(self._holding.take_due())
        while self._suspects:
            worker = next((w for w in self._workers.ready() if not w.calls), None)
            if worker is None:
                return
            if not self._workers.answers(worker):
                continue
            self._call(worker, [self._suspects.popleft()], alone=True)
        while self._waiting:
            worker = self._workers.least_loaded(self._per_actor)
            if worker is None:
                return
            self._call(worker, self._waiting.popleft(), alone=False)

    def _call(self, worker: Worker, works: list[Work], *, alone: bool) -> None:
        rows = _rows(works)
        ref = worker.actor.run.remote(
            to_ipc(rows), [work.sequence for work in works], [work.attempts for work in works]
        )
        worker.calls.append(Call(works, ref, self._allowance(rows, worker.longest_s), alone))
        passing("batch.submitted")

    def _allowance(self, rows: pa.Table, longest_s: float) -> float:
        """Seconds after which a call hangs: fetching each video, then each clip, and slack.

        The limits inside the actor are tighter and blame better; this is for an actor that is
        itself stuck.
        """
        decode, fetch = self._settings.decode, self._settings.fetch
        videos = pc.count_distinct(rows.column("video_key")).as_py()
        # Another actor that fetches the same video is waited for as long as that may take, and
        # after our own deadline the store itself is asked whether it is there.
        a_video_s = 2 * fetch.deadline_s + fetch.connect_timeout_s + fetch.read_timeout_s
        a_clip_s = decode.deadline_base_s + self._settings.pool.stages_deadline_s + longest_s
        clips_s = decode.deadline_per_video_second_s * pc.sum(rows.column("duration_s")).as_py()
        allowance: float = CALL_SLACK_S + videos * a_video_s + rows.num_rows * a_clip_s + clips_s
        return allowance

    # Collecting

    def _collect(self, ready: set[Any]) -> None:
        for worker in list(self._workers):
            lost: BaseException | None = None
            for call in [call for call in worker.calls if call.ref in ready]:
                try:
                    outcome: BatchOutcome = ray.get(call.ref)
                except ray.exceptions.RayTaskError as error:
                    # The actor lives; the call's arguments or results did not pass.
                    outcome = BatchOutcome(error=f"the call failed: {error}")
                except ray.exceptions.RayError as error:
                    lost = error
                    continue
                worker.calls.remove(call)
                self._take(call, outcome)
            if lost is not None:
                self._actor_lost(worker, lost)

    def _take(self, call: Call, outcome: BatchOutcome) -> None:
        if outcome.fault is not None:
            self._waiting.appendleft(call.works)
            self._pause(outcome.fault)
            return
        self._pause_s = 0.0
        if outcome.error is not None:
            self._suspect(call, MediaReason.STAGE_ERROR, outcome.error)
            return
        if outcome.frames is not None:
            self._finished.frames.append(outcome.frames)
        assert outcome.rows is not None
        verdicts = Verdicts(from_ipc(outcome.rows), outcome.statuses, outcome.failures)
        again = self._hold(call.works, outcome.held) | self._retry(call.works, outcome)
        works = call.works
        if again:
            places = [place for place in range(len(works)) if place not in again]
            works, verdicts = [works[place] for place in places], verdicts.select(places)
        self._finished.batches.append((works, verdicts))

    def _hold(self, works: list[Work], held: Mapping[int, str]) -> set[int]:
        """Have clips wait for the store of their video; their places in the batch."""
        if held:
            self._holding.add([works[place] for place in held], list(held.values())[-1])
        return set(held)

    def _retry(self, works: list[Work], outcome: BatchOutcome) -> set[int]:
        """Have clips run alone whose failure may pass; their places in the batch."""
        again = set()
        for place, failure in outcome.failures.items():
            retry = failure.get("retryable") or failure.get("reason") in _WORTH_RETRYING
            work = works[place]
            if place in outcome.held or not retry:
                continue
            if work.attempts + 1 < self._settings.pool.attempts:
                work.attempts += 1
                self._suspects.append(work)
                again.add(place)
        return again

    def _pause(self, why: str) -> None:
        if self._pausing:
            return
        self._pause_s = min(LONGEST_PAUSE_S, self._pause_s * 2 or FIRST_PAUSE_S)
        wait_s = self._pause_s * random.uniform(0.5, 1.0)
        self._paused_until = time.monotonic() + wait_s
        logger.warning("waiting %.1f s, no clip is to blame: %s", wait_s, why)

    def _suspect(self, call: Call, reason: MediaReason, error: str) -> None:
        """Clips of a failed call run alone next; one that was alone has had a try of its own."""
        if not call.alone:
            logger.warning(
                "a batch of %d clips failed, each runs alone: %s", len(call.works), error
            )
            self._suspects.extend(call.works)
            return
        work = call.works[0]
        work.attempts += 1
        if work.attempts < self._settings.pool.attempts:
            self._suspects.append(work)
            return
        clip = work.clip
        logger.warning("clip %s is given up (%s): %s", clip["clip_id"], reason, error)
        blame = MediaError(reason, error, stage=STAGE, retryable=True)
        result = failed(clip, self._recipe, blame, attempts=work.attempts)
        self._finished.batches.append(([work], verdicts_of([result], [work.sequence])))

    # Actors that die or hang

    def _actor_lost(self, worker: Worker, error: BaseException) -> None:
        calls, worker.calls = list(worker.calls), deque()
        reason = MediaReason.DECODER_TIMEOUT if worker.hung else MediaReason.DECODER_CRASHED
        if isinstance(error, ray.exceptions.OutOfMemoryError):
            reason = MediaReason.OUT_OF_MEMORY
        text = (
            "the worker did not answer in time and was killed"
            if worker.hung
            else f"the worker died: {_first_lines(error)}"
        )
        node_gone = self._workers.node_is_gone(worker)
        for call in calls:
            if node_gone:
                self._waiting.appendleft(call.works)
            else:
                self._suspect(call, reason, text)
        if node_gone:
            logger.warning("node %s is gone, its clips go to others", worker.node_id)
        self._workers.restart(worker)

    def _kill_hanging(self) -> None:
        now = time.monotonic()
        for worker in self._workers:
            if not worker.calls or worker.hung:
                continue
            # Each call by its own clock: others beside it may answer all the while. They take
            # turns at decoders and models, so each gets the time of all.
            turns = self._per_actor
            limits = [c.allowance_s * (1 if c.alone else turns) for c in worker.calls]
            over = [
                limit
                for call, limit in zip(worker.calls, limits, strict=True)
                if now - call.submitted > limit
            ]
            if over:
                logger.warning("a call has not come back for %.0f s, killing its actor", over[0])
                worker.hung = True
                # ray.cancel does not stop an actor that hangs in C code; its process has to go.
                ray.kill(worker.actor, no_restart=False)

    def give_back(self) -> int:
        """Forget what is in flight, for whoever reads the source next; how many clips it was."""
        left = self.in_flight
        self._waiting.clear()
        self._suspects.clear()
        self._holding.clear()
        for worker in self._workers:
            worker.calls.clear()
        return left


def _rows(works: Sequence[Work]) -> pa.Table:
    """The rows of ``clips`` of these works, in their order."""
    first, count = works[0], len(works)
    if all(w.rows is first.rows and w.place == first.place + i for i, w in enumerate(works)):
        return first.rows.slice(first.place, count)
    return pa.concat_tables([work.rows.slice(work.place, 1) for work in works])


def _first_lines(error: BaseException, count: int = 12) -> str:
    lines: Iterable[str] = (line.strip() for line in str(error).splitlines())
    return " ".join([line for line in lines if line][:count])[:1000]
