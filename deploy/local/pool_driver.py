"""The pool's driver as a process of the stack: ``cliplake process`` with the stack's settings."""

from __future__ import annotations

import sys
from pathlib import Path

from deploy.local import ray_head
from deploy.local.parts import Part
from schemas.settings import CHECKOUT, Settings

DRIVER = "pool"
FINAL_EXIT_CODES = frozenset({2, 3, 4})
"""Of `cliplake`: it cannot start (a model is missing, say), its position in the lake is lost, or
another driver writes to this lake. Another start would end the same way."""


def pool_driver(settings: Settings, settings_file: Path) -> Part:
    """The driver; ready when its actors have loaded their models."""
    local = settings.local
    # Its own file (processors.pool.status_file); the stack knows the place and not the module.
    status = settings.state_dir / "pool" / "status.json"
    command = [sys.executable, "-m", "cliplake.main", "--settings-json", str(settings_file)]
    return Part(
        name=DRIVER,
        command=[*command, "process"],
        environment=ray_head.client_environment(settings) if local.start_ray else {},
        log=settings.state_dir / "logs" / "pool.log",
        cwd=CHECKOUT,
        prepare=lambda: status.unlink(missing_ok=True),
        is_ready=status.is_file,
        needs=("ray",) if local.start_ray else (),
        ready_timeout_s=settings.pool.actor_start_timeout_s + 60.0,
        stop_grace_s=settings.pool.drain_timeout_s + 15.0,
        final_exit_codes=FINAL_EXIT_CODES,
    )
