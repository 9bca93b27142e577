"""What stops a local stack, in words for the person who started it."""

from __future__ import annotations

from schemas.problems import ConfigError


class StackError(ConfigError):
    """The stack cannot start or go on; the text says which part, why, and what to look at."""


class StackRuns(StackError):
    """Another process owns the state folder."""

    exit_code = 4
