"""How far each table of dead letters has been published: one small file in the state folder.

It is written after the broker has the letters, so what a kill leaves unsaid is sent again. What
is still to be read is held by a Paimon consumer beside each table, as for the driver
(`processors.pool.consumer`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from processors.failpoints import passing
from processors.pool.consumer import hold_snapshots, release_snapshots
from processors.pool.errors import SourceLost
from processors.pool.lake import Lake
from processors.pool.position import Position
from processors.pool.source import CARRIES_NO_NEW_ROWS, rescan_position
from schemas.letter import LETTER_TABLES
from schemas.settings import Settings

CONSUMER_ID = "cliplake-dead-letters"


def positions_file(settings: Settings) -> Path:
    """``<state_dir>/dead-letters/position.json``."""
    return settings.state_dir / "dead-letters" / "position.json"


def way_out(settings: Settings) -> str:
    """What to do about a position that leads nowhere."""
    return (
        f"remove {positions_file(settings)}: the next start publishes every unresolved letter that "
        "the tables hold then, those that are on the topic already too, and goes on from there"
    )


class LetterPositions:
    """The positions in `LETTER_TABLES`, by name. One process at a time (`only_letter_publisher`).

    `SourceLost` if the file is not one of ours.
    """

    def __init__(self, settings: Settings) -> None:
        self._file = positions_file(settings)
        self._of: dict[str, Position] = {}
        try:
            stored = json.loads(self._file.read_text(encoding="utf-8"))
            self._of = {table: _position(values) for table, values in stored.items()}
        except FileNotFoundError:
            pass
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise SourceLost(
                f"{self._file} cannot be read ({type(error).__name__}: {error})", way_out(settings)
            ) from None

    def begin(self, lake: Lake) -> Mapping[str, Position]:
        """Positions to start from; what they need is held from now on.

        A table without one begins with all rows that it has. So does one whose rows were being
        read when the process ended, with the table as it is now.
        """
        for table in LETTER_TABLES:
            stored = self._of.get(table.name)
            if stored is None or (
                stored.mode == "rescan" and stored.source == lake.identity(table.name)
            ):
                stored = rescan_position(lake, table.name)
            self._set(lake, table.name, stored)
            _hold(lake, table.name, stored)
        return dict(self._of)

    def move(self, lake: Lake, table: str, position: Position) -> None:
        """Everything before ``position`` is on the topic."""
        passing("letters.sent")
        self._set(lake, table, position)

    def caught_up(self, lake: Lake, table: str) -> bool:
        """Whether every letter that the table ever had was published."""
        position = self._of.get(table)
        if position is None or position.mode == "rescan":
            return False
        manager = lake.table(table).snapshot_manager()
        for number in range(position.snapshot, (lake.latest_snapshot_id(table) or 0) + 1):
            snapshot = manager.get_snapshot_by_id(number)
            if snapshot is None or snapshot.commit_kind not in CARRIES_NO_NEW_ROWS:
                return False
        return True

    def rewritten(self, lake: Lake, table: str, *, caught_up: bool) -> None:
        """Go on behind a snapshot in which rows were replaced, and were not new.

        If it was not `caught_up` before, with the whole table as it is now: what was removed is
        not published any more.
        """
        position = self._of.get(table)
        if position is None:
            return
        after = (lake.latest_snapshot_id(table) or 0) + 1
        behind = replace(position, snapshot=after, offset=0)
        self._set(lake, table, behind if caught_up else rescan_position(lake, table))

    def _set(self, lake: Lake, table: str, position: Position) -> None:
        before, self._of[table] = self._of.get(table), position
        if position == before:
            return
        text = json.dumps({table: _plain(position) for table, position in self._of.items()})
        self._file.parent.mkdir(parents=True, exist_ok=True)
        part = self._file.with_suffix(".part")
        with part.open("w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        part.replace(self._file)
        if before is not None and position.snapshot != before.snapshot:
            _hold(lake, table, position)


def stop_publishing(settings: Settings, lake: Lake) -> None:
    """Let what was held for publishing expire; a later start begins anew."""
    if not positions_file(settings).exists():
        return
    for table in LETTER_TABLES:
        release_snapshots(lake, table=table.name, consumer_id=CONSUMER_ID)
    positions_file(settings).unlink()


def _hold(lake: Lake, table: str, position: Position) -> None:
    hold_snapshots(lake, position.snapshot, table=table, consumer_id=CONSUMER_ID)


def _plain(position: Position) -> dict[str, str | int]:
    return {
        "table": position.source,
        "mode": position.mode,
        "snapshot": position.snapshot,
        "offset": position.offset,
    }


def _position(values: Mapping[str, str | int]) -> Position:
    mode = values["mode"]
    if mode not in ("follow", "rescan"):
        raise ValueError(f"mode is {mode!r}")
    return Position(
        source=str(values["table"]),
        snapshot=int(values["snapshot"]),
        offset=int(values["offset"]),
        mode="rescan" if mode == "rescan" else "follow",
    )
