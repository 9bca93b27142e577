"""`cliplake maintain`: compaction and clean-up of the lake's tables, now."""

from __future__ import annotations

from typing import Annotated

import typer

from cliplake.console import out
from cliplake.context import context_of


def register(app: typer.Typer) -> None:
    @app.command()
    def maintain(
        context: typer.Context,
        tables: Annotated[
            list[str] | None, typer.Argument(metavar="TABLE…", help="Tables; else all.")
        ] = None,
    ) -> None:
        """Compact the tables that the pool writes, expire their old snapshots, and remove files
        that no snapshot of any table names.

        The driver does the same by itself (`maintenance` in the settings); if it runs, it is
        asked to and its commits wait meanwhile. Tables that a Flink job writes are compacted
        and expired inside that job.
        """
        from processors.pool.errors import AlreadyRunning
        from processors.pool.lock import only_driver
        from processors.pool.maintenance import known_tables
        from processors.pool.maintenance import maintain as maintain_now
        from processors.pool.upkeep import ask_driver

        settings = context_of(context).running_settings()
        chosen = known_tables(tables or ())
        try:
            with only_driver(settings):
                done = maintain_now(settings, chosen)
        except AlreadyRunning:
            done = ask_driver(settings, chosen)
        if not done:
            out.print("nothing was ever committed to these tables")
        for step in done:
            out.print(f"{step.table}: {step.procedure} in {step.seconds:.1f} s", soft_wrap=True)
