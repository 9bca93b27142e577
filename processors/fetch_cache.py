"""Objects that this machine keeps for further work on their video, so that it fetches each once.

An entry is a file of the scratch folder whose name says what it is of. While somebody fetches the
object it is empty and locked by them; then the whole file, whose hash is right, takes its place by
a rename. So no half file can be taken for a whole one, and whoever is killed leaves an empty one
without a lock. An entry in use is locked as well, by each who uses it, and is not removed.
What is kept for one purpose serves no other: the enrichment fetches what the split had as well, and
so notices a source that changed.
What goes wrong here costs no more than the fetch that it would have saved: no error leaves it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from processors.scratch import STALE_S

UNUSED_S = 3600.0
"""Entries that nobody has used for so long are removed: the clips of a video, tried again or not,
come minutes after one another."""
_SWEEP_S = 600.0
_LOOK_S = 0.05
_MOST_TURNS = 100
"""How often an entry may be removed or replaced just when we have found it."""
_PREFIX = "kept-"
_MOST_VERIFIED = 1000


@dataclass(frozen=True)
class Kept:
    """An entry that is there, locked for its user."""

    path: Path
    size: int


@dataclass(frozen=True)
class _Entry:
    path: Path
    size: int
    made: float
    used: float
    """Times since 1970."""


class ObjectCache:
    """The entries of one scratch folder; several threads and processes may use it."""

    def __init__(self, scratch_dir: Path, max_bytes: int, purpose: str = "") -> None:
        """``max_bytes``: of all entries together, whatever they are kept for; they never have more
        than half of the room that there would be without them either.

        ``purpose``: what entries are kept for; by default any, of a cache that only removes them.
        """
        self._folder = scratch_dir
        self._prefix = f"{_PREFIX}{purpose}-" if purpose else _PREFIX
        self._max_bytes = max_bytes
        self._verified: dict[Path, tuple[int, ...]] = {}
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def find(self, uri: str, sha256: str, wait_s: float, cleanup: ExitStack) -> Kept | Place | None:
        """The entry of this object with this content, in use until ``cleanup`` ends; or, if there
        is none, its place, for who fetches it now.

        Whoever else fetches it is waited for. None if that takes longer than ``wait_s`` or was
        in vain: then the object had better be fetched without looking here.
        """
        try:
            return self._find(self._path(uri, sha256), sha256, wait_s, cleanup)
        except OSError:
            return None

    def give_room(self) -> bool:
        """Remove the entry that was used longest ago; False if there is none that may go."""
        return any(_drop(entry.path) for entry in self._entries() if entry.size)

    def drop(self, uri: str, sha256: str) -> None:
        """Remove an entry, unless it is in use."""
        _drop(self._path(uri, sha256))

    def close(self) -> None:
        """Remove all entries of our purpose that nobody uses now."""
        with self._lock:
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        for entry in self._entries():
            if entry.path.name.startswith(self._prefix):
                _drop(entry.path)

    def keep(self, file: Path, path: Path) -> bool:
        """Move a whole file into its place, if there is room for it; for whoever has the place."""
        try:
            with self._alone():
                status = file.stat()
                if not self._make_room(status.st_size):
                    return False
                file.rename(path)
        except OSError:
            return False
        self._remember(path, status)
        self._sweep_later()
        return True

    def _path(self, uri: str, sha256: str) -> Path:
        # Where the object is from counts as well: the same bytes elsewhere are another store's.
        name = hashlib.sha256(f"{sha256} {uri}".encode(errors="surrogatepass")).hexdigest()
        return self._folder / (self._prefix + name)

    def _find(
        self, path: Path, sha256: str, wait_s: float, cleanup: ExitStack
    ) -> Kept | Place | None:
        give_up = time.monotonic() + wait_s
        self._folder.mkdir(parents=True, exist_ok=True)
        for _ in range(_MOST_TURNS):
            with ExitStack() as opened:
                descriptor = _open(path, os.O_CREAT)
                opened.callback(os.close, descriptor)
                if os.fstat(descriptor).st_size:
                    if self._take(descriptor, path, sha256):
                        cleanup.push(opened.pop_all())
                        return Kept(path, os.fstat(descriptor).st_size)
                    continue
                free_at_once = _try_lock(descriptor)
                if not free_at_once and not _wait_for(descriptor, give_up):
                    return None
                if _is_at(descriptor, path):
                    return Place(self, path, opened.pop_all())
                if not free_at_once and not path.exists():
                    return None
        return None

    def _take(self, descriptor: int, path: Path, sha256: str) -> bool:
        """Lock an entry for its user; False if it is not there any more, or not what it should
        be, and is removed then."""
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if not _is_at(descriptor, path):
            return False
        status = os.fstat(descriptor)
        if self._verified.get(path) != _identity(status):
            # A machine that went down may have left anything; once a process is often enough.
            with open(descriptor, "rb", closefd=False) as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                    path.unlink(missing_ok=True)
                    return False
            self._remember(path, status)
        os.utime(descriptor, ns=(time.time_ns(), status.st_mtime_ns))
        return True

    def _remember(self, path: Path, status: os.stat_result) -> None:
        with self._lock:
            if len(self._verified) >= _MOST_VERIFIED:
                self._verified.clear()
            self._verified[path] = _identity(status)

    def _make_room(self, size: int) -> bool:
        """Remove what has to go for an entry of ``size`` bytes; False if it cannot be kept."""
        entries = self._entries()
        total = sum(entry.size for entry in entries)
        status = os.statvfs(self._folder)
        room = status.f_bavail * status.f_frsize + total + size
        most = min(self._max_bytes, room // 2)
        self._sweep(entries)
        if size > most:
            return False
        for entry in entries:
            if total + size <= most:
                break
            if not entry.path.exists() or _drop(entry.path):
                total -= entry.size
        return total + size <= most

    def _sweep(self, entries: list[_Entry]) -> None:
        """Remove what nobody has used for long, and what killed processes left empty."""
        now = time.time()
        for entry in entries:
            if now - entry.used > UNUSED_S or (not entry.size and now - entry.made > STALE_S):
                _drop(entry.path)

    def _sweep_later(self) -> None:
        """Look now and then, as long as there are entries: there may be no more to fetch."""
        with self._lock:
            if self._timer is None:
                self._timer = threading.Timer(_SWEEP_S, self._sweep_now)
                self._timer.daemon = True
                self._timer.start()

    def _sweep_now(self) -> None:
        with self._lock:
            if self._timer is None:
                return
            self._timer = None
        self._sweep(self._entries())
        if self._entries():
            self._sweep_later()

    def _entries(self) -> list[_Entry]:
        """All there are, those first that were used longest ago."""
        found = []
        for path in self._folder.glob(f"{_PREFIX}*"):
            with contextlib.suppress(OSError):
                status = path.lstat()
                if stat.S_ISREG(status.st_mode):
                    times = status.st_mtime, max(status.st_atime, status.st_mtime)
                    found.append(_Entry(path, status.st_size, *times))
        return sorted(found, key=lambda entry: entry.used)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else makes room meanwhile."""
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


class Place:
    """Where an object will be kept; whoever has it fetches the object, and nobody else does."""

    def __init__(self, cache: ObjectCache, path: Path, lock: ExitStack) -> None:
        self._cache = cache
        self._lock = lock
        self._taken = False
        self.path = path

    def keep(self, file: Path) -> bool:
        """Move the object, whose hash is right, here; False if it stays where it is.

        It has to be locked by its user, as scratch files are.
        """
        self._taken = self._cache.keep(file, self.path)
        return self._taken

    def __enter__(self) -> Place:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            if not self._taken:
                # Those who wait see by this that it was in vain, and not that we were killed.
                with contextlib.suppress(OSError):
                    self.path.unlink(missing_ok=True)


def _open(path: Path, more: int = 0) -> int:
    return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | more, 0o600)


def _drop(path: Path) -> bool:
    """Remove an entry unless it is in use; whether it was removed."""
    with contextlib.suppress(OSError), ExitStack() as opened:
        descriptor = _open(path)
        opened.callback(os.close, descriptor)
        if _try_lock(descriptor) and _is_at(descriptor, path):
            path.unlink()
            return True
    return False


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait_for(descriptor: int, give_up: float) -> bool:
    """Lock a file once nobody else has it locked; False if that is not so by ``give_up``."""
    while not _try_lock(descriptor):
        if time.monotonic() >= give_up:
            return False
        time.sleep(_LOOK_S)
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one of that name: while it was waited for, another may be."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_ino, status.st_size, status.st_mtime_ns
