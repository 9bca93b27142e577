"""The files by which one process owns a state folder, and others find it.

``stack.lock`` is held by the process that runs the stack (the kernel frees it at its death);
``stack.json`` says which one and on which ports; ``settings.json`` are its settings with the real
ports.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from deploy.local.errors import StackRuns
from deploy.local.marked import Mark
from deploy.local.private_files import write_private
from schemas.settings import Settings, dump_settings, load_settings_json

LOCK, RECORD, SETTINGS, PORTS = "stack.lock", "stack.json", "settings.json", "ports.json"


@dataclass(frozen=True)
class Owner:
    """Who runs, or ran, the stack of a state folder."""

    pid: int
    created: float
    """When that process started, seconds since 1970: a pid alone may be another one's by now."""
    boot: str
    """The boot of the machine it belongs to."""
    run: str

    @classmethod
    def this_process(cls) -> Owner:
        me = psutil.Process()
        return cls(me.pid, me.create_time(), _boot(), secrets.token_hex(4))

    def process(self) -> psutil.Process | None:
        """Its process, if it still runs."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.created) < 1.0
        except psutil.Error:
            return None
        return process if same and self.boot == _boot() else None

    def is_of_this_boot(self) -> bool:
        """Whether the machine has not been restarted since."""
        return self.boot == _boot()


class StateFolder:
    """One state folder. `own` makes this process its owner; the rest is for others."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = _Lock(folder / LOCK)

    def mark(self, run: str = "") -> Mark:
        """The mark of the processes of this folder's stack."""
        return Mark(sha256(os.fsencode(self.folder)).hexdigest()[:12], run)

    def own(self) -> Owner:
        """Take the folder; `StackRuns` naming the owner if another process has it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._lock.take():
            raise self._runs()
        owner = Owner.this_process()
        write_private(self.folder / RECORD, json.dumps(asdict(owner)))
        return owner

    def require_free(self) -> None:
        """`StackRuns` if another process owns the folder now."""
        if self.is_owned():
            raise self._runs()

    def _runs(self) -> StackRuns:
        owner = self.owner()
        who = f"pid {owner.pid}" if owner else "another process"
        return StackRuns(
            f"a stack is running already in {self.folder} ({who}): stop it with "
            "`cliplake down`, or choose another folder with local.state_dir"
        )

    def publish(self, settings: Settings, ports: Mapping[str, int]) -> Path:
        """Leave the real settings and ports for other processes; returns the settings' file."""
        write_private(self.folder / PORTS, json.dumps(dict(ports), indent=1))
        write_private(self.folder / SETTINGS, dump_settings(settings))
        return self.folder / SETTINGS

    def release(self) -> None:
        """Give the folder back. Its lake, topic data, checkpoints and logs stay."""
        self.forget()
        self._lock.free()

    def forget(self) -> None:
        """Remove what says that a stack runs here."""
        for name in (RECORD, PORTS, SETTINGS):
            (self.folder / name).unlink(missing_ok=True)

    def owner(self) -> Owner | None:
        """What the record says, be it true or not; None without a readable record."""
        try:
            return Owner(**json.loads((self.folder / RECORD).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def is_owned(self) -> bool:
        """Whether a process owns the folder now."""
        if not self.folder.is_dir():
            return False
        with _Lock(self.folder / LOCK) as lock:
            return not lock.take()

    def wait_until_free(self, timeout_s: float) -> bool:
        """Whether the owner gave it back within the time."""
        deadline = time.monotonic() + timeout_s
        while self.is_owned():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def running_settings(self) -> Settings | None:
        """Settings with the real ports of the stack that runs here; None if none does."""
        file = self.folder / SETTINGS
        return load_settings_json(file) if self.is_owned() and file.is_file() else None


class _Lock:
    """A lock on a file, tied to this open file: not inherited, and freed at the process's end."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._descriptor: int | None = None

    def take(self) -> bool:
        descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def free(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.free()


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return str(int(psutil.boot_time()))
