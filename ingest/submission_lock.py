"""One submission at a time: two clients that each find no job running would submit it twice.

Two jobs of one name would both go on from the same checkpoint, and write every row twice. The lock
is the operating system's, on a file beside the checkpoints, and goes with its holders, however they
end. Those are the one who took it and the Flink client that it started: that client goes on
submitting when its parent is killed.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.problems import ConfigError

_LOOK_S = 0.2


@contextmanager
def only_submission(folder: Path, patience_s: float) -> Iterator[int]:
    """Hold the lock in ``folder``, whose descriptor keeps it in a child that inherits it.

    Waits for others to end; `ConfigError` if they have not after ``patience_s`` seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "submission.lock"
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _take(descriptor, file, time.monotonic() + patience_s)
        yield descriptor
    finally:
        os.close(descriptor)


def _take(descriptor: int, file: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise ConfigError(
                    f"another process submits the jobs, and does not come to an end (it holds "
                    f"{file}; `fuser {file}` names it): end it, and try again"
                ) from None
            time.sleep(_LOOK_S)
        else:
            return
