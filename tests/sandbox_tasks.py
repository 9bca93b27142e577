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


def limits() -> dict[str, tuple[int, int]]:
    """Soft and hard limits by name, and the CPU seconds used so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    found = {
        name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))
        for name in ("AS", "CPU", "FSIZE", "NOFILE", "CORE")
    }
    return {**found, "used": (int(used.ru_utime + used.ru_stime), 0)}


def ignores_interrupts() -> bool:
    return signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def open_files(count: int) -> None:
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(count)]
    for descriptor in held:
        os.close(descriptor)


def burn(seconds: float) -> None:
    """Use the CPU beyond a limit that is set here, as a task that outlives its clock would."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def environment() -> dict[str, str]:
    return dict(os.environ)


def loaded_modules(*names: str) -> list[str]:
    import sys

    return [name for name in names if name in sys.modules]
