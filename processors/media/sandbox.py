"""A limited child process for work on untrusted media: it may crash, hang or eat memory.

What it guards against is accidents: a decoder's crash, endless loops, bombs. It is not a wall
against code that has taken over libav; run the workers in containers for that.

The child is a plain interpreter, not one of multiprocessing's: those import the parent's
``__main__``, which is Flink's or Ray's worker here, with all that it drags in.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar, cast

from processors.errors import MediaError
from processors.media.messages import Answer, Task
from schemas.reasons import MediaReason
from schemas.settings import DecodeSettings

T = TypeVar("T")

_START_TIMEOUT_S = 120.0
"""A child that has not imported its libraries by then never will: a broken installation."""
_CLOSE_TIMEOUT_S = 2.0
_LONGEST_S = 7 * 86_400.0
"""No task takes longer; beyond some years a timer would overflow."""
_ROOT = str(Path(__file__).resolve().parents[2])
_BOOT = "import sys; from processors.media.child import main; main(sys.argv[1:])"


class Sandbox:
    """Runs functions in one child process, one at a time; threads wait for each other.

    The child starts with the first task and stays warm; after a crash, a deadline or a lack of
    memory the next task gets a new one. It ends with `close`, and when this process dies.
    """

    def __init__(self, settings: DecodeSettings) -> None:
        self._settings = settings
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
                self._child = _Child(self._settings)
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
    """One process and the connection to it."""

    def __init__(self, settings: DecodeSettings) -> None:
        ours, theirs = Pipe()
        # Imports resolve as they do here, whatever has put entries on the path.
        paths = [_ROOT, *(str(Path(entry).absolute()) for entry in sys.path)]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
            # One thread each: pools of threads reserve address space and share the CPU limit.
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            "MALLOC_ARENA_MAX": "2",
        }
        arguments = [theirs.fileno(), os.getpid(), settings.memory_bytes, settings.max_pixels]
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _BOOT, *map(str, arguments)],
                env=environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        self._connection: Connection[Any, Any] = ours
        try:
            if not ours.poll(_START_TIMEOUT_S):
                raise RuntimeError(f"a decoder process did not start in {_START_TIMEOUT_S:.0f} s")
            ours.recv()
        except (EOFError, ConnectionResetError):
            raise RuntimeError(
                f"a decoder process ended while it started ({self._ending()}); "
                "its error is in this process's standard error"
            ) from None
        except BaseException:
            self.end()
            raise

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], deadline_s: float) -> Any:
        struck = threading.Event()

        def strike() -> None:
            struck.set()
            self._process.kill()

        clock = threading.Timer(min(deadline_s, _LONGEST_S), strike)
        clock.daemon = True
        clock.start()
        try:
            self._connection.send(Task(function, args, min(deadline_s, _LONGEST_S)))
            answer: Answer = self._connection.recv()
        except (EOFError, ConnectionResetError, BrokenPipeError):
            ending = self._ending()
            if struck.is_set() or self._process.returncode == -signal.SIGXCPU:
                raise MediaError(
                    MediaReason.DECODER_TIMEOUT,
                    f"the decoder took more than its {deadline_s:.0f} s",
                ) from None
            raise MediaError(
                MediaReason.DECODER_CRASHED, f"the decoder process ended: {ending}"
            ) from None
        finally:
            clock.cancel()
            clock.join()
            if struck.is_set():
                # Also where it struck just after the answer: a dying child is not reused.
                self._process.wait()
        return _value_of(answer)

    def end(self) -> None:
        """Kill the process and take its exit status."""
        self._connection.close()
        self._process.kill()
        self._process.wait()

    def _ending(self) -> str:
        """How the process ended, in words."""
        try:
            code = self._process.wait(_CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"killed by {signal.Signals(-code).name}"
            return f"killed by signal {-code}"
        return f"exit status {code}"


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
