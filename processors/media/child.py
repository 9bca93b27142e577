"""The process in which libav runs: takes a function and arguments, answers with the result.

Started by `processors.media.sandbox` and by nothing else. It imports what decoding needs first,
then limits itself, then works until its parent closes the connection or dies.
"""

from __future__ import annotations

import importlib
import math
import resource
import signal
import sys
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import av
import cv2
import numpy  # noqa: F401  imported before the limits are set, like the two above

from processors.errors import MediaError
from processors.media import pixels, scoring  # noqa: F401  what decoding needs besides
from processors.media.container import limit_pixels
from processors.media.messages import Answer, Task
from processors.orphans import die_with

_MAX_OPEN_FILES = 64
_CPU_GRACE_S = 10
"""CPU time beyond the deadline: the parent's clock should strike first."""


class Limits(NamedTuple):
    """What the process may take."""

    memory_bytes: int
    """Address space beyond what it has after its imports."""
    max_pixels: int
    max_file_bytes: int
    """Of a file that it writes."""


def main(argv: list[str]) -> None:
    """Serve tasks over the connection whose file descriptor is the first argument.

    Then come the parent's process id, the `Limits`, and modules to import before them.
    """
    numbers, modules = argv[: 2 + len(Limits._fields)], argv[2 + len(Limits._fields) :]
    descriptor, parent, *limits = map(int, numbers)
    # Ctrl-C goes to the whole process group; when to stop is the parent's decision.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with(parent)
    connection: Connection[Answer, Any] = Connection(descriptor)
    for module in modules:
        importlib.import_module(module)
    _limit(Limits(*limits))
    connection.send(Answer())
    while True:
        try:
            task = connection.recv()
        except (EOFError, OSError):
            return
        except Exception as error:
            # Arguments that cannot be unpickled here, say of a module that is not importable.
            connection.send(_failed(error))
            continue
        _allow_cpu(task.deadline_s)
        answer = _perform(task)
        try:
            connection.send(answer)
        except (BrokenPipeError, ConnectionResetError):
            return
        except Exception as error:
            connection.send(_failed(error))


def _perform(task: Task) -> Answer:
    try:
        return Answer(value=task.function(*task.args))
    except MediaError as error:
        return Answer(media_error=error)
    except MemoryError as error:
        return Answer(out_of_memory=str(error) or "MemoryError")
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            return Answer(out_of_memory="OpenCV could not allocate memory")
        return _failed(error)
    except Exception as error:
        return _failed(error)


def _failed(error: BaseException) -> Answer:
    text = f"{type(error).__name__}: {error}"
    return Answer(error=text, trace="".join(traceback.format_exception(error)))


def _limit(limits: Limits) -> None:
    # Decoding is parallel over processes; threads would also count against the address space.
    cv2.setNumThreads(1)
    av.logging.set_level(None)
    limit_pixels(limits.max_pixels)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    allowed = {
        resource.RLIMIT_AS: in_use + limits.memory_bytes,
        resource.RLIMIT_FSIZE: limits.max_file_bytes,
        resource.RLIMIT_NOFILE: _MAX_OPEN_FILES,
        resource.RLIMIT_CORE: 0,
    }
    for kind, value in allowed.items():
        hard = resource.getrlimit(kind)[1]
        # An administrator's limit may be tighter than ours.
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def _allow_cpu(deadline_s: float) -> None:
    """Let the process use CPU for one more task: the limit counts over its whole life."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = math.ceil(used.ru_utime + used.ru_stime + deadline_s) + _CPU_GRACE_S
    if hard != resource.RLIM_INFINITY:
        soft = min(soft, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


if __name__ == "__main__":
    main(sys.argv[1:])
