"""Runs the command `cliplake` as a user would; shared by the tests of the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from schemas.settings import CHECKOUT


def cliplake(
    *arguments: str, cwd: Path, stdin: str | None = None, timeout: float = 120.0, **variables: str
) -> subprocess.CompletedProcess[str]:
    """The finished command, without the settings of whoever runs the tests."""
    environment = {k: v for k, v in os.environ.items() if not k.upper().startswith("CLIPLAKE")}
    return subprocess.run(
        [sys.executable, "-m", "cliplake.main", *arguments],
        cwd=cwd,
        env={**environment, "PYTHONPATH": str(CHECKOUT), "COLUMNS": "100", **variables},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
