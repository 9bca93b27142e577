"""Where torch computes, and in what precision; and batches that fit its memory."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from processors.errors import DependencyFault, StageStartError, in_one_line
from schemas.sections import ModelSettings

Item = TypeVar("Item")
Result = TypeVar("Result")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Device:
    """A place to compute."""

    device: torch.device
    dtype: torch.dtype
    no_gpu: str = ""
    """Why it is no GPU."""

    @property
    def is_gpu(self) -> bool:
        return bool(self.device.type == "cuda")


def pick_device(settings: ModelSettings, cpus: float, *, stage: str) -> Device:
    """The device that the settings name; ``auto`` is a GPU if this process sees one.

    bfloat16 on a GPU and float32 on a CPU, where bfloat16 is slower and no parity is left.
    ``cpus`` is how many cores this process may use. `StageStartError` if there is no such device.
    """
    no_gpu = "models.device is cpu" if settings.device == "cpu" else _why_no_gpu()
    if not no_gpu:
        return Device(torch.device("cuda"), torch.bfloat16)
    if settings.device == "cuda":
        raise StageStartError(
            f"stage {stage}: models.device is cuda, and there is no GPU here: {no_gpu}; see "
            "pool.gpus_per_actor, or set models.device to auto"
        )
    torch.set_num_threads(max(1, int(cpus)))
    return Device(torch.device("cpu"), torch.float32, no_gpu)


def _why_no_gpu() -> str:
    """What keeps torch from a GPU; empty if nothing does."""
    if torch.cuda.is_available():
        return ""
    torch_is = f"torch {torch.__version__}"
    if torch.version.cuda is None:
        return f"{torch_is} is built without CUDA"
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return "none is reserved for this process (CUDA_VISIBLE_DEVICES is empty)"
    try:
        torch.cuda.init()
    except Exception as error:  # whatever the driver says
        return f"{torch_is} finds none: {in_one_line(error)}"
    return f"{torch_is} finds none"


class DoesNotFit(DependencyFault):
    """The device's memory does not hold a single item, whatever else it holds at that time."""


class FittingBatches:
    """Runs a model over batches of a size that fits the device's memory.

    A batch that does not fit is halved and tried again, and the size that fits is kept. Batches
    may be run inside of a larger one, whose results fill the memory as well: where not even one
    item of theirs fits, the one around them is halved, and they begin with their full size again.
    """

    def __init__(
        self, size: int, *, stage: str, unit: str, inner: FittingBatches | None = None
    ) -> None:
        """``inner`` are those that are run inside of these."""
        self.size = size
        """Items of the largest batch that is tried."""
        self._full_size = size
        self._stage = stage
        self._unit = unit
        self._inner = inner

    def run(
        self, function: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item]
    ) -> list[Result]:
        """``function`` over all items, in order, one result each.

        `DoesNotFit` if not even one item fits: that is the device's fault, not the item's.
        """
        results: list[Result] = []
        while len(results) < len(items):
            batch = items[len(results) : len(results) + self.size]
            try:
                results += function(batch)
            except Exception as error:
                if not _out_of_memory(error):
                    raise
                problem = str(error).splitlines()[0]
            else:
                continue
            # Outside of the handler: the exception's frames hold the tensors that filled it.
            self._shrink(len(batch), problem)
        return results

    def start_over(self) -> None:
        """Try the full size again."""
        self.size = self._full_size

    def _shrink(self, tried: int, problem: str) -> None:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self._inner is not None:
            # What fitted them beside the larger batch says nothing of the smaller one.
            self._inner.start_over()
        if tried == 1:
            # Something else has the memory, and may give it back.
            self.start_over()
            raise DoesNotFit(
                f"stage {self._stage}: the device's memory does not hold one {self._unit}: "
                f"{problem}"
            )
        self.size = max(1, tried // 2)
        logger.warning(
            "stage %s: %d %ss do not fit the device's memory, going on with %d at once",
            self._stage, tried, self._unit, self.size,
        )  # fmt: skip


def _out_of_memory(error: Exception) -> bool:
    # The CPU's allocator raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError | DoesNotFit) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )
