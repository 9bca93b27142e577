"""`cliplake status`: what is waiting, in flight, done, rejected and dead, and if it adds up."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from cliplake.console import Exit, err, out, printable_lines
from cliplake.context import context_of
from schemas.problems import ConfigError
from schemas.settings import Settings
from schemas.text import printable

if TYPE_CHECKING:
    from cliplake.accounts import Accounts
    from cliplake.pool_status import PoolView
    from ingest.rest import JobStatus

T = TypeVar("T")

_ROWS = {
    "waiting": "waiting",
    "in flight": "in_flight",
    "done": "done",
    "repeats": "repeats",
    "replays": "replays",
    "forgotten": "forgotten",
    "rejected": "rejected",
    "dead": "dead",
    "of": "total",
}
"""Of the table of stages: what a row is called, and its field of `StageAccount`."""
_IF_ANY = frozenset({"repeats", "replays", "forgotten"})
"""Rows that are left out where no stage has one."""
_STYLES = {"waiting": "yellow", "dead": "red"}
"""Of what is not zero."""


def register(app: typer.Typer) -> None:
    @app.command()
    def status(
        context: typer.Context,
        as_json: Annotated[bool, typer.Option("--json", help="JSON instead of tables.")] = False,
    ) -> None:
        """Show per stage and table what is waiting, in flight, done, rejected and dead.

        Exit code 1 if the accounts cannot come right any more, 6 if the topic or the Flink
        cluster does not answer; the rest is shown all the same.
        """
        settings = context_of(context).running_settings()
        found = _Found(settings)
        if as_json:
            json.dump(found.as_json(), sys.stdout, indent=1)
            sys.stdout.write("\n")
        else:
            _print(found)
        for problem in found.silent:
            err.print(f"[bold red]error[/]: {escape(printable_lines(problem))}", soft_wrap=True)
        if found.accounts.problems:
            raise typer.Exit(Exit.FAILED)
        if found.silent:
            raise typer.Exit(Exit.UNREACHABLE)


class _Found:
    """One look at everything; what does not answer is in ``silent``."""

    def __init__(self, settings: Settings) -> None:
        from cliplake.accounts import read_accounts
        from cliplake.pool_status import read_pool
        from cliplake.query import LakeSql
        from deploy.local.state import StateFolder
        from ingest.client import jobs
        from ingest.topic import topic_offsets

        sql = LakeSql(settings)
        self.settings = settings
        self.silent: list[str] = []
        self.pool: PoolView | None = read_pool(settings)
        self.jobs: Sequence[JobStatus] | None = None
        local, is_up = settings.local, StateFolder(settings.state_dir).is_owned()
        if not is_up and (local.start_kafka or local.start_flink):
            self.silent.append(f"nothing runs in {settings.state_dir}; `cliplake up` starts it")
        if is_up or not local.start_flink:
            self.jobs = self._ask(lambda: jobs(settings))
        # A first look tells whether the topic answers; the accounts take its ends last.
        offsets = None
        if is_up or not local.start_kafka:
            offsets = self._ask(lambda: topic_offsets(settings))
        self.accounts: Accounts = read_accounts(
            settings,
            sql,
            in_flight=self.pool.in_flight if self.pool else 0,
            topic="settings" if offsets is not None else None,
        )

    def _ask(self, question: Callable[[], T]) -> T | None:
        """An answer; None if there is none, which is said."""
        try:
            return question()
        except ConfigError as error:
            self.silent.append(str(error))
            return None

    def as_json(self) -> dict[str, Any]:
        return {
            **self.accounts.as_json(),
            "jobs": None if self.jobs is None else [asdict(job) for job in self.jobs],
            "pool": None if self.pool is None else asdict(self.pool),
            "unreachable": self.silent,
            "lake": self.settings.catalog_options["warehouse"],
            "database": self.settings.catalog.database,
            "topic": self.settings.kafka.topic,
        }


def _cell(count: int | None, style: str) -> Text:
    return Text("·" if count is None else f"{count:,}", style=style if count else "")


def _print(found: _Found) -> None:
    accounts = found.accounts
    # Stages side by side: as rows, large numbers would not fit into 80 columns.
    stages = Table(show_edge=False, header_style="bold")
    stages.add_column("")
    for name, stage in accounts.stages.items():
        stages.add_column(f"{name}\n({stage.unit})", justify="right")
    for name, field in _ROWS.items():
        counts: list[int | None] = [getattr(stage, field) for stage in accounts.stages.values()]
        if any(counts) or name not in _IF_ANY:
            stages.add_row(name, *(_cell(count, _STYLES.get(name, "")) for count in counts))
    out.print(stages)
    out.print()
    tables = Table(show_edge=False, header_style="bold")
    tables.add_column("table")
    tables.add_column("rows", justify="right")
    tables.add_column("reasons")
    for name, rows in accounts.rows.items():
        reasons = sorted(accounts.reasons.get(name, {}).items(), key=lambda item: -item[1])
        tables.add_row(
            name,
            f"{rows:,}",
            ", ".join(f"{escape(printable(reason))} {n:,}" for reason, n in reasons),
        )
    out.print(tables)
    out.print()
    lag = accounts.kafka_lag
    behind = "unknown" if lag is None else f"{sum(lag.values()):,} messages behind"
    out.print(f"Kafka     {escape(found.settings.kafka.topic)}: {behind}")
    for job in found.jobs or []:
        cause = (
            f" ({escape(printable(job.root_cause))})" if job.root_cause and not job.ready else ""
        )
        checkpoints = f"{job.checkpoints_completed:,} checkpoints, {job.restarts} restarts"
        out.print(f"Flink     {escape(job.name)}: {job.state}, {checkpoints}{cause}")
    if found.jobs and not any(job.alive for job in found.jobs):
        out.print("Flink     none of our jobs runs: `cliplake ingest` submits them")
    if found.pool is None:
        out.print("pool      no driver runs here")
    else:
        pool = found.pool
        paused = ", paused: waiting for what the actors need" if pool.paused else ""
        out.print(
            # It waits for the next one once it has read all.
            f"pool      snapshot {min(pool.snapshot, pool.latest_snapshot)} of "
            f"{pool.latest_snapshot}, "
            f"{pool.snapshots_behind} behind; {pool.in_flight:,} clips in flight, "
            f"{pool.clips_per_second:.1f} clips/s by {pool.actors} actors{paused}"
        )
    styles = {"balanced": "green", "in progress": "yellow", "broken": "bold red"}
    balance = accounts.balance.value
    out.print(f"accounts  [{styles.get(balance, 'yellow')}]{balance}[/]")
    for problem in accounts.problems:
        out.print(f"          [red]{escape(printable_lines(problem))}[/]")
