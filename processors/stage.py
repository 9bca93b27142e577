"""The shape of a stage: a batch of samples in, a batch of samples out.

A stage knows no Kafka, Flink, Ray or Paimon, and no file: whoever hosts it gives it samples
(plain dicts) that hold what `Stage.inputs` names, and stores what it returns. Decoding is no
stage: it happens once for all of them (`processors.clip_decoder`).
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from processors.errors import MediaError
from processors.frames import FrameRequest

Sample = dict[str, Any]
"""One clip on its way through the stages, by column."""
Outcome = Sample | MediaError
"""What a stage gives for a clip: columns, or why it can give none."""

STATS, OUTPUTS, VERSIONS = "operator_stats", "operator_outputs", "operator_versions"
"""Columns in which operators that are not built in leave what they found."""

CLIP_FILE = "clip_file"
"""Column of a sample: path of a video that holds the clip and nothing else."""
FRAME_FILES = "frame_files"
"""Column of a sample: paths of the clip's sampled frames as PNG, in order of time."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Resources:
    """What one copy of a stage occupies."""

    cpus: float = 1.0
    gpus: float = 0.0


@dataclass(frozen=True)
class ModelIdentity:
    """Which model gave a score; written beside it."""

    name: str
    revision: str
    """A commit of its repository, or the SHA-256 of its file."""


@dataclass(frozen=True)
class FileRequest:
    """The files of a clip that a stage opens; they are there while it runs."""

    cut: bool = False
    """Wants `CLIP_FILE`: its frames are the clip's, its first one is at time 0; no sound."""
    frames: bool = False
    """Wants `FRAME_FILES`: the frames that the recipe samples, upright, at their own size."""

    def __or__(self, other: FileRequest) -> FileRequest:
        return FileRequest(self.cut or other.cut, self.frames or other.frames)

    def __bool__(self) -> bool:
        return self.cut or self.frames


class Stage(ABC):
    """One step over clips. Subclasses say ``name`` and, if they differ, the other class values.

    A wrong definition raises `TypeError` where the class is defined, not when the first batch
    arrives.
    """

    name: str
    """In lower case with underscores: a metric label and a part of column names. A value of the
    class; of the instance only where one class runs operators of many names."""
    resources: ClassVar[Resources] = Resources()
    batch_size: int = 1
    """Items that it takes at once: frames where the stage looks at frames, else clips, if `weight`
    says nothing else. Only one clip that alone has more of them comes in a larger batch."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # ABCMeta works this out after us.
        abstract = [
            name
            for name in dir(cls)
            if getattr(getattr(cls, name, None), "__isabstractmethod__", False)
        ]
        if abstract and "name" not in cls.__dict__:
            return  # An intermediate class, to be completed further down.
        _check_definition(cls, abstract)

    @abstractmethod
    def inputs(self) -> tuple[str, ...]:
        """The columns that a sample must have."""

    @abstractmethod
    def outputs(self) -> tuple[str, ...]:
        """The columns that `process` gives for each sample."""

    def frames(self) -> FrameRequest | None:
        """The frames it wants decoded; None if it looks at none."""
        return None

    def weight(self, sample: Sample) -> int:
        """How many of `batch_size` a sample fills: its frames, if the stage looks at frames."""
        request = self.frames()
        return 1 if request is None else max(1, len(sample[request.column]))

    def files(self) -> FileRequest:
        """The files it opens, known after `setup`; by default none."""
        return FileRequest()

    def longest_s(self) -> float:
        """Seconds that one clip may take in it by limits of its own, known after `setup`.

        Added to the time that the pool gives to a clip (``pool.stages_deadline_s``), after which
        a worker is taken for stuck. By default 0: it has none, and takes less than that.
        """
        return 0.0

    def rejects(self, sample: Sample) -> str | None:
        """Its own reason to reject a clip that it has processed; None if it has none.

        For a stage whose verdict is not a threshold on columns; other verdicts are gates.
        """
        return None

    def close(self) -> None:  # noqa: B027 - most stages hold nothing
        """Let go of what `setup` has taken."""

    def find_model(self) -> None:  # noqa: B027 - most stages have none
        """Find or fetch the files of its model; `StageStartError` if they cannot be had.

        Whoever hosts several stages asks all of them before it sets up the first.
        """

    def setup(self) -> None:  # noqa: B027 - most stages need none
        """Load what it needs, once in the process that runs it; `StageStartError` if it can't."""

    def ping(self) -> None:  # noqa: B027 - most stages cannot break
        """Raise if the stage itself is broken; asked before a clip is blamed for a failure."""

    @property
    def model(self) -> ModelIdentity | None:
        """The model behind the scores, known after `setup`; None if there is none."""
        return None

    @property
    def on_gpu(self) -> bool:
        """Whether it computes on a GPU, known after `setup`: its time is GPU time then."""
        return False

    @property
    def no_gpu(self) -> str:
        """Why it found no GPU, known after `setup`; empty if it has one or no use for one."""
        return ""

    @abstractmethod
    def process(self, batch: Sequence[Sample]) -> Sequence[Outcome]:
        """The outputs of each sample, in order. Any exception means that none was processed.

        A stage that knows which clip is to blame gives a `MediaError` in place of its outputs.
        """

    def run(self, batch: Sequence[Sample]) -> Sequence[Outcome]:
        """`process`, with both sides of its promise checked."""
        for sample in batch:
            missing = [column for column in self.inputs() if column not in sample]
            if missing:
                raise ValueError(f"stage {self.name}: a sample lacks {', '.join(missing)}")
        results = self.process(batch)
        if not isinstance(results, list):
            raise ValueError(
                f"stage {self.name}: process returned {type(results).__name__}; "
                "it returns a list with one dict a sample"
            )
        if len(results) != len(batch):
            raise ValueError(
                f"stage {self.name}: {len(batch)} samples in, {len(results)} out; "
                "process returns one result a sample, in order"
            )
        for result in results:
            if isinstance(result, MediaError):
                continue
            missing = [column for column in self.outputs() if column not in result]
            if missing:
                raise ValueError(f"stage {self.name}: a result lacks {', '.join(missing)}")
        return results


def _check_definition(cls: type[Stage], abstract: list[str]) -> None:
    where = f"stage {cls.__module__}.{cls.__qualname__}"
    if abstract:
        raise TypeError(f"{where}: define {', '.join(abstract)}")
    name = getattr(cls, "name", None)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise TypeError(
            f"{where}: name is {name!r}; give it a class value like name = 'face_blur' "
            "(lower case letters, digits and underscores)"
        )
    size = cls.batch_size
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise TypeError(f"{where}: batch_size is {size!r}, and should be an integer from 1 on")
    if not isinstance(cls.resources, Resources):
        raise TypeError(f"{where}: resources is {cls.resources!r}; use Resources(cpus=…, gpus=…)")
    amounts = (cls.resources.cpus, cls.resources.gpus)
    if not all(isinstance(amount, int | float) for amount in amounts):
        raise TypeError(f"{where}: cpus and gpus are numbers, and resources is {cls.resources!r}")
    if min(amounts) < 0:
        raise TypeError(f"{where}: resources cannot be negative")
