"""Which sorted runs a maintenance merges: few are left, and a row is seldom written anew."""

from __future__ import annotations

import math

import pytest

from ingest.compaction import MOST_ROWS, MOST_RUNS, runs_to_merge


def test_what_is_not_fresh_is_left_alone() -> None:
    assert runs_to_merge([], 0) == 0
    assert runs_to_merge([5, 100], 0) == 0


def test_fresh_runs_are_merged_with_those_that_are_not_larger() -> None:
    assert runs_to_merge([1, 1, 1], 3) == 3
    assert runs_to_merge([1, 1, 1, 4], 3) == 3
    assert runs_to_merge([1, 1, 1, 3, 7], 3) == 4
    assert runs_to_merge([1, 1, 1, 3, 6], 3) == 5


def test_however_runs_grow_there_are_never_more_than_so_many() -> None:
    runs = [2**n for n in range(1, MOST_RUNS + 1)]
    assert runs_to_merge([1, *runs], 1) == 2
    assert runs_to_merge([1, *runs[1:]], 1) == 1


def test_what_would_become_too_large_is_left_alone_and_counts_for_nothing() -> None:
    assert runs_to_merge([MOST_ROWS // 2, MOST_ROWS // 2], 1) == 2
    assert runs_to_merge([MOST_ROWS // 2, 10, MOST_ROWS // 2], 1) == 2
    large = [MOST_ROWS] * 2 * MOST_RUNS
    assert runs_to_merge([10, 1000, *large], 1) == 1
    assert runs_to_merge([10, 10, *large], 1) == 2
    # Fresh ones are many small files, however many rows they have.
    assert runs_to_merge([MOST_ROWS, MOST_ROWS, 10], 2) == 2


@pytest.mark.parametrize("maintenances", [67, 134, 500])
def test_a_row_is_written_anew_as_often_as_the_table_doubles(maintenances: int) -> None:
    runs: list[int] = []
    written = 0
    for _ in range(maintenances):
        rows = [25] * 300 + runs
        count = runs_to_merge(rows, 300)
        runs = [sum(rows[:count]), *rows[count:]]
        written += runs[0]
        assert len(runs) <= MOST_RUNS
    assert sum(runs) == maintenances * 300 * 25
    assert written / sum(runs) <= 1 + math.log2(maintenances)
