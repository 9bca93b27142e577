"""What passes between `processors.media.sandbox` and its child process, both ways pickled."""

from __future__ import annotations

from typing import Any, NamedTuple

from processors.errors import MediaError


class Task(NamedTuple):
    """One call: ``function`` goes by reference, ``args`` by value."""

    function: Any
    args: tuple[Any, ...]
    deadline_s: float


class Answer(NamedTuple):
    """What became of a task: a value, or one of the three kinds of failure."""

    value: Any = None
    media_error: MediaError | None = None
    out_of_memory: str | None = None
    error: str | None = None
    """Any other exception, as ``type: text``."""
    trace: str = ""
