"""Publishes dead letters as a process of the stack: ``cliplake dead-letters publish``."""

from __future__ import annotations

import sys
from pathlib import Path

from deploy.local.parts import Part
from schemas.settings import CHECKOUT, Settings

PUBLISHER = "letters"
FINAL_EXIT_CODES = frozenset({2, 3, 4})
"""Of `cliplake`: settings that cannot be used, a position that is lost, or another publisher."""


def letter_publisher(settings: Settings, settings_file: Path) -> Part:
    """The publisher; ready once it knows where to go on, be the topic reachable or not."""
    # Its own file (processors.pool.letter_positions); the stack knows the place alone.
    positions = settings.state_dir / "dead-letters" / "position.json"
    command = [sys.executable, "-m", "cliplake.main", "--settings-json", str(settings_file)]
    return Part(
        name=PUBLISHER,
        command=[*command, "dead-letters", "publish"],
        log=settings.state_dir / "logs" / "letters.log",
        cwd=CHECKOUT,
        is_ready=positions.is_file,
        needs=("broker",) if settings.local.start_kafka else (),
        final_exit_codes=FINAL_EXIT_CODES,
    )
