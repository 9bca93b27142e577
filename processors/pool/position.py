"""Where the driver is in ``clips``, kept in the snapshot properties of its own commits.

The position travels in the same commit as the rows that it accounts for, so the two can never
disagree. Reading it back means walking from the newest snapshot of ``enriched_clips`` to older
ones, because a compaction's snapshot may carry no properties.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import pyarrow.compute as pc

from processors.pool.errors import PoolError
from processors.pool.lake import Lake

TARGET = "enriched_clips"
SOURCE = "clips"
EPOCH_BITS = 40
"""``enrich_seq`` is ``epoch << 40`` plus a counter: 10^12 clips a start of the driver."""

_EPOCH = "cliplake.driver-epoch"
_SOURCE = "cliplake.source-table"
_MODE = "cliplake.source-mode"
_SNAPSHOT = "cliplake.source-snapshot"
_OFFSET = "cliplake.source-offset"

Mode = Literal["follow", "rescan"]


@dataclass(frozen=True)
class Position:
    """All clips before this point are finished, and their rows are in the lake.

    ``follow``: the snapshots of ``clips`` before ``snapshot``, and the first ``offset`` rows of
    it, in the order in which `processors.pool.source` reads them. ``rescan``: the whole table as
    of ``snapshot`` is being read, and starts over after a restart.
    """

    source: str
    """Identity of the ``clips`` table (`Lake.identity`): another table has other snapshots."""
    snapshot: int
    offset: int = 0
    mode: Mode = "follow"
    epoch: int = 0
    """Number of the driver's start that wrote it; goes up by one with each."""

    def properties(self) -> dict[str, str]:
        """The snapshot properties that hold it."""
        return {
            _EPOCH: str(self.epoch),
            _SOURCE: self.source,
            _MODE: self.mode,
            _SNAPSHOT: str(self.snapshot),
            _OFFSET: str(self.offset),
        }

    def in_epoch(self, epoch: int) -> Position:
        return replace(self, epoch=epoch)


class PositionUnreadable(PoolError):
    """Properties that are ours by name and make no sense: somebody edited them."""


def parse_properties(properties: Mapping[str, str] | None) -> Position | None:
    """The position in a snapshot's properties, or None if it holds none."""
    if not properties or _EPOCH not in properties:
        return None
    try:
        mode = properties[_MODE]
        if mode not in ("follow", "rescan"):
            raise ValueError(f"{_MODE} is {mode!r}")
        return Position(
            source=properties[_SOURCE],
            snapshot=int(properties[_SNAPSHOT]),
            offset=int(properties[_OFFSET]),
            mode="rescan" if mode == "rescan" else "follow",
            epoch=int(properties[_EPOCH]),
        )
    except (KeyError, ValueError) as error:
        raise PositionUnreadable(
            f"the position in a snapshot of {TARGET} cannot be read: {error}"
        ) from None


@dataclass(frozen=True)
class Stored:
    """What the lake remembers of earlier drivers."""

    position: Position | None
    epoch: int
    """The highest epoch in use so far; 0 if no driver ever wrote."""
    lost: bool = False
    """Whether there were commits, and the one that held the position has expired."""


def load_stored(lake: Lake) -> Stored:
    """Find the newest position, over snapshots without one."""
    manager = lake.table(TARGET).snapshot_manager()
    latest: Any = manager.get_latest_snapshot()
    snapshot = latest
    while snapshot is not None:
        position = parse_properties(snapshot.properties)
        if position is not None:
            return Stored(position, position.epoch)
        if snapshot.id == 1:
            break
        snapshot = manager.get_snapshot_by_id(snapshot.id - 1)
    if latest is None:
        return Stored(None, 0)
    # Rows without a position: their sequence numbers must stay below ours.
    return Stored(None, _highest_epoch(lake), lost=snapshot is None)


def _highest_epoch(lake: Lake) -> int:
    column = lake.read(TARGET, ["enrich_seq"]).column("enrich_seq")
    highest = pc.max(column).as_py()
    return 0 if highest is None else int(highest) >> EPOCH_BITS
