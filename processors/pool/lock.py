"""One driver a lake: Paimon's commit on a plain file system is not atomic between processes.

The lock is the operating system's, so it goes with its process, however that ends. It lies
beside the warehouse if that is a folder, where every driver on this machine finds it; for other
stores it lies in the state folder, and keeping drivers apart across machines is the operator's
task (run one replica).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from filelock import FileLock, Timeout

from processors.pool.errors import AlreadyRunning
from schemas.settings import Settings


def lock_file(settings: Settings) -> Path:
    """Where the lock of this lake's driver is."""
    warehouse = settings.catalog_options["warehouse"]
    parts = urlsplit(warehouse)
    if parts.scheme in ("", "file"):
        # Paimon takes the path of a file: URI as it stands; as_uri() percent-encodes it.
        folder = Path(unquote(parts.path) if parts.scheme else warehouse) / ".cliplake"
    else:
        folder = settings.state_dir / "pool"
    return folder / f"{settings.catalog.database}-driver.lock"


@contextmanager
def only_driver(settings: Settings) -> Iterator[None]:
    """Hold the lock; `AlreadyRunning` names the process that has it."""
    taken = "another driver writes to this lake already (`cliplake down` stops that of `up`)"
    with _held(lock_file(settings), taken):
        yield


@contextmanager
def only_letter_publisher(settings: Settings) -> Iterator[None]:
    """Hold the lock of those who move the place up to which dead letters were published."""
    file = settings.state_dir / "dead-letters" / "publisher.lock"
    with _held(file, f"dead letters are published already from {settings.state_dir}"):
        yield


@contextmanager
def _held(file: Path, taken: str) -> Iterator[None]:
    file.parent.mkdir(parents=True, exist_ok=True)
    # The pid is in a file of its own: the lock's file is truncated by whoever tries for it.
    holder = file.with_suffix(".pid")
    lock = FileLock(file, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        with suppress(OSError):
            pid = holder.read_text(encoding="ascii").strip()
            raise AlreadyRunning(f"{taken}: process {pid} (lock {file})") from None
        raise AlreadyRunning(f"{taken} (lock {file})") from None
    try:
        holder.write_text(f"{os.getpid()}\n", encoding="ascii")
        yield
    finally:
        with suppress(OSError):
            holder.unlink()
        lock.release()
