"""The enrichment of clips: decode once, score, judge, in the order of the recipe.

It takes rows of ``clips`` and gives a `ClipResult` for each. It knows no Ray and no lake: the
pool hosts it, and `cliplake try` runs it in its own process.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import reduce
from itertools import groupby
from operator import or_
from queue import SimpleQueue
from typing import Any

from processors.clip_decoder import ClipDecoder
from processors.clip_files import ClipFiles
from processors.clip_pass import STAGE as DECODE
from processors.clip_reader import ClipSpan
from processors.clip_work import ClipWork
from processors.errors import DependencyFault, MediaError
from processors.failpoints import passing
from processors.fetch import Fetcher
from processors.file_groups import in_groups
from processors.gates import Gate, gate_of
from processors.media.sandbox import Sandbox
from processors.motion import MODEL_NAME as MOTION_MODEL
from processors.motion import motion_revision
from processors.planning import decode_plan, find, stages_of
from processors.results import ClipResult, duration_rejected
from processors.shared_batches import SharedBatches, close_stage
from processors.stage import FileRequest, ModelIdentity
from processors.stores import StoreOut
from schemas.operators import MotionScoreFilter, Operator
from schemas.reasons import MediaReason
from schemas.recipe import Recipe
from schemas.settings import Settings

__all__ = ["ClipResult", "EnrichmentChain", "StageDescription", "duration_rejected"]

FETCH = "fetch"


@dataclass(frozen=True)
class StageDescription:
    """A stage of a chain that is set up, for the lines that are printed at the start."""

    stage: str
    operator: str
    model: str | None
    revision: str | None
    on_gpu: bool = False
    no_gpu: str = ""
    """Why it found no GPU; empty if it has one or no use for one."""

    def __str__(self) -> str:
        named = f" with {self.model} ({self.revision})" if self.model else ""
        place = "GPU" if self.on_gpu else "CPU"
        why = f", no GPU: {self.no_gpu}" if self.no_gpu else ""
        return f"{self.stage} by {self.operator}{named} on the {place}{why}"


class EnrichmentChain:
    """A recipe's operators after the split, ready to judge clips.

    `setup` once, `run` as often as there are clips, also from several threads, which then share
    the models' batches; `close` at the end.
    """

    def __init__(self, recipe: Recipe, settings: Settings) -> None:
        self._recipe = recipe
        self._settings = settings
        self._steps = [(operator, gate_of(operator)) for operator in recipe.operators]
        self._stages: dict[str, SharedBatches] = {}
        """By operator."""
        self._models: dict[str, ModelIdentity] = {}
        """By stage."""
        self._sandboxes: list[Sandbox] = []
        self._decoders: SimpleQueue[ClipDecoder] = SimpleQueue()
        """Those that are free."""
        self._fetcher: Fetcher | None = None
        self._runs = 0
        """Calls of `run` that are under way."""
        self._runs_lock = threading.Lock()
        self._files: ClipFiles | None = None
        """None: no stage opens files."""
        self._opening = range(len(self._steps), len(self._steps))
        """Places of the steps from the first to the last that opens files."""

    def setup(self) -> None:
        """Load every model. `StageStartError`, one line, if any stage cannot start."""
        stages = stages_of(self._recipe, self._settings)
        # All of them first: loading one takes minutes, and another that is missing is known now.
        for stage in stages.values():
            stage.find_model()
        with ExitStack() as started:
            for stage in stages.values():
                # A setup that fails half-way has something to let go of as well.
                started.callback(close_stage, stage)
                stage.setup()
                if stage.model is not None:
                    self._models[stage.name] = stage.model
            started.pop_all()
        motion = find(self._recipe, MotionScoreFilter)
        if motion is not None:
            self._models[motion.stage] = ModelIdentity(MOTION_MODEL, motion_revision())
        plan = decode_plan(self._recipe, list(stages.values()))
        for _ in range(self._settings.pool.decoders_per_actor):
            sandbox = Sandbox(self._settings.decode, modules=plan.modules)
            self._sandboxes.append(sandbox)
            self._decoders.put(ClipDecoder(sandbox, plan))
        self._fetcher = Fetcher(
            self._settings.fetch, self._settings.scratch_dir, keep_for="enrichment"
        )
        wanted = reduce(or_, (stage.files() for stage in stages.values()), FileRequest())
        if wanted:
            settings = self._settings
            self._files = ClipFiles(
                settings.decode,
                settings.scratch_dir,
                wanted,
                plan.frames,
                give_room=self._fetcher.give_room,
            )
            opening = {name for name, stage in stages.items() if stage.files()}
            places = [i for i, (operator, _) in enumerate(self._steps) if operator.op in opening]
            self._opening = range(places[0], places[-1] + 1)
        wait_s = self._settings.models.batch_wait_s
        self._stages = {
            operator: SharedBatches(stage, wait_s=wait_s, active=lambda: self._runs)
            for operator, stage in stages.items()
        }

    @property
    def longest_s(self) -> float:
        """Seconds that one clip may take by the stages' own limits, after `setup`."""
        return sum(batches.stage.longest_s() for batches in self._stages.values())

    def close(self) -> None:
        """End the decoders' processes and let go of the models."""
        for stage in self._stages.values():
            stage.close()
        if self._files is not None:
            self._files.close()
        if self._fetcher is not None:
            self._fetcher.close()
        for sandbox in self._sandboxes:
            sandbox.close()
        self._sandboxes, self._stages = [], {}
        self._decoders = SimpleQueue()
        self._fetcher = self._files = None

    def describe(self) -> list[StageDescription]:
        """The stages in the recipe's order with their models; call it after `setup`."""
        return [self._described(operator) for operator, _ in self._steps]

    def _described(self, operator: Operator) -> StageDescription:
        model, shared = self._models.get(operator.stage), self._stages.get(operator.op)
        return StageDescription(
            operator.stage,
            operator.op,
            model=None if model is None else model.name,
            revision=None if model is None else model.revision,
            on_gpu=shared is not None and shared.stage.on_gpu,
            no_gpu="" if shared is None else shared.stage.no_gpu,
        )

    def run(self, clips: Sequence[Mapping[str, Any]]) -> list[ClipResult]:
        """One result a clip, in order. Clips of one video should be adjacent: it is fetched once.

        ``clips`` are rows of the table ``clips`` that passed the duration filter. What is wrong
        with a clip is its own ``failed`` result, which is ``held`` if the store of its video is
        out; `DependencyFault` says that nothing was judged.
        """
        works = [ClipWork(clip) for clip in clips]
        # Videos of which clips may have to be cut.
        with self._under_way(), ExitStack() as held:
            for _, group in groupby(works, key=lambda w: (w.clip["video_key"], w.clip["uri"])):
                self._decode(list(group), held)
            self._run_steps(works, held)
            return [work.result(self._recipe) for work in works]

    @contextmanager
    def _under_way(self) -> Iterator[None]:
        """Count a run while it lasts: a batch waits only for runs that may still add to it."""
        with self._runs_lock:
            self._runs += 1
        try:
            yield
        finally:
            with self._runs_lock:
                self._runs -= 1
            for stage in self._stages.values():
                stage.look_again()

    def _run_steps(self, works: list[ClipWork], held: ExitStack) -> None:
        """All steps in order; those with files between them over a group of clips at a time."""
        first, end = self._opening.start, self._opening.stop
        self._run_some(self._steps[:first], works)
        if self._files is not None:
            with closing(in_groups(self._files, self._alive(works))) as groups:
                for group in groups:
                    self._run_some(self._steps[first:end], group)
        held.close()
        self._run_some(self._steps[end:], works)

    def _run_some(
        self, steps: Sequence[tuple[Operator, Gate | None]], works: list[ClipWork]
    ) -> None:
        for operator, gate in steps:
            alive = self._alive(works)
            batches = self._stages.get(operator.op)
            if batches is not None and alive:
                self._score(batches, alive)
            if gate is not None:
                for work in alive:
                    work.judge(gate)

    def _alive(self, works: list[ClipWork]) -> list[ClipWork]:
        """Those to be scored further: not what a gate rejected, unless the recipe says so."""
        return [
            work
            for work in works
            if work.error is None and (work.rejected is None or self._recipe.score_rejected)
        ]

    def _decode(self, works: list[ClipWork], held: ExitStack) -> None:
        """Fetch the video that these clips are of, and decode them."""
        if self._fetcher is None:
            raise RuntimeError("setup has not been called")
        clip = works[0].clip
        cpu, wall = time.thread_time(), time.perf_counter()
        fetch_s = 0.0
        try:
            with ExitStack() as opened:
                media = opened.enter_context(
                    self._fetcher.fetch(clip["uri"], expected_sha256=clip.get("content_sha256"))
                )
                fetch_s = time.perf_counter() - wall
                with self._decoder() as decoder:
                    outcomes = decoder.decode(
                        str(media.path), [ClipSpan.of_row(work.clip) for work in works]
                    )
                passing("decode.done")
                if self._files is not None:
                    for work in works:
                        work.media = str(media.path)
                    held.push(opened.pop_all())
        except StoreOut as fault:
            for work in works:
                work.hold(fault)
            return
        except MediaError as error:
            for work in works:
                work.fail(error, FETCH)
            return
        shared_cpu_s = (time.thread_time() - cpu) / len(works)
        for work, outcome in zip(works, outcomes, strict=True):
            work.cpu_s += shared_cpu_s
            work.seconds[FETCH] = fetch_s / len(works)
            if isinstance(outcome, MediaError):
                work.fail(outcome, DECODE)
            else:
                work.take_decoded(outcome, self._models.get(MotionScoreFilter.stage))

    @contextmanager
    def _decoder(self) -> Iterator[ClipDecoder]:
        """A decoder for the caller alone, once one is free."""
        decoder = self._decoders.get()
        try:
            yield decoder
        finally:
            self._decoders.put(decoder)

    def _score(self, batches: SharedBatches, works: list[ClipWork]) -> None:
        """Run a stage; a clip is blamed only for what comes back when it runs alone."""
        try:
            scored = batches.run([work.sample for work in works])
        except DependencyFault:
            raise
        except Exception:
            for work in works:
                self._score_alone(batches, work)
        else:
            for work, result in zip(works, scored, strict=True):
                work.take_scored(batches.stage, result)

    def _score_alone(self, batches: SharedBatches, work: ClipWork) -> None:
        stage = batches.stage
        try:
            work.take_scored(stage, *batches.run_alone([work.sample]))
        except DependencyFault:
            raise
        except Exception as error:
            try:
                batches.ping()
            except Exception as broken:
                raise DependencyFault(
                    f"stage {stage.name} is broken: {type(broken).__name__}: {broken}"
                ) from error
            if not isinstance(error, MediaError):
                text = f"{type(error).__name__}: {error}"
                error = MediaError(MediaReason.STAGE_ERROR, text, retryable=True)
            work.fail(error, stage.name)
