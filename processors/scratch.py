"""Scratch files for fetched bytes: made, locked while they are in use, and swept after a kill.

A disk that is full or cannot be written is nobody's fault but the machine's, unless one object
is larger than all that could be there. What is only kept there (`processors.fetch_cache`) gives
way first.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from io import FileIO
from pathlib import Path

from processors.errors import DependencyFault
from processors.failpoints import passing
from processors.fetch_problem import FetchProblem
from schemas.reasons import MediaReason

FULL = (errno.ENOSPC, errno.EDQUOT)
"""The numbers of the system's errors for a disk without room."""
ROOM_BYTES = 2**30
"""A disk that could give one object so much is not full: what needs more is too large for it."""
_PREFIX = "fetch-"
STALE_S = 60.0
"""A file or folder here is locked within this time of its creation; before, it is nobody's
leftover."""


class ScratchFolder:
    """Makes scratch files in one folder; several threads may use it."""

    def __init__(self, path: Path, give_room: Callable[[], bool] = lambda: False) -> None:
        """``give_room`` is called while the disk is full: whether it is worth another try."""
        self.path = path
        self._give_room = give_room
        self._swept = False
        self._lock = threading.Lock()

    def new_file(self, cleanup: ExitStack) -> ScratchFile:
        """An open file of our own, removed by ``cleanup``; locked, so that it is no leftover.

        `DependencyFault` if none can be made.
        """
        while True:
            try:
                return self._new_file(cleanup)
            except OSError as error:
                if not self.made_room(error):
                    raise self._fault(error) from error

    def made_room(self, error: OSError) -> bool:
        """Whether to try again what failed with this error."""
        return error.errno in FULL and self._give_room()

    def _new_file(self, cleanup: ExitStack) -> ScratchFile:
        self.path.mkdir(parents=True, exist_ok=True)
        with self._lock:
            if not self._swept:
                _sweep(self.path)
                self._swept = True
        descriptor, name = tempfile.mkstemp(prefix=_PREFIX, dir=self.path)
        path = Path(name)
        cleanup.callback(path.unlink, missing_ok=True)
        file = cleanup.enter_context(os.fdopen(descriptor, "wb", buffering=0))
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        return ScratchFile(self, path, file)

    def problem(self, error: OSError, size: int) -> Exception:
        """What to raise if an object's file cannot grow to ``size`` bytes.

        `DependencyFault`, or a `FetchProblem` (``too_large``) if it would not fit here were it
        alone, though there is room for others.
        """
        if error.errno in FULL and (room := self._room()) >= ROOM_BYTES and size > room:
            return FetchProblem(
                MediaReason.TOO_LARGE,
                f"it has {size} bytes or more, and {self.path} has room for {room}",
            )
        return self._fault(error)

    def _fault(self, error: OSError) -> DependencyFault:
        advice = "; make room there, or set fetch.max_bytes lower" if error.errno in FULL else ""
        return DependencyFault(f"{self.path} cannot be written: {error.strerror}{advice}")

    def _room(self) -> int:
        """Bytes there would be for one file if all other scratch files were gone."""
        status = os.statvfs(self.path)
        room = status.f_bavail * status.f_frsize
        for path in self.path.rglob("*"):
            with contextlib.suppress(OSError):
                room += path.lstat().st_blocks * 512
        return room


class ScratchFile:
    """One object's bytes on their way in; it is read by its name."""

    def __init__(self, folder: ScratchFolder, path: Path, file: FileIO) -> None:
        self._folder = folder
        self._file = file
        self.path = path
        self.size = 0
        """Bytes written since it was emptied last."""

    def empty(self) -> None:
        """Begin anew; `DependencyFault` if that cannot be."""
        try:
            self._file.seek(0)
            self._file.truncate()
        except OSError as error:
            raise self._folder.problem(error, 0) from error
        self.size = 0

    def write(self, chunk: bytes) -> None:
        """Append; raises as `ScratchFolder.problem` says."""
        rest = memoryview(chunk)
        while rest:
            try:
                passing("scratch.write")
                # Without a buffer of Python's, what is refused is refused here and not later.
                rest = rest[self._file.write(rest) :]
            except OSError as error:
                if not self._folder.made_room(error):
                    raise self._folder.problem(error, self.size + len(chunk)) from error
        self.size += len(chunk)


def _sweep(folder: Path) -> None:
    """Remove scratch files whose process is gone: a lock ends with the process that held it."""
    for path in folder.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError), path.open("rb") as file:
            if time.time() - os.fstat(file.fileno()).st_mtime < STALE_S:
                continue
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
