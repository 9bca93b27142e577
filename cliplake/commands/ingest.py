"""`cliplake ingest`: the two Flink jobs on a cluster that is there."""

from __future__ import annotations

from typing import Annotated

import typer

from cliplake.console import out, saying
from cliplake.context import context_of
from schemas.tables import TABLES


def register(app: typer.Typer) -> None:
    @app.command()
    def ingest(
        context: typer.Context,
        new_state: Annotated[
            bool,
            typer.Option(
                "--new-state",
                help="Start without the kept checkpoints, from what the lake says is done: for "
                "jobs that changed so that old state does not fit. Nothing is lost or doubled.",
            ),
        ] = False,
    ) -> None:
        """Submit the arrivals and the split job, or find them running.

        They go on from their newest checkpoints. The tables and the topic are made if they are
        missing.
        """
        from ingest.client import submit_jobs
        from ingest.topic import create_topic
        from processors.pool.consumer import heal_consumers
        from processors.pool.lake import Lake
        from processors.pool.lake_store import require_answer

        settings = context_of(context).running_settings()
        require_answer(settings.catalog_options)
        with saying("looking at the lake's tables and the topic"):
            lake = Lake(settings)
            lake.ensure_tables()
            heal_consumers(lake, [table.name for table in TABLES])
            create_topic(settings)
        with saying("submitting the jobs, unless they run"):
            ids = submit_jobs(settings, new_state=new_state, read=lake.read)
        for job, job_id in ids.items():
            out.print(f"{job}: {job_id}")
        out.print(f"http://{settings.flink.rest_address}:{settings.flink.rest_port}")
