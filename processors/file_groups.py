"""Which clips of a batch have files at a time, so that no batch needs more than a bounded disk.

Files are large, and a batch has many clips. They are written for as many clips as may lie there
together, and are gone once the stages that open files have had those.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import ExitStack

from processors.clip_files import STAGE, ClipFiles, ScratchFull
from processors.clip_reader import ClipSpan
from processors.clip_work import ClipWork
from processors.errors import MediaError


def in_groups(files: ClipFiles, works: Sequence[ClipWork]) -> Generator[list[ClipWork], None, None]:
    """The clips, a group at a time, with the files that stages open: those of one group are gone
    when the next one is asked for, and when the generator is closed.

    A group holds less than twice ``files.max_bytes``, and where the disk is full before, what it
    had room for. A clip that cannot be written fails, and is in no group. `DependencyFault` if
    there is no room even for a clip alone, or nothing can be written.
    """
    waiting = deque(works)
    while waiting:
        with ExitStack() as held:
            group: list[ClipWork] = []
            size = 0
            while waiting and size < files.max_bytes:
                try:
                    size += _write(files, waiting[0], held)
                except ScratchFull:
                    if not group:
                        raise
                    break
                work = waiting.popleft()
                if work.error is None:
                    group.append(work)
            if group:
                yield group
                for work in group:
                    work.forget_files()


def _write(files: ClipFiles, work: ClipWork, held: ExitStack) -> int:
    """Bytes of the clip's files; 0 if it failed."""
    if work.media is None:
        raise ValueError(f"clip {work.clip['clip_id']}: its video is not there any more")
    wall = time.perf_counter()
    try:
        written = files.write(work.media, ClipSpan.of_row(work.clip), held)
    except MediaError as error:
        work.fail(error, STAGE)
        return 0
    finally:
        work.seconds[STAGE] = time.perf_counter() - wall
    work.take_files(written)
    return written.size
