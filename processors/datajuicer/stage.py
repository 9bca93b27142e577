"""One operator of DataJuicer as a stage: what it is given of a clip, and where its results go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from processors.datajuicer.hosts import Answer, DataJuicerHost, HostGone
from processors.errors import DependencyFault, MediaError
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
from schemas.datajuicer import Modality
from schemas.operators import DataJuicerOperator
from schemas.reasons import MediaReason
from schemas.settings import Settings

CAPTION = "caption"
_MAPS = (STATS, OUTPUTS, VERSIONS)
_COLUMN_OF = {
    Modality.VIDEO: CLIP_FILE,
    Modality.FRAMES: FRAME_FILES,
    Modality.TEXT: CAPTION,
}


class DataJuicerStage(Stage):
    """Runs a filter or a mapper in DataJuicer's environment.

    Its numbers go into ``operator_stats``, its other outputs into ``operator_outputs``, both
    beside those of the operators before it. A filter's own verdict rejects the clip, a mapper's
    text becomes the caption.
    """

    name = "datajuicer"
    batch_size = 32

    def __init__(
        self, operator: DataJuicerOperator, host: DataJuicerHost, settings: Settings
    ) -> None:
        """``host`` has all such operators of the recipe."""
        self.name = operator.name
        self._host = host
        self._deadline_s = settings.pool.operator_timeout_s
        self._start_s = settings.pool.actor_start_timeout_s
        signature = operator.signature
        self._reads = signature.reads
        self._may_write_caption = signature.kind == "mapper" and Modality.TEXT in self._reads

    def setup(self) -> None:
        self._host.start()

    def close(self) -> None:
        self._host.close()

    def longest_s(self) -> float:
        # Twice, each time in a process that may have to be started anew.
        return 2 * (self._deadline_s + self._start_s)

    def ping(self) -> None:
        self._host.ping()

    def inputs(self) -> tuple[str, ...]:
        return tuple(_COLUMN_OF[medium] for medium in sorted(self._reads))

    def outputs(self) -> tuple[str, ...]:
        return (*_MAPS, CAPTION) if self._may_write_caption else _MAPS

    def files(self) -> FileRequest:
        return FileRequest(cut=Modality.VIDEO in self._reads, frames=Modality.FRAMES in self._reads)

    def rejects(self, sample: Sample) -> str | None:
        return None if sample[self._keep_column] else self.name

    def process(self, batch: Sequence[Sample]) -> list[Outcome]:
        """As `Stage.process`; a clip that the operator fails on is a `MediaError` of its own.

        `DependencyFault` if a package is missing that the operator asks for at its first clip.
        """
        # One after the other: a clip that takes too long costs no other one its time.
        return [self._outcome(sample, self._answer(self._given(sample))) for sample in batch]

    @property
    def _keep_column(self) -> str:
        return f"{self.name}_keeps"

    def _given(self, sample: Sample) -> dict[str, Any]:
        return {medium.value: sample[_COLUMN_OF[medium]] for medium in self._reads}

    def _answer(self, clip: dict[str, Any]) -> Answer:
        """Of one clip, which is blamed for the process's end only if that comes again."""
        try:
            return self._host.run(self.name, clip, deadline_s=self._deadline_s)
        except HostGone:
            pass
        try:
            return self._host.run(self.name, clip, deadline_s=self._deadline_s)
        except HostGone as gone:
            return Answer(error=f"the operator's process {gone}, twice")

    def _outcome(self, sample: Sample, answer: Answer) -> Outcome:
        if answer.error is not None and answer.environment:
            raise DependencyFault(f"operator {self.name} cannot run: {answer.error}")
        if answer.error is not None:
            return MediaError(
                MediaReason.STAGE_ERROR, answer.error, stage=self.name, retryable=True
            )
        result: Sample = {
            STATS: _joined(self.name, sample.get(STATS), answer.stats),
            OUTPUTS: _joined(self.name, sample.get(OUTPUTS), answer.outputs),
            VERSIONS: {**sample.get(VERSIONS, {}), self.name: self._host.version},
            self._keep_column: answer.keep is not False,
        }
        if self._may_write_caption:
            result[CAPTION] = sample[CAPTION] if answer.text is None else answer.text
        return result


def _joined(operator: str, before: dict[str, Any] | None, given: dict[str, Any]) -> dict[str, Any]:
    """A map with the new entries; a name that is taken gets the operator's before it."""
    joined = dict(before or {})
    for name, value in given.items():
        joined[f"{operator}.{name}" if name in joined else name] = value
    return joined
