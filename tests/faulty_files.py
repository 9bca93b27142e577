"""A file system that fails, for the tests of the lake: below pypaimon's own handling of errors.

What pypaimon opens and renames in a lake on this disk goes through here while `faulty` lasts.
"""

from __future__ import annotations

import errno
import io
import os
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
from pypaimon.filesystem import local_file_io

_PLACES = {"data": "/bucket-", "manifest": "/manifest/", "snapshot": "/snapshot/"}


class Faults:
    """What is to fail, and what did."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self.rate = 0.0
        """Of all reads, writes and renames, by chance."""
        self.full = ""
        """``data``, ``manifest`` or ``snapshot``: where no byte can be written."""
        self.full_for = 1_000_000
        """So many writes there fail; then there is room."""
        self.renames_that_seem_to_fail = 0
        """So many of the next renames of snapshots happen, and report a failure."""
        self.met: Counter[str] = Counter()

    def pass_(self, what: str, path: str) -> None:
        """OSError if this read, write or rename fails; it has not happened then."""
        if what == "write" and self.full and _PLACES[self.full] in path and self.full_for:
            self.full_for -= 1
            self.met["full"] += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        if self._random.random() < self.rate:
            self.met[what] += 1
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    def renamed(self, path: str) -> None:
        """OSError if this rename, which has happened, reports a failure."""
        if self.renames_that_seem_to_fail and "/snapshot/snapshot-" in path:
            self.renames_that_seem_to_fail -= 1
        elif self._random.random() >= self.rate:
            return
        self.met["renamed"] += 1
        raise OSError(errno.EIO, os.strerror(errno.EIO), path)


class _File(io.FileIO):
    """A file without a buffer; what lies above it is Python's own."""

    def __init__(self, path: str, mode: str, faults: Faults) -> None:
        super().__init__(path, mode)
        self._faults = faults

    def readinto(self, buffer: Any) -> int:
        self._faults.pass_("read", str(self.name))
        return super().readinto(buffer) or 0

    def readall(self) -> bytes:
        self._faults.pass_("read", str(self.name))
        return super().readall()

    def write(self, data: Any) -> int:
        self._faults.pass_("write", str(self.name))
        return super().write(data)


@contextmanager
def faulty(faults: Faults) -> Iterator[None]:
    """Have pypaimon's local files meet these faults."""

    def open_(path: Any, mode: str = "r", **options: Any) -> IO[Any]:
        raw = _File(str(path), mode.replace("b", ""), faults)
        if "r" in mode:
            return io.BufferedReader(raw)
        buffered = io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, **options)

    real_rename, real_link, real_text = Path.rename, os.link, Path.write_text

    def rename(path: Path, target: Any) -> Path:
        faults.pass_("rename", str(target))
        moved = real_rename(path, target)
        faults.renamed(str(target))
        return moved

    def link(path: Any, target: Any) -> None:
        """What stands for the rename of a snapshot here (`processors.pool.atomic`)."""
        faults.pass_("rename", str(target))
        real_link(path, target)
        faults.renamed(str(target))

    def write_text(path: Path, text: str, **options: Any) -> int:
        faults.pass_("write", str(path))
        return real_text(path, text, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local_file_io, "open", open_, raising=False)
        patch.setattr(Path, "rename", rename)
        patch.setattr(Path, "write_text", write_text)
        patch.setattr(os, "link", link)
        yield
