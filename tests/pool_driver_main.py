"""A driver in a process of its own that kills itself with -9 at a named point.

``python -m tests.pool_driver_main SETTINGS_JSON RECIPE_JSON [POINT NTH]``
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from processors.pool.commits import Committer
from processors.pool.dispatch import Dispatcher
from processors.pool.driver import Driver
from processors.pool.source import ClipSource
from schemas.recipe import parse_recipe
from schemas.settings import load_settings_json

POINTS: dict[str, tuple[type, str, str]] = {
    "epoch claimed": (Committer, "commit", "after"),
    "chunk read": (ClipSource, "read", "after"),
    "batch submitted": (Dispatcher, "submit", "after"),
    "before frames": (Committer, "commit_frames", "before"),
    "after frames": (Committer, "commit_frames", "after"),
    "after failures": (Committer, "commit_failed", "after"),
    "rows written": (Committer, "_write", "after"),
    "after enriched": (Committer, "commit_enriched", "after"),
}


def kill_at(point: str, nth: int) -> None:
    """Arrange for this process to die when a point is passed the ``nth`` time."""
    owner, name, when = POINTS[point]
    real: Callable[..., Any] = getattr(owner, name)
    passed = 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal passed
        passed += 1
        if passed == nth and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **kwargs)
        if passed == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, wrapped)


def main() -> None:
    logging.basicConfig(level=logging.INFO)
    settings = load_settings_json(sys.argv[1])
    recipe = parse_recipe(Path(sys.argv[2]).read_text(), where="test", default_name="test")
    if len(sys.argv) > 3:
        kill_at(sys.argv[3], int(sys.argv[4]))
    Driver(settings, recipe, chain="tests.pool_chains:Scripted").run()


if __name__ == "__main__":
    main()
