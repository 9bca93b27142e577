"""One stage for several micro-batches at a time: what comes of them waits for a full batch.

Gates leave few clips of a micro-batch, and a GPU wants many at once. Whoever has samples for the
stage hands them in and waits; a thread of the stage's own takes what has come together, and never
more than the stage's batch size: what is handed in may go through in several batches. A stage never
sees two calls at once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from processors.stage import Outcome, Sample, Stage

logger = logging.getLogger(__name__)


@dataclass
class Scored:
    """What came of a sample, and its share of what the batch took."""

    outcome: Outcome
    wall_s: float
    cpu_s: float


@dataclass(eq=False)
class _Request:
    samples: deque[tuple[Sample, int]]
    """Those that are in no batch yet, with their weights in the unit of the batch size."""
    scored: list[Scored] = field(default_factory=list)
    """Of the samples before those."""
    done: Future[list[Scored]] = field(default_factory=Future)
    came: float = field(default_factory=time.monotonic)

    @property
    def weight(self) -> int:
        return sum(weight for _, weight in self.samples)


class SharedBatches:
    """Runs one stage for many callers. `close` ends its thread, and closes the stage."""

    def __init__(self, stage: Stage, *, wait_s: float, active: Callable[[], int]) -> None:
        """``wait_s`` is how long a batch that is not full waits for more of it; ``active()``, how
        many callers there are in all: once they all wait here, waiting on is in vain."""
        self.stage = stage
        self._wait_s = wait_s
        self._active = active
        self._waiting: deque[_Request] = deque()
        self._changed = threading.Condition()
        self._at_work = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name=f"stage-{stage.name}", daemon=True)
        self._thread.start()

    def run(self, samples: Sequence[Sample]) -> list[Scored]:
        """The outputs of each sample, in order; whatever the stage raises, for all of them.

        Another caller's samples in the same batch may have caused it: who is to blame shows when
        each runs alone.
        """
        if not samples:
            return []
        request = _Request(deque((sample, self.stage.weight(sample)) for sample in samples))
        with self._changed:
            if self._closed:
                raise RuntimeError(f"stage {self.stage.name} is closed")
            self._waiting.append(request)
            self._changed.notify_all()
        return request.done.result()

    def run_alone(self, samples: Sequence[Sample]) -> list[Scored]:
        """As `run`, with nobody else's samples in the batch, and at once."""
        return self._run(samples)

    def ping(self) -> None:
        """`Stage.ping`, not at the same time as a batch."""
        with self._at_work:
            self.stage.ping()

    def look_again(self) -> None:
        """``active()`` has another answer now."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        close_stage(self.stage)

    def _serve(self) -> None:
        while batch := self._next_batch():
            try:
                scored = self._run([sample for _, sample in batch])
            except BaseException as error:
                self._fail({request for request, _ in batch}, error)
                continue
            for (request, _), one in zip(batch, scored, strict=True):
                request.scored.append(one)
            for request in {request for request, _ in batch}:
                if not request.samples:
                    request.done.set_result(request.scored)

    def _fail(self, requests: set[_Request], error: BaseException) -> None:
        """What they have left does not come up any more."""
        with self._changed:
            self._waiting = deque(r for r in self._waiting if r not in requests)
        for request in requests:
            request.done.set_exception(error)

    def _next_batch(self) -> list[tuple[_Request, Sample]]:
        """What goes through the stage next; nothing once it is closed and nobody waits.

        A sample that alone weighs more than a batch is a batch of its own.
        """
        with self._changed:
            while not self._is_due():
                since = self._waiting[0].came if self._waiting else None
                self._changed.wait(None if since is None else self._left_s(since))
            batch: list[tuple[_Request, Sample]] = []
            left = self._size
            while self._waiting:
                request = self._waiting[0]
                sample, weight = request.samples[0]
                if batch and weight > left:
                    break
                left -= weight
                batch.append((request, sample))
                request.samples.popleft()
                if not request.samples:
                    self._waiting.popleft()
            return batch

    def _is_due(self) -> bool:
        if not self._waiting:
            return self._closed
        return (
            self._closed
            or sum(request.weight for request in self._waiting) >= self._size
            or len(self._waiting) >= self._active()
            or self._left_s(self._waiting[0].came) <= 0
        )

    @property
    def _size(self) -> int:
        return self.stage.batch_size

    def _left_s(self, since: float) -> float:
        return since + self._wait_s - time.monotonic()

    def _run(self, samples: Sequence[Sample]) -> list[Scored]:
        with self._at_work:
            cpu, wall = time.thread_time(), time.perf_counter()
            results = self.stage.run(samples)
            cpu, wall = time.thread_time() - cpu, time.perf_counter() - wall
        weights = [self.stage.weight(sample) for sample in samples]
        return [
            Scored(result, wall * weight / sum(weights), cpu * weight / sum(weights))
            for result, weight in zip(results, weights, strict=True)
        ]


def close_stage(stage: Stage) -> None:
    """`Stage.close`; an error of it is logged, and keeps nothing else from being closed."""
    try:
        stage.close()
    except Exception:
        logger.exception("stage %s cannot be closed", stage.name)
