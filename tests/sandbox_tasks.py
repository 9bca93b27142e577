"""What the sandbox's tests run in the child process; a module of its own, as real tasks have."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from pathlib import Path

from processors.errors import MediaError
from schemas.reasons import MediaReason


def add(a: int, b: int) -> int:
    return a + b


def process_id() -> int:
    return os.getpid()


def die(signal_number: int) -> None:
    os.kill(os.getpid(), signal_number)
    time.sleep(60)


def leave(code: int) -> None:
    os._exit(code)


def sleep(seconds: float) -> None:
    time.sleep(seconds)


def spin() -> None:
    while True:
        pass


def allocate(size: int) -> int:
    return len(bytearray(size))


def refuse() -> None:
    raise MediaError(MediaReason.TRUNCATED, "half of it is missing", stage="probe")


def fail() -> None:
    raise KeyError("something unforeseen")


def unpicklable() -> object:
    return threading.Lock()


def write_file(path: str) -> None:
    Path(path).write_bytes(b"x" * 100)


def limits() -> dict[str, int]:
    return {
        "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
        "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "interrupt_ignored": int(signal.getsignal(signal.SIGINT) is signal.SIG_IGN),
    }


def loaded_modules(*names: str) -> list[str]:
    import sys

    return [name for name in names if name in sys.modules]
