"""Files that only their owner may read: settings and options may hold passwords."""

from __future__ import annotations

import os
from pathlib import Path


def write_private(file: Path, text: str) -> None:
    """Replace ``file`` whole by ``text``; nobody but its owner can ever have read it."""
    part = file.with_name(f"{file.name}.part")
    # One that a killed process left behind keeps its own mode otherwise.
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        out.write(text)
    part.replace(file)
