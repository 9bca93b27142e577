"""Several callers of one stage share its batches, and each gets its own results back."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import wait_until

from processors.errors import MediaError
from processors.shared_batches import SharedBatches
from processors.stage import Outcome, Sample, Stage
from schemas.reasons import MediaReason

SIZE = 8


class Doubling(Stage):
    """Doubles numbers, and remembers how many came at once; refuses batches with a 13."""

    name = "doubling"
    batch_size = SIZE

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.threads: set[int] = set()
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.closed = False

    def inputs(self) -> tuple[str, ...]:
        return ("number",)

    def outputs(self) -> tuple[str, ...]:
        return ("double",)

    def process(self, batch: Sequence[Sample]) -> list[Outcome]:
        self.may_go_on.wait(10)
        self.batches.append(len(batch))
        self.threads.add(threading.get_ident())
        if any(sample["number"] == 13 for sample in batch):
            raise ValueError("thirteen")
        return [
            MediaError(MediaReason.STAGE_ERROR, "odd one out")
            if sample["number"] < 0
            else {"double": 2 * sample["number"]}
            for sample in batch
        ]

    def close(self) -> None:
        self.closed = True


def samples(*numbers: int) -> list[Sample]:
    return [{"number": number} for number in numbers]


def doubles(batches: SharedBatches, *numbers: int) -> list[int]:
    return [
        s.outcome["double"]
        for s in batches.run(samples(*numbers))
        if not isinstance(s.outcome, MediaError)
    ]


@pytest.fixture
def stage() -> Doubling:
    return Doubling()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as executor:
        yield executor


def test_what_comes_together_goes_through_in_one_batch(
    stage: Doubling, threads: ThreadPoolExecutor
) -> None:
    batches = SharedBatches(stage, wait_s=30, active=lambda: 4)
    found = [threads.submit(doubles, batches, n, n + 1) for n in (0, 10, 20, 30)]
    assert [f.result(20) for f in found] == [[0, 2], [20, 22], [40, 42], [60, 62]]
    assert stage.batches == [8]
    batches.close()


def test_a_full_batch_waits_for_nobody(stage: Doubling) -> None:
    batches = SharedBatches(stage, wait_s=3600, active=lambda: 99)
    assert doubles(batches, *range(SIZE)) == [2 * n for n in range(SIZE)]
    batches.close()


def test_more_than_a_batch_goes_through_in_several_none_larger_than_the_stage_wants(
    stage: Doubling, threads: ThreadPoolExecutor
) -> None:
    batches = SharedBatches(stage, wait_s=30, active=lambda: 2)
    callers = [range(100, 120), range(200, 203)]
    found = [threads.submit(doubles, batches, *numbers) for numbers in callers]
    assert [f.result(20) for f in found] == [[2 * n for n in numbers] for numbers in callers]
    assert sum(stage.batches) == 23
    assert max(stage.batches) == SIZE
    assert doubles(batches) == []
    batches.close()


def test_what_a_sample_weighs_counts_and_one_too_heavy_for_a_batch_goes_alone(
    stage: Doubling,
) -> None:
    stage.weight = lambda sample: sample["number"]  # type: ignore[method-assign]
    batches = SharedBatches(stage, wait_s=0, active=lambda: 1)
    assert doubles(batches, 3, 4, 2, 20, 8, 1) == [6, 8, 4, 40, 16, 2]
    assert stage.batches == [2, 1, 1, 1, 1]
    batches.close()


def test_an_error_in_one_of_several_batches_is_that_of_all_its_samples(stage: Doubling) -> None:
    batches = SharedBatches(stage, wait_s=0, active=lambda: 1)
    with pytest.raises(ValueError, match="thirteen"):
        doubles(batches, *range(30))
    # What was left of it did not go through, and the next ones do.
    assert stage.batches == [8, 8]
    assert doubles(batches, 1, 2) == [2, 4]
    batches.close()


def test_who_is_alone_does_not_wait(stage: Doubling) -> None:
    batches = SharedBatches(stage, wait_s=3600, active=lambda: 1)
    assert doubles(batches, 1) == [2]
    batches.close()


def test_waiting_ends_when_the_others_are_through(
    stage: Doubling, threads: ThreadPoolExecutor
) -> None:
    active = [2]
    batches = SharedBatches(stage, wait_s=3600, active=lambda: active[0])
    found = threads.submit(doubles, batches, 1)
    time.sleep(0.2)
    assert not found.done()
    active[0] = 1
    batches.look_again()
    assert found.result(20) == [2]
    batches.close()


def test_a_batch_that_does_not_fill_goes_after_a_while(stage: Doubling) -> None:
    batches = SharedBatches(stage, wait_s=0.1, active=lambda: 99)
    assert doubles(batches, 1) == [2]
    batches.close()


def test_the_stage_never_sees_two_calls_at_once(
    stage: Doubling, threads: ThreadPoolExecutor
) -> None:
    batches = SharedBatches(stage, wait_s=0, active=lambda: 1)
    found = [threads.submit(doubles, batches, n) for n in range(20, 60)]
    assert [f.result(20) for f in found] == [[2 * n] for n in range(20, 60)]
    assert len(stage.threads) == 1
    batches.close()


def test_an_error_reaches_all_of_the_batch_and_a_clip_alone_shows_whose_it_is(
    stage: Doubling, threads: ThreadPoolExecutor
) -> None:
    batches = SharedBatches(stage, wait_s=30, active=lambda: 2)
    found = [threads.submit(doubles, batches, n) for n in (1, 13)]
    for future in found:
        with pytest.raises(ValueError, match="thirteen"):
            future.result(20)
    (alone,) = batches.run_alone(samples(1))
    assert alone.outcome == {"double": 2}
    with pytest.raises(ValueError, match="thirteen"):
        batches.run_alone(samples(13))
    batches.close()


def test_a_clip_that_the_stage_blames_itself_costs_no_other(stage: Doubling) -> None:
    batches = SharedBatches(stage, wait_s=0, active=lambda: 1)
    first, second, third = batches.run(samples(1, -1, 3))
    assert (first.outcome, third.outcome) == ({"double": 2}, {"double": 6})
    assert isinstance(second.outcome, MediaError)
    batches.close()


def test_closing_finishes_what_was_handed_in_and_closes_the_stage(
    stage: Doubling, threads: ThreadPoolExecutor
) -> None:
    stage.may_go_on.clear()
    batches = SharedBatches(stage, wait_s=3600, active=lambda: 99)
    found = threads.submit(doubles, batches, 4)
    wait_until(lambda: bool(batches._waiting))
    closing = threads.submit(batches.close)
    stage.may_go_on.set()
    assert found.result(20) == [8]
    closing.result(20)
    assert stage.closed
    with pytest.raises(RuntimeError, match="is closed"):
        batches.run(samples(1))
