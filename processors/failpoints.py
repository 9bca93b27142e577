"""Named points where state changes hands, at which a test can make a process die or fail.

They are off unless ``CLIPLAKE_FAILPOINTS`` names a folder when a process starts; passing one then
costs a look for a file. `arm` puts that file there; the first process that passes the point as
often as it says takes the file away, so that one arming makes one fault, whoever meets it.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Literal

VARIABLE = "CLIPLAKE_FAILPOINTS"

POINTS = {
    "scratch.write": "a piece of a video is about to be written to the scratch folder",
    "fetch.done": "a video's bytes are here; in Flink's Python workers and in the actors",
    "probe.done": "a video has been probed, and its segments were not passed on",
    "split.segment_scored": "a segment is scored, and was not passed on",
    "split.merged": "a video's clips are known, and were not passed on",
    "decode.done": "the clips of one video are decoded in an actor",
    "frames.before_prepare": "frame files are being written",
    "frames.after_prepare": "frame files are written, and the driver knows nothing of them",
    "commit.begun": "results are about to be committed",
    "rows.before_prepare": "rows are being written",
    "rows.after_prepare": "rows are written and not committed",
    "commit.after_frames": "frames are committed, failures and rows are not",
    "commit.after_failures": "failures are committed, rows are not",
    "commit.after_enriched": "rows and position are committed, and the driver has not noted it",
    "consumer.half_written": "the claim on snapshots is written and not in its place",
    "letters.sent": "dead letters are on their topic, and the position is before them",
    "plan.read": "the next clips are read and not dispatched",
    "batch.submitted": "an actor has been given a micro-batch",
}
"""Every point, and what has happened when it is passed."""

Action = Literal["kill", "fail", "full", "hang"]
"""``kill``: SIGKILL. ``fail``: an I/O error. ``full``: no space left. ``hang``: for an hour."""

_FOLDER = os.environ.get(VARIABLE)
_passages: Counter[tuple[str, int]] = Counter()
_lock = threading.Lock()


def passing(point: str) -> None:
    """Pass a point: nothing, or what a test has armed it with.

    Raises OSError where ``fail`` or ``full`` is armed.
    """
    if _FOLDER:
        _pass(Path(_FOLDER), point)


def arm(folder: Path, point: str, action: Action = "kill", *, nth: int = 1) -> None:
    """Have the process that passes ``point`` the ``nth`` time from now on meet ``action``."""
    if point not in POINTS:
        raise ValueError(f"no failpoint is called {point}; there are {', '.join(POINTS)}")
    part = folder / f".{point}.part"
    part.write_text(json.dumps({"action": action, "nth": nth}))
    part.replace(_armed(folder, point))


def disarm(folder: Path, point: str) -> None:
    """Take an arming back that nobody has met."""
    _armed(folder, point).unlink(missing_ok=True)


def hits(folder: Path, point: str) -> int:
    """How often the point has been met."""
    return len(list(folder.glob(f"{point}.hit-*")))


def _armed(folder: Path, point: str) -> Path:
    return folder / f"{point}.armed"


def _pass(folder: Path, point: str) -> None:
    if point not in POINTS:
        raise ValueError(f"no failpoint is called {point}")
    armed = _armed(folder, point)
    try:
        with armed.open() as file:
            arming = os.fstat(file.fileno()).st_ino
            wanted = json.load(file)
    except FileNotFoundError:
        return
    with _lock:
        _passages[point, arming] += 1
        if _passages[point, arming] < wanted["nth"]:
            return
        try:
            # Of all processes that come so far, the one that moves the file meets the fault.
            armed.rename(folder / f"{point}.hit-{time.time_ns()}")
        except FileNotFoundError:
            return
    _meet(point, wanted["action"])


def _meet(point: str, action: Action) -> None:
    match action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            time.sleep(3600)
        case "full":
            raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} (failpoint {point})")
        case "fail":
            raise OSError(errno.EIO, f"{os.strerror(errno.EIO)} (failpoint {point})")
