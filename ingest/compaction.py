"""Which sorted runs of a bucket are merged: a size-tiered choice, by rows.

Paimon's own choice goes by bytes. A commit of fifty rows leaves files of which nearly all bytes are
Parquet's own, a dozen times what the same rows take once they are merged: three hundred such
commits look larger than the whole bucket is, and all of it would be written anew each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

MOST_RUNS = 8
"""A reader merges all runs of a bucket, so there are never more after a maintenance, but for those
that are large."""
MOST_ROWS = 4_000_000
"""What would have more rows is not merged: that takes some 60 µs of CPU a row, commits wait
meanwhile, and a maintenance that `maintenance.timeout_s` ends would be begun anew for ever."""


def runs_to_merge(rows: Sequence[int], fresh: int) -> int:
    """How many runs to make one of, from the newest; 0 or 1: none.

    ``rows``: of each sorted run of a bucket, the newest first; the first ``fresh`` of them came
    since the last maintenance, and are merged in any case. An older one is merged along once what
    is newer has as many rows: so a row is written anew once and then as often as the table
    doubles, and the runs of a bucket are as many as its size has binary digits, to `MOST_RUNS`.
    """
    if not fresh:
        return 0
    large = next((n for n, total in enumerate(accumulate(rows)) if total > MOST_ROWS), len(rows))
    count, merged = fresh, sum(rows[:fresh])
    while count < large and (merged >= rows[count] or large - count >= MOST_RUNS):
        merged += rows[count]
        count += 1
    return count
