"""Clips that were read and wait for an actor: kept as Arrow, handed out as micro-batches.

The clips of one video go out together where they fit, so that its bytes are fetched once.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from processors.pool.progress import Span


@dataclass
class _Part:
    rows: pa.Table
    """Sorted by video and place in it."""
    indices: npt.NDArray[np.int64]
    """Place of each row in its span."""
    video_ends: npt.NDArray[np.int64]
    """Row after each video's last one, ascending."""
    span: Span
    taken: int = 0


class Backlog:
    """First in, first out by chunk; within a chunk by video."""

    def __init__(self) -> None:
        self._parts: deque[_Part] = deque()
        self.rows = 0

    def add(self, rows: pa.Table, indices: npt.NDArray[np.int64], span: Span) -> None:
        """Take rows of one span; ``indices`` are their places in it."""
        if rows.num_rows == 0:
            return
        order = pc.sort_indices(
            rows, sort_keys=[("video_key", "ascending"), ("clip_index", "ascending")]
        ).to_numpy()
        rows = rows.take(order)
        keys = rows.column("video_key").to_numpy()
        ends = np.append(np.flatnonzero(keys[1:] != keys[:-1]) + 1, rows.num_rows)
        self._parts.append(_Part(rows, indices[order], ends, span))
        self.rows += rows.num_rows

    def take(self, limit: int) -> tuple[pa.Table, Span, list[int]] | None:
        """The next micro-batch: rows, their span and their places in it; None if there is none.

        At most ``limit`` rows; a video is only cut if it alone has more than that.
        """
        if not self._parts:
            return None
        part = self._parts[0]
        start = part.taken
        stop = min(start + limit, part.rows.num_rows)
        place = int(np.searchsorted(part.video_ends, stop, side="right"))
        if place > 0 and part.video_ends[place - 1] > start:
            stop = int(part.video_ends[place - 1])
        part.taken = stop
        self.rows -= stop - start
        if stop == part.rows.num_rows:
            self._parts.popleft()
        rows = part.rows.slice(start, stop - start)
        return rows, part.span, part.indices[start:stop].tolist()
