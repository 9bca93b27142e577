"""Our own packages as one zip file, which Flink takes to the TaskManagers' Python workers.

So a cluster on other machines needs the `flink` environment, and no checkout.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

PACKAGES = ("schemas", "processors", "ingest")
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The same sources give the same bytes, whenever they were checked out."""


def build_package(checkout: Path, folder: Path) -> Path:
    """Write the packages' sources to ``folder/cliplake-<hash>.zip`` and return its path."""
    files = sorted(
        file
        for package in PACKAGES
        for file in (checkout / package).rglob("*.py")
        # The pool needs Ray and pypaimon, which the Flink environment cannot have.
        if "pool" not in file.relative_to(checkout).parts
    )
    digest = hashlib.sha256()
    for file in files:
        digest.update(str(file.relative_to(checkout)).encode() + b"\0")
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"cliplake-{digest.hexdigest()[:16]}.zip"
    if not target.exists():
        partial = target.with_suffix(f".{os.getpid()}.tmp")
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in files:
                info = zipfile.ZipInfo(str(file.relative_to(checkout)), _EPOCH)
                info.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(info, file.read_bytes())
        partial.replace(target)
    return target
