"""A stage of the user's own among ours: what it is given, and where its outputs and verdict go.

It sees the columns that it asked for and no others. An output that is a number goes into
``operator_stats``; any other, as JSON, into ``operator_outputs``; None into neither. Its verdict
looks at its own inputs and outputs without the frames, so that it can be given again from a row.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from processors.errors import DependencyFault, MediaError, StageStartError, in_one_line
from processors.frames import FrameRequest
from processors.stage import (
    CLIP_FILE,
    FRAME_FILES,
    OUTPUTS,
    STATS,
    VERSIONS,
    FileRequest,
    Outcome,
    Sample,
    Stage,
)
from schemas.reasons import MediaReason, RejectReason
from schemas.tables import ENRICHED_CLIPS

_REASON = re.compile(r"[A-Za-z0-9_]{1,100}", re.ASCII)
_COLUMNS = frozenset(ENRICHED_CLIPS.column_names)


def host(stage: Stage, operator: str, version: str) -> HostedStage:
    """A stage of ours that runs one of the user's, with its name, resources and batch size."""
    kind = type(
        type(stage).__name__,
        (HostedStage,),
        {"name": stage.name, "resources": stage.resources, "batch_size": stage.batch_size},
    )
    return cast(HostedStage, kind(stage, operator, version))


class HostedStage(Stage):
    """Runs a stage of the user's own; made by `host`."""

    name = "custom"

    def __init__(self, stage: Stage, operator: str, version: str) -> None:
        """``version`` is written beside its outputs, with the model that it names."""
        self._stage = stage
        self._operator = operator
        self._version = version
        self._request = stage.frames()
        self._files = file_columns(stage.files())

    @property
    def gives(self) -> tuple[str, ...]:
        """Its own outputs, which operators after it may ask for."""
        return tuple(self._stage.outputs())

    @property
    def has_gate(self) -> bool:
        """Whether it may reject a clip."""
        return getattr(self._stage, "judge", None) is not None

    @property
    def judges_by(self) -> tuple[str, ...]:
        """What its gate looks at beside its own outputs: its inputs without frames and files."""
        pixels = (*self._files, self._request.column if self._request else None)
        return tuple(column for column in self._stage.inputs() if column not in pixels)

    @property
    def on_gpu(self) -> bool:
        return self._stage.on_gpu

    @property
    def no_gpu(self) -> str:
        return self._stage.no_gpu

    def inputs(self) -> tuple[str, ...]:
        request = self.frames()
        return self._files if request is None else (request.column, *self._files)

    def outputs(self) -> tuple[str, ...]:
        return (STATS, OUTPUTS, VERSIONS)

    def frames(self) -> FrameRequest | None:
        """Its own, under a name that no other stage's frames have."""
        request = self._request
        return request and replace(request, column=f"{self.name}.{request.column}")

    def files(self) -> FileRequest:
        return self._stage.files()

    def longest_s(self) -> float:
        return self._stage.longest_s()

    def close(self) -> None:
        self._stage.close()

    def weight(self, sample: Sample) -> int:
        return self._stage.weight(self._given(sample))

    def setup(self) -> None:
        try:
            self._stage.setup()
        except StageStartError:
            raise
        except (Exception, SystemExit) as error:
            words = in_one_line(error)
            raise StageStartError(
                f"stage {self.name} ({self._operator}) cannot start: "
                f"{type(error).__name__}: {words}"
            ) from None
        longest = self._stage.longest_s()
        if not isinstance(longest, int | float) or not 0 <= longest < math.inf:
            raise StageStartError(
                f"stage {self.name} ({self._operator}) cannot start: longest_s() returned "
                f"{str(longest)[:100]!r}, and should return seconds, from 0 on"
            )

    def ping(self) -> None:
        self._stage.ping()

    def process(self, batch: Sequence[Sample]) -> list[Outcome]:
        """``operator_stats``, ``operator_outputs`` and ``operator_versions`` of each sample, with
        those of the operators before it.

        A clip whose output or reason cannot be stored is a `MediaError` (``stage_error``) in its
        place: nothing passes unjudged. Raises whatever the user's code raises.
        """
        try:
            results = self._stage.run([self._given(sample) for sample in batch])
            return [self._outcome(*both) for both in zip(batch, results, strict=True)]
        except SystemExit as error:
            # It would end the worker, and with it the other clips.
            raise RuntimeError(f"it called sys.exit({error.code!r})") from None

    def rejects(self, sample: Sample) -> str | None:
        """The reason that its `judge` gave when the sample was processed."""
        reason: str | None = sample[self._reason_column]
        return reason

    def verdict(self, row: Mapping[str, Any]) -> str | None:
        """The reason to reject a clip, by its row of ``enriched_clips``; None if it passes.

        Raises `MediaError` (``stage_error``) if it cannot be judged.
        """
        outputs = {}
        for column in self.gives:
            own = _value(row, f"{self.name}.{column}")
            outputs[column] = _value(row, column) if own is None else own
        return self._judged(self._scores(row), outputs)

    @property
    def _reason_column(self) -> str:
        return f"{self.name}.reject_reason"

    def _given(self, sample: Sample) -> Sample:
        given = self._scores(sample) | {column: sample[column] for column in self._files}
        if self._request is not None:
            given[self._request.column] = sample[f"{self.name}.{self._request.column}"]
        return given

    def _scores(self, sample: Mapping[str, Any]) -> Sample:
        """Its inputs without the frames and files."""
        return {column: _value(sample, column) for column in self.judges_by}

    def _outcome(self, sample: Sample, result: Outcome) -> Outcome:
        if isinstance(result, MediaError):
            return result
        try:
            return self._result(sample, result)
        except MediaError as error:
            return error

    def _result(self, sample: Sample, result: Mapping[str, Any]) -> Sample:
        outputs = {column: _plain(result[column]) for column in self.gives}
        stats = dict(sample.get(STATS) or {})
        others = dict(sample.get(OUTPUTS) or {})
        for column, value in outputs.items():
            # Of DataJuicer's operators the names are known only when they have run.
            taken = column in stats or column in others
            name = f"{self.name}.{column}" if taken else column
            if isinstance(value, int | float) and not isinstance(value, bool):
                stats[name] = self._number(column, value)
            elif value is not None:
                others[name] = self._json(column, value)
        versions = {**(sample.get(VERSIONS) or {}), self._operator: self._full_version()}
        return {
            STATS: stats,
            OUTPUTS: others,
            VERSIONS: versions,
            self._reason_column: self._judged(self._scores(sample), outputs),
        }

    def _full_version(self) -> str:
        model = self._stage.model
        return self._version if model is None else f"{self._version}, {model.name} {model.revision}"

    def _number(self, column: str, value: float) -> float:
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise self._error(f"output {column} is {number}, and should be a finite number or None")
        return number

    def _json(self, column: str, value: Any) -> str:
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False)
            text.encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise self._error(
                f"output {column} is no number, text, or list or dict of them: {error}"
            ) from None
        return text

    def _judged(self, scores: Sample, outputs: Sample) -> str | None:
        judge = getattr(self._stage, "judge", None)
        if judge is None:
            return None
        try:
            reason = judge({**scores, **outputs})
        except (DependencyFault, MediaError):
            raise
        except (Exception, SystemExit) as error:
            raise self._error(f"judge fails: {type(error).__name__}: {error}") from None
        if reason is None:
            return None
        if not isinstance(reason, str) or not _REASON.fullmatch(reason):
            raise self._error(
                f"judge returned {str(reason)[:100]!r}, and should return None or a reason of "
                "letters, digits and underscores"
            )
        if reason in set(RejectReason):
            raise self._error(f"judge returned {reason!r}, which is the reason of another gate")
        return reason

    def _error(self, text: str) -> MediaError:
        return MediaError(MediaReason.STAGE_ERROR, text, stage=self.name)


def file_columns(files: FileRequest) -> tuple[str, ...]:
    """The columns in which the files come that a stage opens."""
    return (CLIP_FILE,) * files.cut + (FRAME_FILES,) * files.frames


def _plain(value: Any) -> Any:
    """NumPy's scalars as Python's; all else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def _value(sample: Mapping[str, Any], column: str) -> Any:
    """A column of a sample or a row, or an output of an operator before; None if that gave none."""
    if column in _COLUMNS:
        if column not in sample:
            raise ValueError(f"a sample lacks {column}")
        return sample[column]
    stats, outputs = dict(sample.get(STATS) or {}), dict(sample.get(OUTPUTS) or {})
    if column in stats:
        return stats[column]
    return json.loads(outputs[column]) if column in outputs else None
