"""Clips that were read and wait for an actor: kept as Arrow, handed out as micro-batches.

The clips of one video go out together where they fit, so that its bytes are fetched once. Those
of a longer video go to one node as long as others have something else to do: a node keeps what it
fetched (`processors.fetch_cache`), and does not share it with others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
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
    """Rows before this one went out, or are what is left of a video that was cut."""

    def end_of_batch(self, start: int, limit: int) -> int:
        """Where a batch of at most ``limit`` rows ends: with a video if it can."""
        stop: int = min(start + limit, self.rows.num_rows)
        place = int(np.searchsorted(self.video_ends, stop, side="right"))
        if place > 0 and self.video_ends[place - 1] > start:
            stop = int(self.video_ends[place - 1])
        return stop

    def end_of_video(self, row: int) -> int:
        """The row after the last one of this row's video."""
        return int(self.video_ends[np.searchsorted(self.video_ends, row, side="right")])


@dataclass(eq=False)
class _Rest:
    """What is left of a video that was cut: rows ``[start, stop)`` of a part."""

    part: _Part
    start: int
    stop: int
    nodes: set[str]
    """Those that have been given clips of it."""


class Backlog:
    """First in, first out by chunk; within a chunk by video."""

    def __init__(self) -> None:
        self._parts: deque[_Part] = deque()
        self._rests: list[_Rest] = []
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

    def take(
        self, limit: int, node: str = "", nodes: Collection[str] = ()
    ) -> tuple[pa.Table, Span, list[int]] | None:
        """The next micro-batch: rows, their span and their places in it; None if there is none.

        At most ``limit`` rows; a video is only cut if it alone has more than that. ``node`` is
        where the batch is likely to go, one of ``nodes``, all that there are: what is left of a
        video that another one has begun is for that one, unless there is nothing else.
        """
        rest = self._rest_for(node, nodes)
        if rest is not None:
            part, start = rest.part, rest.start
        elif self._parts:
            part = self._parts[0]
            start = part.taken
        else:
            return None
        stop = part.end_of_batch(start, limit)
        if rest is not None:
            # Videos behind it can share its last batch if they have not gone out.
            stop = stop if rest.stop == part.taken else min(stop, rest.stop)
            rest.start = stop
            rest.nodes.add(node)
            if stop >= rest.stop:
                self._rests.remove(rest)
            part.taken = max(part.taken, stop)
        else:
            part.taken = part.end_of_video(stop - 1)
            if part.taken > stop:
                self._rests.append(_Rest(part, stop, part.taken, {node}))
        self.rows -= stop - start
        if self._parts and self._parts[0].taken == self._parts[0].rows.num_rows:
            self._parts.popleft()
        rows = part.rows.slice(start, stop - start)
        return rows, part.span, part.indices[start:stop].tolist()

    def _rest_for(self, node: str, nodes: Collection[str]) -> _Rest | None:
        for rest in self._rests:
            if node in rest.nodes or rest.nodes.isdisjoint(nodes):
                return rest
        return self._rests[0] if self._rests and not self._parts else None
