"""A child process that answers one message after the other over a pipe, within a deadline.

What is asked of it, and what limits it has, is the business of those who start it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

_CLOSE_TIMEOUT_S = 2.0
LONGEST_S = 7 * 86_400.0
"""No answer takes longer; beyond some years a timer would overflow."""


class ProcessEnded(Exception):
    """The child is gone, and with it the answer."""

    def __init__(self, ending: str, code: int, timed_out: bool) -> None:
        super().__init__(ending)
        self.ending = ending
        """How it ended, in words."""
        self.code = code
        """As `subprocess.Popen.returncode`."""
        self.timed_out = timed_out
        """Whether it was killed at its deadline."""


class PipedProcess:
    """One process and the connection to it; its first message says that it is ready.

    Not for two threads.
    """

    def __init__(
        self,
        command: Sequence[str],
        arguments: Sequence[object],
        *,
        environment: Mapping[str, str],
        start_timeout_s: float,
        what: str,
    ) -> None:
        """Start ``command`` and wait until it is ready.

        It gets the file descriptor of its end of the pipe and this process's id, then
        ``arguments``. `RuntimeError` if it does not get ready; ``what`` names it there.
        """
        ours, theirs = Pipe()
        with theirs:
            own = (theirs.fileno(), os.getpid(), *arguments)
            self._process = subprocess.Popen(
                [*command, *map(str, own)],
                env=dict(environment),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        self._connection: Connection[Any, Any] = ours
        try:
            if not ours.poll(start_timeout_s):
                raise RuntimeError(f"{what} did not start in {start_timeout_s:.0f} s")
            ours.recv()
        except (EOFError, ConnectionResetError):
            raise RuntimeError(
                f"{what} ended while it started ({self._ending()[0]}); "
                "its error is in this process's standard error"
            ) from None
        except BaseException:
            self.end()
            raise

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        return self._process.pid

    def call(self, message: object, deadline_s: float) -> Any:
        """Send a message and return the answer; `ProcessEnded` if there will be none."""
        struck = threading.Event()

        def strike() -> None:
            struck.set()
            self._process.kill()

        clock = threading.Timer(min(deadline_s, LONGEST_S), strike)
        clock.daemon = True
        clock.start()
        try:
            self._connection.send(message)
            return self._connection.recv()
        except (EOFError, OSError):
            # Of a child that dies in the middle of an answer a plain OSError is all one gets.
            raise ProcessEnded(*self._ending(), timed_out=struck.is_set()) from None
        finally:
            clock.cancel()
            clock.join()
            if struck.is_set():
                # Also where it struck just after the answer: a dying child is not reused.
                self._process.wait()

    def end(self) -> None:
        """Kill the process and take its exit status."""
        self._connection.close()
        self._process.kill()
        self._process.wait()

    def _ending(self) -> tuple[str, int]:
        """How the process ended, in words and as a number."""
        try:
            code = self._process.wait(_CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"killed by {signal.Signals(-code).name}", code
            return f"killed by signal {-code}", code
        return f"exit status {code}", code
