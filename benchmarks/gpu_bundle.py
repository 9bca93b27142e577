"""What the GPU benchmark needs on a bare machine that has torch and transformers and no network.

``python -m benchmarks.gpu_bundle .gpu`` puts the packages that such a machine lacks into FOLDER,
one archive for each environment, and beside them the videos. ``benchmarks/gpu_bare.sh`` runs the
benchmark with them there.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import gpu_inputs
from schemas.settings import CHECKOUT

OURS = (
    *("av", "pydantic", "pydantic-core", "pydantic-settings", "tenacity"),
    *("annotated-types", "python-dotenv", "typing-extensions", "typing-inspection"),
)
DATAJUICER = (
    *("av", "py-data-juicer", "simple-aesthetics-predictor"),
    *("beautifulsoup4", "datasets", "dill", "fsspec", "jsonargparse", "loguru", "lz4"),
    *("multiprocess", "soupsieve", "tomli", "typeshed-client", "zstandard"),
)
SOURCES = ("emoji", "wget")
"""Of DataJuicer's: pure Python, and published without a wheel."""
_PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 26, 24, 17)]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.gpu_bundle", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", default="3.12", help="of the bare machine (default: 3.12)")
    parser.add_argument("--height", type=int, default=360, help="of the videos (default: 360)")
    options = parser.parse_args(arguments)
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    gpu_inputs.make(folder / "full", tiny=False, height=options.height)
    pinned = pins("workers.txt")
    _archive(folder / "ours.tar.xz", [pinned[name] for name in OURS], [], options.python)
    pinned = pins("datajuicer.txt", "datajuicer-no-deps.txt")
    wheels, sources = ([pinned[name] for name in names] for names in (DATAJUICER, SOURCES))
    _archive(folder / "datajuicer.tar.xz", wheels, sources, options.python)


def pins(*files: str) -> dict[str, str]:
    """``name==version`` by name, of files in ``requirements``."""
    found = {}
    for file in files:
        text = (CHECKOUT / "requirements" / file).read_text(encoding="utf-8")
        for match in re.finditer(r"^([A-Za-z0-9_.-]+)(\[.*\])?==\S+", text, re.MULTILINE):
            found[match[1].lower()] = match[0]
    return found


def _archive(path: Path, wheels: list[str], sources: list[str], python: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
        there = ["--target", scratch]
        asked = ["--only-binary=:all:", "--implementation", "cp", "--python-version", python]
        asked += [part for name in _PLATFORMS for part in ("--platform", name)]
        subprocess.run([*pip, *there, *asked, *wheels], check=True)
        if sources:
            subprocess.run([*pip, *there, *sources], check=True)
        with tarfile.open(path, "w:xz", preset=6) as archive:
            archive.add(scratch, arcname=".", filter=_wanted)
    print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")


def _wanted(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    # zstandard has its code twice, 12 MB each; of the two, Python's own loads the other.
    return None if re.search(r"zstandard/_cffi\.|\.p[yx][xd]$", entry.name) else entry


if __name__ == "__main__":
    main()
