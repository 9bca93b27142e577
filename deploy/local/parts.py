"""What the supervisor has to know of one process of the stack."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


def _nothing() -> None:
    """A part that needs no preparation."""


@dataclass(frozen=True)
class Part:
    """A process to keep alive."""

    name: str
    """Its name for people, in its mark and of its log: ``broker``, ``taskmanager`` …"""
    command: Sequence[str]
    log: Path
    cwd: Path
    is_ready: Callable[[], bool]
    """Whether it serves; polled a few times a second while it starts, so it should be quick."""
    environment: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[], None] = _nothing
    """Called before each start: write configuration, remove what an earlier life left."""
    needs: tuple[str, ...] = ()
    """Runs only while these parts are ready, and is ended when one of them ends."""
    ready_timeout_s: float = 120.0
    stop_grace_s: float = 10.0
    """Time between SIGTERM and SIGKILL."""
    final_exit_codes: frozenset[int] = frozenset()
    """Exit codes after which a restart would end the same way."""
