"""A Flink environment that submits to the cluster of the settings; used in the client only.

Options that both jobs need are here, each beside the failure it prevents; what only one job
needs is in that job's module. The `flink` interpreter runs this; nothing else can import it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyflink.version
from py4j.protocol import Py4JJavaError
from pyflink.common import Configuration
from pyflink.datastream import DataStream, StreamExecutionEnvironment
from pyflink.java_gateway import get_gateway
from pyflink.table import StreamTableEnvironment

from ingest.paimon_java import cause
from schemas.problems import ConfigError
from schemas.settings import Settings

__all__ = ["CATALOG", "MAX_PARALLELISM", "VERSION", "FlinkEnvironment", "JobOptions", "lake_tables"]

VERSION = str(pyflink.version.__version__)
CATALOG = "lake"
_ROW_DATA = "org.apache.flink.table.data.RowData"
MAX_PARALLELISM = 128
"""Keyed state is laid out for this many subtasks; another value could not take it over."""
KEEP_CONSUMERS = {"consumer.expiration-time": "3650 d"}
"""A reader's claim on snapshots of `videos` outlives any pause of the split job: the writer would
expire what was never read, and the reader would stop for good."""

LOOKUP = {
    # A letter is looked up by a replay of it, which somebody sent after seeing it in the lake:
    # with the default of 10 s it might not be found, and never be resolved.
    "continuous.discovery-interval": "10 ms",
}
"""Options of a table of dead letters where a job looks rows of it up: it keeps a copy on its disk,
brought up to date by the snapshots that came since."""


@dataclass(frozen=True)
class JobOptions:
    """What one submission of a job differs by."""

    name: str
    checkpoint_dir: str
    package: Path
    restore_from: str | None
    """Folder of a completed checkpoint; None to start with empty state."""
    more: dict[str, str]
    """Flink options of this job."""


class FlinkEnvironment:
    """One job's environments: of streams, and of tables over it with the lake as a catalog."""

    def __init__(self, settings: Settings, options: JobOptions) -> None:
        self.settings = settings
        configuration = Configuration()
        for key, value in _options(settings, options).items():
            configuration.set_string(key, value)
        # The usual factory method makes a cluster inside the client, whatever the target says.
        j_environment = (
            get_gateway().jvm.org.apache.flink.streaming.api.environment.StreamExecutionEnvironment(
                configuration._j_configuration
            )
        )
        self.streams = StreamExecutionEnvironment(j_environment)
        self.tables = StreamTableEnvironment.create(self.streams)
        self.tables.execute_sql(_catalog_ddl(settings))

    def table(self, name: str) -> str:
        """A table of the lake as SQL names it."""
        return f"`{CATALOG}`.`{self.settings.catalog.database}`.`{name}`"

    def submit(self, build: Callable[[FlinkEnvironment], Any]) -> str:
        """Submit the statement set that ``build`` makes, detached; returns the job's id.

        `ConfigError` if Flink cannot plan it or the cluster does not take it.
        """
        try:
            return str(build(self).execute().get_job_client().get_job_id())
        except Py4JJavaError as error:
            raise ConfigError(
                f"the Flink cluster at {self.settings.flink.rest_address}:"
                f"{self.settings.flink.rest_port} did not take the job: {cause(error)}"
            ) from error

    def barrier(self, table: Any, view: str) -> None:
        """Register ``table`` as a view whose query is planned once, however many sinks read it.

        Without it the planner may push each sink's filter and columns down to the source, and
        read Kafka and run Python once for every sink. Rows pass as the planner's own RowData:
        making Rows of them and back took a tenth of both tasks' time.
        """
        row_data = get_gateway().jvm.java.lang.Class.forName(_ROW_DATA)
        rows = table._j_table.getResolvedSchema().toPhysicalRowDataType().bridgedTo(row_data)
        stream = DataStream(self.tables._j_tenv.toDataStream(table._j_table, rows))
        self.tables.create_temporary_view(view, self.tables.from_data_stream(stream))


@dataclass(frozen=True)
class LakeTable:
    """What the client asks of a table before it submits a job."""

    uuid: str
    """Another one after the table was dropped and made again."""
    has_snapshot: bool


def lake_tables(settings: Settings, names: Iterable[str]) -> dict[str, LakeTable]:
    """Tables through Paimon's own catalog, without a job; `ConfigError` if one is missing."""
    jvm = get_gateway().jvm
    database = settings.catalog.database
    found = {}
    try:
        options = jvm.org.apache.paimon.options.Options()
        for key, value in settings.catalog_options.items():
            options.set(key, value)
        catalog = jvm.org.apache.paimon.catalog.CatalogFactory.createCatalog(
            jvm.org.apache.paimon.catalog.CatalogContext.create(options)
        )
        there = set(catalog.listTables(database)) if database in catalog.listDatabases() else set()
        for name in names:
            if name not in there:
                raise ConfigError(
                    f"table {database}.{name} is not in the lake at "
                    f"{settings.catalog_options['warehouse']}; `cliplake up` makes the tables"
                )
            table = catalog.getTable(
                jvm.org.apache.paimon.catalog.Identifier.create(database, name)
            )
            found[name] = LakeTable(str(table.uuid()), table.latestSnapshot().isPresent())
    except Py4JJavaError as error:
        raise ConfigError(f"the lake's catalog cannot be read: {cause(error)}") from error
    return found


def options_hint(options: dict[str, str]) -> str:
    """Options of a table for one statement, as SQL's hint behind its name."""
    rendered = ", ".join(f"{_sql(key)} = {_sql(value)}" for key, value in options.items())
    return f"/*+ OPTIONS({rendered}) */"


def _catalog_ddl(settings: Settings) -> str:
    options = {"type": "paimon", **settings.catalog_options}
    rendered = ", ".join(f"{_sql(key)} = {_sql(value)}" for key, value in options.items())
    return f"CREATE CATALOG `{CATALOG}` WITH ({rendered})"


def _sql(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _options(settings: Settings, options: JobOptions) -> dict[str, str]:
    flink = settings.flink
    interval_ms = max(1, round(flink.checkpoint_interval_s * 1000))
    python = str(settings.flink_python)
    values = {
        "pipeline.name": options.name,
        "execution.target": "remote",
        "execution.attached": "false",
        "rest.address": flink.rest_address,
        "rest.port": str(flink.rest_port),
        # Of the split, only the operators that decode are run in parallel: they set it themselves.
        "parallelism.default": "1",
        "pipeline.max-parallelism": str(MAX_PARALLELISM),
        "python.executable": python,
        "python.client.executable": python,
        "python.files": str(options.package),
        "python.execution-mode": "process",
        "table.local-time-zone": "UTC",
        # Checkpoints: rows become visible with them, so their interval is part of the latency.
        "execution.checkpointing.interval": f"{interval_ms} ms",
        "execution.checkpointing.mode": "EXACTLY_ONCE",
        "execution.checkpointing.min-pause": f"{interval_ms // 4} ms",
        "execution.checkpointing.dir": options.checkpoint_dir,
        # A cancelled or failed job leaves its checkpoints, from which the next start goes on.
        "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
        # A slow store or a long segment makes a checkpoint late; that is no reason to start over.
        "execution.checkpointing.tolerable-failed-checkpoints": "1000000",
        # Without restarts the job would end with a broker's or store's first hiccup, and
        # Paimon's sink throws once on purpose after it has re-committed a restored checkpoint.
        "restart-strategy.type": "exponential-delay",
        "restart-strategy.exponential-delay.initial-backoff": "500 ms",
        "restart-strategy.exponential-delay.max-backoff": "10 s",
        "restart-strategy.exponential-delay.backoff-multiplier": "2.0",
        "restart-strategy.exponential-delay.reset-backoff-threshold": "5 min",
        "restart-strategy.exponential-delay.attempts-before-reset-backoff": "2147483647",
    }
    if not settings.local.start_flink:
        # The cluster that `up` starts has these in its lib folder; another one may not.
        values["pipeline.jars"] = ";".join(
            file.resolve().as_uri() for file in sorted(settings.flink_jars.glob("*.jar"))
        )
    if options.restore_from:
        values["execution.state-recovery.path"] = options.restore_from
    return {**values, **options.more, **flink.options}
