"""The enrichment of clips: decode once, score, judge, in the order of the recipe.

It takes rows of ``clips`` and gives a `ClipResult` for each. It knows no Ray and no lake: the
pool hosts it, and `cliplake try` runs it in its own process.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import reduce
from itertools import groupby
from operator import or_
from queue import SimpleQueue
from typing import Any

from processors.clip_decoder import ClipDecoder
from processors.clip_files import MAX_FILE_BYTES, ClipFiles
from processors.clip_files import STAGE as CUT
from processors.clip_pass import STAGE as DECODE
from processors.clip_pass import DecodedClip
from processors.clip_reader import ClipSpan
from processors.errors import DependencyFault, MediaError
from processors.fetch import Fetcher
from processors.gates import Gate, gate_of
from processors.media.sandbox import Sandbox
from processors.motion import MODEL_NAME as MOTION_MODEL
from processors.motion import motion_revision
from processors.planning import decode_plan, find, stages_of
from processors.quality import aggregate
from processors.results import ClipResult, duration_rejected, failed, passed, rejected
from processors.shared_batches import Scored, SharedBatches
from processors.stage import FileRequest, ModelIdentity, Sample, Stage
from schemas.operators import MotionScoreFilter, NsfwFilter
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


@dataclass
class _Work:
    """One clip on its way through the chain."""

    clip: Mapping[str, Any]
    media: str | None = None
    """Path of the video, as long as a stage may want files of the clip."""
    has_files: bool = False
    decoded: DecodedClip | None = None
    sample: Sample = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)
    """Columns of ``enriched_clips`` that were measured."""
    error: MediaError | None = None
    rejected: str | None = None
    cpu_s: float = 0.0
    gpu_s: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)


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

    def setup(self) -> None:
        """Load every model. `StageStartError`, one line, if any stage cannot start."""
        stages = stages_of(self._recipe, self._settings)
        for stage in stages.values():
            stage.setup()
            if stage.model is not None:
                self._models[stage.name] = stage.model
        motion = find(self._recipe, MotionScoreFilter)
        if motion is not None:
            self._models[motion.stage] = ModelIdentity(MOTION_MODEL, motion_revision())
        plan = decode_plan(self._recipe, list(stages.values()))
        for _ in range(self._settings.pool.decoders_per_actor):
            sandbox = Sandbox(self._settings.decode, modules=plan.modules)
            self._sandboxes.append(sandbox)
            self._decoders.put(ClipDecoder(sandbox, plan))
        wanted = reduce(or_, (stage.files() for stage in stages.values()), FileRequest())
        if wanted:
            writing = Sandbox(self._settings.decode, max_file_bytes=MAX_FILE_BYTES)
            self._sandboxes.append(writing)
            self._files = ClipFiles(writing, self._settings.scratch_dir, wanted, plan.frames)
        self._fetcher = Fetcher(self._settings.fetch, self._settings.scratch_dir)
        wait_s = self._settings.models.batch_wait_s
        self._stages = {
            operator: SharedBatches(stage, wait_s=wait_s, active=lambda: self._runs)
            for operator, stage in stages.items()
        }

    def close(self) -> None:
        """End the decoders' processes and let go of the models."""
        for stage in self._stages.values():
            stage.close()
        if self._files is not None:
            self._files.close()
        for sandbox in self._sandboxes:
            sandbox.close()
        self._sandboxes, self._stages = [], {}
        self._decoders = SimpleQueue()
        self._fetcher = self._files = None

    def describe(self) -> list[StageDescription]:
        """The stages in the recipe's order with their models; call it after `setup`."""
        return [
            StageDescription(
                operator.stage,
                operator.op,
                getattr(self._models.get(operator.stage), "name", None),
                getattr(self._models.get(operator.stage), "revision", None),
            )
            for operator, _ in self._steps
        ]

    def run(self, clips: Sequence[Mapping[str, Any]]) -> list[ClipResult]:
        """One result a clip, in order. Clips of one video should be adjacent: it is fetched once.

        ``clips`` are rows of the table ``clips`` that passed the duration filter. What is wrong
        with a clip is its own ``failed`` result; `DependencyFault` says that nothing was judged.
        """
        works = [_Work(clip) for clip in clips]
        # Videos, and files of clips, that have to stay until the stages have run.
        with self._under_way(), ExitStack() as held:
            for _, group in groupby(works, key=lambda w: (w.clip["video_key"], w.clip["uri"])):
                self._decode(list(group), held)
            self._run_steps(works, held)
            return [self._result(work) for work in works]

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

    def _run_steps(self, works: list[_Work], held: ExitStack) -> None:
        for operator, gate in self._steps:
            # A clip that a gate rejected is not scored further, unless the recipe says so.
            alive = [
                work
                for work in works
                if work.error is None and (work.rejected is None or self._recipe.score_rejected)
            ]
            batches = self._stages.get(operator.op)
            if batches is not None:
                alive = self._with_files(batches.stage, alive, held)
            if batches is not None and alive:
                self._score(batches, alive)
                for work in alive:
                    if work.error is None:
                        work.rejected = work.rejected or batches.stage.rejects(work.sample)
            if gate is not None:
                for work in alive:
                    _judge(gate, work)

    def _with_files(self, stage: Stage, works: list[_Work], held: ExitStack) -> list[_Work]:
        """The clips that have the files which the stage opens; they are written once a clip."""
        if self._files is None or not stage.files():
            return works
        for work in works:
            if work.has_files or work.media is None:
                continue
            cpu, wall = time.thread_time(), time.perf_counter()
            try:
                span = ClipSpan.of_row(work.clip)
                work.sample.update(self._files.write(work.media, span, held))
                work.has_files = True
            except MediaError as error:
                error.stage = error.stage or CUT
                work.error = error
            work.cpu_s += time.thread_time() - cpu
            work.seconds[CUT] = time.perf_counter() - wall
        return [work for work in works if work.error is None]

    def _decode(self, works: list[_Work], held: ExitStack) -> None:
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
                if self._files is not None:
                    for work in works:
                        work.media = str(media.path)
                    held.push(opened.pop_all())
        except MediaError as error:
            error.stage = error.stage or FETCH
            for work in works:
                work.error = error
            return
        shared_cpu_s = (time.thread_time() - cpu) / len(works)
        for work, outcome in zip(works, outcomes, strict=True):
            work.cpu_s += shared_cpu_s
            work.seconds[FETCH] = fetch_s / len(works)
            if isinstance(outcome, MediaError):
                outcome.stage = outcome.stage or DECODE
                work.error = outcome
            else:
                self._take_in(work, outcome)

    @contextmanager
    def _decoder(self) -> Iterator[ClipDecoder]:
        """A decoder for the caller alone, once one is free."""
        decoder = self._decoders.get()
        try:
            yield decoder
        finally:
            self._decoders.put(decoder)

    def _take_in(self, work: _Work, decoded: DecodedClip) -> None:
        work.decoded = decoded
        work.cpu_s += decoded.cpu_s
        work.seconds.update(decoded.seconds)
        work.sample.update(decoded.images)
        decoded.images = {}
        work.scores.update(aggregate(decoded.quality), frame_count=len(decoded.quality))
        if decoded.motion_score is not None:
            work.scores["motion_score"] = decoded.motion_score
            self._name_model(work, MotionScoreFilter.stage)

    def _score(self, stage: SharedBatches, works: list[_Work]) -> None:
        """Run a stage; a clip is blamed only for what comes back when it runs alone."""
        try:
            self._score_together(stage, works)
        except DependencyFault:
            raise
        except Exception:
            for work in works:
                self._score_alone(stage, work)

    def _score_alone(self, batches: SharedBatches, work: _Work) -> None:
        stage = batches.stage
        try:
            self._take_scores(stage, [work], batches.run_alone([work.sample]))
        except DependencyFault:
            raise
        except Exception as error:
            try:
                batches.ping()
            except Exception as broken:
                raise DependencyFault(
                    f"stage {stage.name} is broken: {type(broken).__name__}: {broken}"
                ) from error
            if isinstance(error, MediaError):
                error.stage = error.stage or stage.name
                work.error = error
            else:
                work.error = MediaError(
                    MediaReason.STAGE_ERROR,
                    f"{type(error).__name__}: {error}",
                    stage=stage.name,
                    retryable=True,
                )

    def _score_together(self, batches: SharedBatches, works: list[_Work]) -> None:
        scored = batches.run([work.sample for work in works])
        self._take_scores(batches.stage, works, scored)

    def _take_scores(self, stage: Stage, works: list[_Work], scored: list[Scored]) -> None:
        for work, result in zip(works, scored, strict=True):
            work.cpu_s += result.cpu_s
            work.gpu_s += result.wall_s if stage.on_gpu else 0.0
            work.seconds[stage.name] = result.wall_s
            if isinstance(result.outcome, MediaError):
                result.outcome.stage = result.outcome.stage or stage.name
                work.error = result.outcome
                continue
            work.scores.update({column: result.outcome[column] for column in stage.outputs()})
            work.sample.update(result.outcome)
            self._name_model(work, stage.name)

    def _name_model(self, work: _Work, stage: str) -> None:
        model = self._models.get(stage)
        if model is not None:
            work.scores[f"{stage}_model"] = model.name
            work.scores[f"{stage}_model_revision"] = model.revision

    def _result(self, work: _Work) -> ClipResult:
        scores = {
            **work.scores,
            "cpu_s": work.cpu_s,
            "gpu_s": work.gpu_s,
            "stage_seconds": {name: f"{s:.6f}" for name, s in work.seconds.items()},
        }
        if work.error is not None:
            return failed(work.clip, self._recipe, work.error, scores)
        if work.rejected is not None:
            result = rejected(work.clip, self._recipe, work.rejected, scores)
        else:
            result = passed(work.clip, self._recipe, scores)
        if work.decoded is not None and self._may_store(work):
            result.frames = _frames_row(work.clip, work.decoded)
        return result

    def _may_store(self, work: _Work) -> bool:
        """Whether the clip's frames are stored: not where safety rejected or did not judge it."""
        if work.decoded is None or not work.decoded.jpegs:
            return False
        safety = find(self._recipe, NsfwFilter)
        if safety is None or self._recipe.store_unsafe_frames:
            return True
        gate = gate_of(safety)
        judged = gate is not None and all(c in work.scores for c in gate.columns)
        return gate is not None and judged and gate.verdict(work.scores) is None


def _judge(gate: Gate, work: _Work) -> None:
    """Set the first reason for which the clip is rejected."""
    if work.error is not None:
        return
    try:
        verdict = gate.verdict(work.scores)
    except ValueError as error:
        work.error = MediaError(MediaReason.STAGE_ERROR, str(error), stage=gate.stage)
        return
    work.rejected = work.rejected or verdict


def _frames_row(clip: Mapping[str, Any], decoded: DecodedClip) -> dict[str, Any]:
    return {
        "clip_id": clip["clip_id"],
        "video_frames": decoded.jpegs,
        "frame_times_s": decoded.frame_times_s,
        "frame_sharpness": [q.sharpness for q in decoded.quality],
        "frame_brightness": [q.brightness for q in decoded.quality],
        "frame_black_fraction": [q.black_fraction for q in decoded.quality],
        "frame_overexposed": [q.overexposed for q in decoded.quality],
    }
