"""What goes to the TaskManagers is complete, importable, and the same for the same sources."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ingest.packages import build_package
from schemas.settings import CHECKOUT


def test_the_operators_code_can_be_imported_from_the_package_alone(tmp_path: Path) -> None:
    package = build_package(CHECKOUT, tmp_path)
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import ingest.elements, ingest.validation, processors.media.sandbox, processors.fetch\n"
        "print(ingest.elements.__file__, processors.fetch.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", script, str(package)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.count(str(package)) == 2


def test_the_same_sources_give_the_same_bytes(tmp_path: Path) -> None:
    first = build_package(CHECKOUT, tmp_path / "a")
    second = build_package(CHECKOUT, tmp_path / "b")
    assert first.name == second.name
    assert first.read_bytes() == second.read_bytes()
