"""Batches that do not fit a device's memory are halved, and no clip is blamed for it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from processors.errors import DependencyFault, StageStartError
from processors.models.device import FittingBatches, pick_device
from schemas.sections import ModelSettings


class Memory:
    """A model that holds a few items at once, and says as torch does that it holds no more."""

    def __init__(self, holds: int) -> None:
        self.holds = holds
        self.tried: list[int] = []

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.tried.append(len(items))
        if len(items) > self.holds:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return [item * 10 for item in items]


def batches(size: int) -> FittingBatches:
    return FittingBatches(size, stage="safety", unit="frame")


def test_a_batch_that_does_not_fit_is_halved_and_the_size_is_kept() -> None:
    fitting, model = batches(16), Memory(5)
    assert fitting.run(model, list(range(20))) == [n * 10 for n in range(20)]
    assert model.tried == [16, 8, 4, 4, 4, 4, 4]
    assert fitting.size == 4
    assert fitting.run(model, [7]) == [70]
    assert model.tried[-1] == 1


def test_a_device_that_holds_not_one_is_at_fault_itself() -> None:
    with pytest.raises(DependencyFault, match="does not hold one frame: CUDA out of memory"):
        batches(4).run(Memory(0), [1, 2, 3])


def test_batches_inside_of_a_larger_one_start_over_when_that_is_halved() -> None:
    model, inner = Memory(2), batches(8)
    outer = FittingBatches(8, stage="caption", unit="clip", inner=inner)

    def whole(items: Sequence[int]) -> list[int]:
        found = inner.run(model, items)
        if len(items) > 4:
            # What came of them does not fit together.
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return found

    assert outer.run(whole, list(range(8))) == [n * 10 for n in range(8)]
    assert model.tried == [8, 4, 2, 2, 2, 2, 4, 2, 2, 2, 2]


def test_where_not_one_item_fits_inside_the_larger_batch_is_halved() -> None:
    outer = FittingBatches(4, stage="caption", unit="clip", inner=(inner := batches(64)))

    def whole(items: Sequence[int]) -> list[int]:
        # The fewer clips, the more of the memory is left for their frames.
        memory = Memory(3 - len(items))
        return [sum(inner.run(memory, [item] * 3)) for item in items]

    assert outer.run(whole, [1, 2, 3]) == [30, 60, 90]
    with pytest.raises(DependencyFault, match="does not hold one clip"):
        outer.run(lambda items: inner.run(Memory(0), items), [1, 2])
    assert (outer.size, inner.size) == (4, 64)


def test_a_model_that_is_short_of_a_cpus_memory_gets_less_as_well() -> None:
    tried: list[int] = []

    def model(items: Sequence[int]) -> list[torch.Tensor]:
        tried.append(len(items))
        # More than any machine has, for two; the allocator's own error.
        return [torch.empty(2**44 if len(items) > 1 else 1, dtype=torch.float64) for _ in items]

    assert len(batches(2).run(model, [1, 2])) == 2
    assert tried == [2, 1, 1]


def test_other_errors_are_the_models_own() -> None:
    def broken(items: Sequence[int]) -> list[int]:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        batches(4).run(broken, [1, 2])


def test_a_cpu_computes_in_single_precision_on_its_share_of_cores() -> None:
    before = torch.get_num_threads()
    try:
        device = pick_device(ModelSettings(device="cpu"), 1.0, stage="safety")
        assert (device.is_gpu, device.dtype) == (False, torch.float32)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_a_gpu_that_is_not_there_stops_the_start() -> None:
    with pytest.raises(StageStartError, match=r"stage safety: models\.device is cuda"):
        pick_device(ModelSettings(device="cuda"), 1.0, stage="safety")
