"""Which Java runs the broker and Flink."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from deploy.local.errors import StackError


def java() -> str:
    """``$JAVA_HOME/bin/java``, else the one on the PATH; StackError if there is none."""
    home = os.environ.get("JAVA_HOME")
    if home and (Path(home) / "bin" / "java").is_file():
        return str(Path(home) / "bin" / "java")
    found = shutil.which("java")
    if found is None:
        raise StackError("no Java: set JAVA_HOME, or put java (17 or newer) on the PATH")
    return found
