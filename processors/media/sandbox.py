"""A limited child process for work on untrusted media: it may crash, hang or eat memory.

What it guards against is accidents: a decoder's crash, endless loops, bombs. It is not a wall
against code that has taken over libav; run the workers in containers for that.

The child is a plain interpreter, not one of multiprocessing's: those import the parent's
``__main__``, which is Flink's or Ray's worker here, with all that it drags in.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from processors.errors import MediaError
from processors.media.messages import Answer, Task
from processors.piped import LONGEST_S, PipedProcess, ProcessEnded
from schemas.reasons import MediaReason
from schemas.settings import DecodeSettings

T = TypeVar("T")

_START_TIMEOUT_S = 120.0
"""A child that has not imported its libraries by then never will: a broken installation."""
_ROOT = str(Path(__file__).resolve().parents[2])
_VARIABLES = frozenset(
    {
        *("HOME", "LANG", "LD_LIBRARY_PATH", "PATH", "TEMP", "TMP", "TMPDIR", "TZ"),
        # By these `deploy.local` finds and ends what a killed parent leaves behind.
        *("CLIPLAKE_PART", "CLIPLAKE_RUN", "CLIPLAKE_STACK"),
        # Where compiled loops are kept, if the code is in a folder that cannot be written to.
        "NUMBA_CACHE_DIR",
    }
)
_VARIABLE_PREFIXES = ("LC_", "PYTHON")
_BOOT = "import sys; from processors.media.child import main; main(sys.argv[1:])"


class Sandbox:
    """Runs functions in one child process, one at a time; threads wait for each other.

    The child starts with the first task and stays warm; after a crash, a deadline or a lack of
    memory the next task gets a new one. It ends with `close`, and when this process dies.
    """

    def __init__(
        self, settings: DecodeSettings, *, max_file_bytes: int = 0, modules: Sequence[str] = ()
    ) -> None:
        """``max_file_bytes``: how large a file the child may write; by default it writes none.
        ``modules``: what its tasks need besides, and is too large to import within its limits."""
        self._settings = settings
        self._max_file_bytes = max_file_bytes
        self._modules = tuple(modules)
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._closed = False

    def run(
        self,
        function: Callable[..., T],
        /,
        *args: Any,
        deadline_s: float,
        stage: str = "",
    ) -> T:
        """Call ``function(*args)`` in the child and return its result.

        ``function`` is at the top of an importable module; arguments and result are pickled.
        ``deadline_s`` is wall time for this call, a child's start not included.

        Raises `MediaError`: the function's own; ``decoder_timeout`` past the deadline;
        ``decoder_crashed`` if the process died; ``out_of_memory``; ``stage_error`` for any
        other exception, its traceback in the notes. ``stage`` is set where the error has none.
        """
        if getattr(function, "__module__", None) == "__main__":
            raise ValueError(f"{function!r} is in __main__, which the child does not import")
        with self._lock:
            if self._closed:
                raise ValueError("this sandbox is closed")
            if self._child is None or not self._child.alive:
                self._drop()
                self._child = _Child(self._settings, self._max_file_bytes, self._modules)
            try:
                return cast(T, self._child.call(function, args, deadline_s))
            except MediaError as error:
                error.stage = error.stage or stage
                if error.reason in _FATAL:
                    self._drop()
                raise
            except BaseException:
                # Whatever the child sends next would be taken for the next task's answer.
                self._drop()
                raise

    def deadline_for(self, video_seconds: float) -> float:
        """Seconds that a task on ``video_seconds`` of video may take."""
        settings = self._settings
        return settings.deadline_base_s + settings.deadline_per_video_second_s * max(
            0.0, video_seconds
        )

    def close(self) -> None:
        """End the child; further tasks are refused."""
        with self._lock:
            self._closed = True
            self._drop()

    def _drop(self) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_FATAL = frozenset(
    {MediaReason.DECODER_CRASHED, MediaReason.DECODER_TIMEOUT, MediaReason.OUT_OF_MEMORY}
)
"""After these the child is gone, or holds memory that a fresh one would not."""


class _Child:
    """One process of `processors.media.child`, and what its end means."""

    def __init__(
        self, settings: DecodeSettings, max_file_bytes: int, modules: Sequence[str]
    ) -> None:
        # Imports resolve as they do here, whatever has put entries on the path.
        paths = [_ROOT, *(str(Path(entry).absolute()) for entry in sys.path)]
        self._process = PipedProcess(
            [sys.executable, "-P", "-c", _BOOT],
            [settings.memory_bytes, settings.max_pixels, max_file_bytes, *modules],
            environment={
                **_seen(os.environ),
                "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
                # One thread each: pools of threads reserve address space and share the CPU limit.
                "OPENBLAS_NUM_THREADS": "1",
                "OMP_NUM_THREADS": "1",
                "MALLOC_ARENA_MAX": "2",
            },
            start_timeout_s=_START_TIMEOUT_S,
            what="a decoder process",
        )

    @property
    def alive(self) -> bool:
        return self._process.alive

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], deadline_s: float) -> Any:
        task = Task(function, args, min(deadline_s, LONGEST_S))
        try:
            answer: Answer = self._process.call(task, deadline_s)
        except ProcessEnded as ended:
            if ended.timed_out or ended.code == -signal.SIGXCPU:
                raise MediaError(
                    MediaReason.DECODER_TIMEOUT,
                    f"the decoder took more than its {deadline_s:.0f} s",
                ) from None
            raise MediaError(
                MediaReason.DECODER_CRASHED, f"the decoder process ended: {ended.ending}"
            ) from None
        return _value_of(answer)

    def end(self) -> None:
        self._process.end()


def _seen(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that a child gets: none that may hold a secret, since it is the child that
    hostile bytes are given to."""
    return {
        name: value
        for name, value in environment.items()
        if name in _VARIABLES or name.startswith(_VARIABLE_PREFIXES)
    }


def _value_of(answer: Answer) -> Any:
    if answer.media_error is not None:
        raise answer.media_error
    if answer.out_of_memory is not None:
        raise MediaError(
            MediaReason.OUT_OF_MEMORY,
            f"the decoder reached its memory limit: {answer.out_of_memory}",
        )
    if answer.error is not None:
        error = MediaError(MediaReason.STAGE_ERROR, answer.error)
        error.add_note(answer.trace)
        raise error
    return answer.value
