"""One child process: started in a session of its own, leashed to us, marked, logged to a file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deploy.local import leash

_SPAWNER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")
# The kernel ties a child to the *thread* that started it, so one thread that lives as long as
# this process starts them all: a child of a short-lived thread would end with it.


class ChildProcess:
    """A running command. Its standard output and error go to ``log``; the old log is kept as .1"""

    def __init__(
        self, command: Sequence[str], *, environment: Mapping[str, str], log: Path, cwd: Path
    ) -> None:
        """Start it; raises OSError if the log cannot be written."""
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists():
            log.replace(log.with_name(log.name + ".1"))
        self._popen = _SPAWNER.submit(self._spawn, list(command), dict(environment), cwd).result()

    def _spawn(
        self, command: list[str], environment: dict[str, str], cwd: Path
    ) -> subprocess.Popen[bytes]:
        leashed = [sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), *command]
        with self.log.open("wb") as output:
            return subprocess.Popen(
                leashed,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                cwd=cwd,
                start_new_session=True,  # Ctrl-C at the terminal is for us, not for it
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._popen.poll()

    def terminate(self) -> None:
        """Ask it to end (SIGTERM); nothing happens if it has ended."""
        self._popen.terminate()

    def wait(self, timeout_s: float) -> bool:
        """Whether it ended within the time."""
        try:
            self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """End it and its whole process group now."""
        if self._popen.poll() is None:
            os.killpg(self._popen.pid, signal.SIGKILL)
            self._popen.wait()


def last_lines(log: Path, count: int = 15, *, at_most: int = 16_384) -> str:
    """The end of a log file as text, for an error message; empty if there is none."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - at_most))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.rstrip().splitlines()[-count:])


def exit_words(code: int) -> str:
    """An exit code in words: ``exit code 2``, ``signal SIGKILL``."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
