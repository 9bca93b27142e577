"""Chains as an actor of the pool hosts them, set up for a benchmark, and kept busy for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import cycle, islice
from typing import Any, ClassVar

import yaml

from benchmarks.gpu_meter import Done, Window, window
from benchmarks.tasks import file_row
from processors.chain import ClipResult, EnrichmentChain
from processors.clip_pass import DecodedClip
from processors.clip_reader import ClipSpan
from processors.clip_work import ClipWork
from processors.errors import MediaError
from processors.shared_batches import SharedBatches
from processors.stage import Sample
from schemas.operators import MotionScoreFilter
from schemas.recipe import Recipe, parse_recipe
from schemas.settings import Settings, load_settings

_DEADLINE_S = 600.0
_LONGEST_WARM_UP_S = 25.0


def recipe_of(job: Mapping[str, Any]) -> Recipe:
    text = yaml.safe_dump({"process": job["process"]})
    return parse_recipe(text, where="the benchmark", default_name="benchmark")


def settings_of(
    job: Mapping[str, Any], size: Sequence[int], *, decoders: int = 1, calls: int = 2
) -> Settings:
    """``size``: frames and clips of the models' batches; the rest is as in production."""
    frames, clips = size
    return load_settings(
        None,
        fetch={"file_roots": [job["inputs"]]},
        decode={"deadline_base_s": _DEADLINE_S},
        local={"state_dir": job["folder"]},
        models={"frames_per_batch": frames, "clips_per_batch": clips},
        pool={"decoders_per_actor": decoders, "calls_in_flight": calls},
    )


class OnDecodedFrames(EnrichmentChain):
    """The stages on clips that were decoded before: nothing is fetched or decoded in `run`."""

    _given: ClassVar[dict[str, DecodedClip]] = {}
    """By URI. Of all chains of the process, which have one recipe: none decodes anew."""

    def give(self, paths: Sequence[str]) -> list[dict[str, Any]]:
        """Decode clips that are whole files, as the actor does; their rows."""
        rows = [file_row(path, self._recipe) for path in paths]
        with self._decoder() as decoder:
            for path, row in zip(paths, rows, strict=True):
                if row["uri"] not in self._given:
                    (decoded,) = decoder.decode(path, [ClipSpan.of_row(row)])
                    if isinstance(decoded, MediaError):
                        raise RuntimeError(f"{path}: {decoded}")
                    self._given[row["uri"]] = decoded
        return rows

    def models(self) -> dict[str, SharedBatches]:
        """The model stages by their names."""
        return {batches.stage.name: batches for batches in self._stages.values()}

    def sample(self, row: Mapping[str, Any]) -> Sample:
        """What a stage is given of a clip."""
        return {**row, **self._given[row["uri"]].images}

    def _decode(self, works: list[ClipWork], held: ExitStack) -> None:
        for work in works:
            decoded = replace(self._given[work.clip["uri"]])
            work.take_decoded(decoded, self._models.get(MotionScoreFilter.stage))


@contextmanager
def ready(chain: EnrichmentChain) -> Iterator[None]:
    """The chain is set up inside."""
    try:
        chain.setup()
        yield
    finally:
        chain.close()


def done_of(results: Sequence[ClipResult]) -> Done:
    """What a micro-batch comes to; a clip that failed ends the benchmark."""
    done = Done(tokens=0)
    for result in results:
        if result.failure:
            raise RuntimeError(f"a clip failed: {result.failure['error']}")
        row = result.enriched
        done.add(Done(1, row["duration_s"], 0, row["caption_tokens"]))
    return done


def alone(batches: SharedBatches, samples: Sequence[Sample], seconds: float) -> tuple[Done, Window]:
    """One stage on full batches for some seconds; two batches are handed in at a time."""
    stage, some = batches.stage, cycle(samples)
    weight = stage.weight(samples[0])
    taken = list(islice(some, 2 * max(1, stage.batch_size // weight)))
    frames = stage.frames()
    once = Done(len(taken), sum(s["duration_s"] for s in taken))
    if frames is not None:
        once.frames = sum(len(s[frames.column]) for s in taken)
    batches.run(taken)
    done = Done()
    with window() as took:
        end = time.monotonic() + seconds
        while not done.clips or time.monotonic() < end:
            scored = batches.run(taken)
            done.add(once)
            for one in scored:
                if isinstance(one.outcome, MediaError):
                    raise one.outcome
                if "caption_tokens" in one.outcome:
                    done.tokens = (done.tokens or 0) + one.outcome["caption_tokens"]
    return done, took


def kept_busy(run: Callable[[], Done], calls: int, seconds: float) -> tuple[Done, Window]:
    """``calls`` threads that call ``run`` again and again; what ends within a window counts.

    The window begins once as many calls have come back, but is not waited for longer than
    `_LONGEST_WARM_UP_S` after the first.
    """
    busy = _Busy(run)
    threads = [threading.Thread(target=busy.keep, daemon=True) for _ in range(calls)]
    for thread in threads:
        thread.start()
    try:
        busy.wait_until(lambda: busy.finished >= 1)
        end = time.monotonic() + _LONGEST_WARM_UP_S
        busy.wait_until(lambda: busy.finished >= calls or time.monotonic() > end)
        with window() as took:
            before = busy.so_far()
            until = time.monotonic() + seconds
            # Work that takes longer than the window still has its one call in it.
            first = busy.finished
            busy.wait_until(lambda: busy.finished > first and time.monotonic() > until)
            after = busy.so_far()
    finally:
        busy.stopped.set()
        for thread in threads:
            thread.join()
    if busy.error is not None:
        raise busy.error
    tokens = (after.tokens or 0) - (before.tokens or 0)
    return Done(after.clips - before.clips, after.video_s - before.video_s, 0, tokens), took


class _Busy:
    """Threads that work until they are stopped, and what they have done."""

    def __init__(self, run: Callable[[], Done]) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._done = Done()
        self.finished = 0
        self.error: BaseException | None = None
        self.stopped = threading.Event()

    def keep(self) -> None:
        while not self.stopped.is_set():
            try:
                done = self._run()
            except BaseException as error:
                self.error = error
                self.stopped.set()
                return
            with self._lock:
                self._done.add(done)
                self.finished += 1

    def so_far(self) -> Done:
        with self._lock:
            return replace(self._done)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        while not condition() and not self.stopped.is_set():
            time.sleep(0.02)
