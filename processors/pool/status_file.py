"""What the driver is doing, for `cliplake status` and whoever watches it: one small JSON file."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from schemas.settings import Settings


def status_path(settings: Settings) -> Path:
    """``<state_dir>/pool/status.json``."""
    return settings.state_dir / "pool" / "status.json"


@dataclass
class PoolStatus:
    """Counts are of this start of the driver."""

    snapshot: int = 0
    """The snapshot of ``clips`` that is being read or waited for."""
    latest_snapshot: int = 0
    in_flight: int = 0
    kept: int = 0
    rejected: int = 0
    failed: int = 0
    skipped: int = 0
    clips_per_second: float = 0.0
    """Over about the last ten seconds."""
    actors: int = 0
    paused: bool = False
    """Waiting for something that the actors depend on."""
    pid: int = field(default_factory=os.getpid)

    def write(self, path: Path) -> None:
        """Replace the file in one step, so that no reader sees half of it."""
        text = json.dumps({**asdict(self), "updated_at": datetime.now(UTC).isoformat()})
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(text, encoding="utf-8")
        part.replace(path)
