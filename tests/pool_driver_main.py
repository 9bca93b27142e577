"""A driver in a process of its own that kills itself with -9 at a named point.

``python -m tests.pool_driver_main SETTINGS_JSON RECIPE_JSON CHAIN [POINT NTH]``
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from processors.pool.cluster import prepare_environment
from processors.pool.driver import Driver
from schemas.recipe import parse_recipe
from schemas.settings import load_settings_json

POINTS: dict[str, tuple[str, str]] = {
    "epoch claimed": ("processors.pool.commits:Committer", "commit"),
    "batch submitted": ("processors.pool.dispatch:Dispatcher", "submit"),
    "after frames": ("processors.pool.commits:Committer", "commit_frames"),
    "after failures": ("processors.pool.commits:Committer", "commit_failed"),
    "rows written": ("processors.pool.commits:Committer", "_write"),
    "after enriched": ("processors.pool.commits:Committer", "commit_enriched"),
}


def kill_at(point: str, nth: int) -> None:
    """Arrange for this process to die when a point is passed the ``nth`` time."""
    place, name = POINTS[point]
    module, _, class_name = place.partition(":")
    owner = getattr(importlib.import_module(module), class_name)
    real: Callable[..., Any] = getattr(owner, name)
    passed = 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal passed
        passed += 1
        result = real(*args, **kwargs)
        if passed == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, wrapped)


def main() -> None:
    logging.basicConfig(level=logging.INFO)
    settings = load_settings_json(sys.argv[1])
    recipe = parse_recipe(Path(sys.argv[2]).read_text(), where="test", default_name="test")
    prepare_environment(settings)
    if len(sys.argv) > 4:
        kill_at(sys.argv[4], int(sys.argv[5]))
    Driver(settings, recipe, chain=sys.argv[3]).run()


if __name__ == "__main__":
    main()
