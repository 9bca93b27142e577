"""What the pool's driver says of itself in its status file, if it still runs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import psutil

from processors.pool.status_file import status_path
from schemas.settings import Settings


@dataclass(frozen=True)
class PoolView:
    """The driver as it was at most a moment ago."""

    pid: int
    snapshot: int
    latest_snapshot: int
    in_flight: int
    clips_per_second: float
    actors: int
    paused: bool
    updated_at: str

    @property
    def snapshots_behind(self) -> int:
        return max(0, self.latest_snapshot - self.snapshot)


def read_pool(settings: Settings) -> PoolView | None:
    """None if no driver runs on this machine with this state folder."""
    try:
        found: dict[str, Any] = json.loads(status_path(settings).read_text(encoding="utf-8"))
        view = PoolView(**{name: found[name] for name in PoolView.__dataclass_fields__})
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return view if psutil.pid_exists(view.pid) else None
