"""The Ray actor that runs the enrichment chain and writes frame files.

Frames never pass through the driver: the actor writes them to the lake's storage and hands over
Paimon's commit messages; until the driver commits those, no reader sees the files.
What goes wrong comes back as text in a `BatchOutcome`, since an exception's class may be unknown
where it is read. An actor that dies instead is the dispatcher's concern.
"""

from __future__ import annotations

import importlib
import logging
import os
import pickle
import threading
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import ray

from processors.errors import DependencyFault, StageStartError
from processors.failpoints import passing
from processors.pool.lake import Lake
from processors.pool.verdicts import from_ipc, to_dicts, to_ipc, verdicts_of
from processors.results import ClipResult
from schemas.reasons import ClipStatus
from schemas.recipe import read_dumped
from schemas.settings import on_this_node, parse_settings_json
from schemas.tables import CLIP_FRAMES

if TYPE_CHECKING:
    from processors.chain import StageDescription

logger = logging.getLogger(__name__)


@dataclass
class BatchOutcome:
    """What became of one micro-batch: results, or a fault that blames nobody, or an error."""

    rows: bytes | None = None
    """Rows of ``enriched_clips`` (`to_ipc`), one a clip, in order; None if there is a fault or an
    error."""
    statuses: list[ClipStatus] = field(default_factory=list)
    """One a clip, as in its row."""
    failures: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Rows of ``failed_clips`` by the clip's place in the batch; they lack ``enrich_seq``."""
    held: dict[int, str] = field(default_factory=dict)
    """Clips that had better be tried again, by their place, and why."""
    frames: bytes | None = None
    """Pickled commit messages of the frame files that were written."""
    fault: str | None = None
    """Something we depend on is out; the same clips may be given again later."""
    error: str | None = None
    """The chain raised; one of the clips, or the chain itself, is to blame."""


@dataclass(frozen=True)
class StartReport:
    """The first answer of an actor; ``error`` is the person's line if a stage cannot start."""

    node_id: str
    pid: int
    stages: tuple[StageDescription, ...] = ()
    error: str | None = None
    longest_s: float = 0.0
    """Of the chain: how long one clip may take by the stages' own limits."""


class EnrichActor:
    """Hosts one chain. ``chain`` is ``module:class``; recipe and settings come as JSON text.

    Calls of `run` come side by side, each in a thread of its own.
    """

    def __init__(self, chain: str, recipe: str, settings: str) -> None:
        self._chain_name = chain
        self._recipe = read_dumped(recipe)
        self._settings = on_this_node(parse_settings_json(settings, where="the driver's settings"))
        self._lake = Lake(self._settings)
        self._chain: Any = None
        self._starting = threading.Lock()
        self._writing = threading.Lock()

    def start(self) -> StartReport:
        """Load every model, once; answers after a restart of the actor as well."""
        node_id, pid = ray.get_runtime_context().get_node_id(), os.getpid()
        with self._starting:
            error = None if self._chain else self._set_up()
            if error is not None:
                return StartReport(node_id, pid, error=error)
            stages = tuple(self._chain.describe())
            return StartReport(node_id, pid, stages, longest_s=self._chain.longest_s)

    def _set_up(self) -> str | None:
        """Make the chain; what a person should read if that fails."""
        module, _, name = self._chain_name.partition(":")
        try:
            chain = getattr(importlib.import_module(module), name)(self._recipe, self._settings)
            chain.setup()
        except StageStartError as error:
            return str(error)
        except Exception as error:
            logger.exception("the chain could not be set up")
            return f"the stages cannot start: {_last_words(error)}"
        self._chain = chain
        return None

    def run(self, rows: bytes, sequence: Sequence[int], attempts: Sequence[int]) -> BatchOutcome:
        """Run the chain over rows of ``clips`` (`to_ipc`).

        ``sequence`` is the enrich_seq of each one's rows, ``attempts`` how often it was tried
        before.
        """
        clips = to_dicts(from_ipc(rows))
        try:
            results: list[ClipResult] = self._chain.run(clips)
        except DependencyFault as error:
            return BatchOutcome(fault=str(error) or type(error).__name__)
        except Exception as error:
            return BatchOutcome(error=_last_words(error))
        if [r.clip_id for r in results] != [c["clip_id"] for c in clips]:
            return BatchOutcome(error=f"the chain gave {len(results)} results, not one a clip")
        try:
            # The table's handle and its caches are not made for several threads.
            with self._writing:
                frames = self._write_frames(results, sequence)
        except Exception as error:
            return BatchOutcome(fault=f"frames could not be written: {_last_words(error)}")
        for result, number, before in zip(results, sequence, attempts, strict=True):
            result.enriched["attempts"] = before + 1
            if result.failure is not None:
                result.failure["attempts"] = before + 1
            if result.frames is not None:
                result.enriched["frames_seq"] = number
        try:
            verdicts = verdicts_of(results, sequence)
        except Exception as error:
            return BatchOutcome(error=f"a result is no row: {_last_words(error)}")
        held = {i: result.held for i, result in enumerate(results) if result.held is not None}
        return BatchOutcome(
            to_ipc(verdicts.rows), verdicts.statuses, verdicts.failures, held, frames
        )

    def close(self) -> None:
        """Release what the chain holds, its child processes above all."""
        if self._chain is not None:
            self._chain.close()
            self._chain = None

    def _write_frames(self, results: Sequence[ClipResult], sequence: Sequence[int]) -> bytes | None:
        rows = [
            {**result.frames, "enrich_seq": number}
            for result, number in zip(results, sequence, strict=True)
            if result.frames is not None
        ]
        if not rows:
            return None
        data = pa.Table.from_pylist(rows, schema=CLIP_FRAMES.arrow_schema())
        writer = self._lake.table(CLIP_FRAMES.name).new_batch_write_builder().new_write()
        try:
            writer.write_arrow(data)
            passing("frames.before_prepare")
            messages = pickle.dumps(writer.prepare_commit())
            passing("frames.after_prepare")
            return messages
        finally:
            writer.close()


def _last_words(error: Exception) -> str:
    """The error and where it was raised, in one line."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" (at {frames[-1].name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"
