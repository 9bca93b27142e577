"""The job ``arrivals``: records of the topic become rows of videos, repeats, rejected_messages.

Kafka is read as raw bytes, since Flink's JSON format drops what it cannot read without a word.
One Python function validates; the rest is SQL. Offsets and rows are in the same checkpoint.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Any

from pyflink.table import DataTypes, TableFunction
from pyflink.table.udf import udtf

from ingest.done import DoneKeys, DoneRecords
from ingest.flink_env import KEEP_CONSUMERS, LOOKUP, FlinkEnvironment, options_hint
from ingest.job_record import NewState
from ingest.kafka_java import connector_options
from ingest.validation import ParsedRow, parsed_rows
from schemas import replay
from schemas.recipe import Recipe
from schemas.settings import Settings

STATE_FORMAT = "4"
"""Raised when the operators of this job change so that an older checkpoint does not fit."""

UNIQUE_TEXTS = {"parquet.enable.dictionary": "false"}
"""Keys, URIs and messages are all different: a dictionary of them is made, and thrown away."""

SAME_IDS = {"sink.committer-operator-chaining": "false"}
"""One task would be chained to its committer, and several are not: the operators' ids, by which
their state is found, would change with `flink.arrivals_parallelism`."""


class ParseMessage(TableFunction):  # type: ignore[misc]
    """A record's value, coordinates and headers → a row a reference, or one with a reason."""

    def __init__(self, new_state: NewState | None) -> None:
        super().__init__()
        self._new_state = new_state
        self._known: Container[str] = ()
        self._done: DoneRecords | None = None

    def open(self, function_context: Any) -> None:
        if self._new_state is not None:
            self._known = DoneKeys(self._new_state.keys_file)
            self._done = DoneRecords(self._new_state.records_file)

    def eval(
        self, payload: bytes | None, partition: int, offset: int, *headers: bytes | None
    ) -> Iterator[tuple[Any, ...]]:
        if self._done is not None and (partition, offset) in self._done:
            return
        again = None
        if headers[0] is not None:
            again = replay.parse_replay(*(None if h is None else bytes(h) for h in headers))
        # PyFlink serializes a named tuple as the tuple that it is.
        yield from parsed_rows(None if payload is None else bytes(payload), self._known, again)


def options(settings: Settings) -> dict[str, str]:
    """Flink options of this job."""
    return {
        "parallelism.default": str(settings.flink.arrivals_parallelism),
        # Validation is short, so a bundle may hold many records; its time is part of the latency.
        "python.fn-execution.bundle.size": "1000",
        "python.fn-execution.bundle.time": "100",
        "table.exec.state.ttl": f"{round(settings.flink.repeat_memory_days * 86_400_000)} ms",
        # Every operator hands rows on as they are; without it each chained one copies them.
        "pipeline.object-reuse": "true",
        # A month's keys on the heap would end the TaskManager, and be written whole with each
        # checkpoint. On disk they cost what came since the last one.
        "state.backend.type": "rocksdb",
        "execution.checkpointing.incremental": "true",
        # Most keys are new: without filters each would be looked for in all files.
        "state.backend.rocksdb.use-bloom-filter": "true",
    }


def build(
    environment: FlinkEnvironment, settings: Settings, recipe: Recipe, new_state: NewState | None
) -> Any:
    """The job as a statement set, ready to execute. What a recipe says is not of this job."""
    tables = environment.tables
    tables.create_temporary_function("parse_message", _parse_function(new_state))
    tables.execute_sql(source_ddl(settings, new_state))
    environment.barrier(
        tables.sql_query(
            f"SELECT {', '.join(f'k.`{name}`' for name in _RECORD)}, "
            "CURRENT_TIMESTAMP AS seen_at, p.* FROM records AS k, "
            f"LATERAL TABLE(parse_message(payload, `partition`, `offset`, {_headers()})) "
            f"AS p({', '.join(ParsedRow._fields)})"
        ),
        "parsed",
    )
    environment.barrier(
        # The count of a video's references so far, this one included, is exact and lives in
        # Flink's own state: the same in Python's keyed state has a twentieth of the speed.
        tables.sql_query(
            f"SELECT {_columns()}, COUNT(*) OVER (PARTITION BY video_key ORDER BY proc "
            "ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS nth "
            "FROM (SELECT *, PROCTIME() AS proc FROM parsed WHERE reason IS NULL)"
        ),
        "counted",
    )
    statements = tables.create_statement_set()
    for table, query in inserts(environment.table("rejected_messages")).items():
        more = KEEP_CONSUMERS | UNIQUE_TEXTS if table == "videos" else {}
        hint = options_hint(SAME_IDS | more)
        statements.add_insert_sql(f"INSERT INTO {environment.table(table)} {hint} {query}")
    return statements


def source_ddl(settings: Settings, new_state: NewState | None) -> str:
    """The topic as a table of raw values and their coordinates."""
    kafka = settings.kafka
    options = {
        "connector": "kafka",
        "topic": kafka.topic,
        "format": "raw",
        "scan.startup.mode": "earliest-offset",
        # A partition that was added is read from its start within this time.
        "scan.topic-partition-discovery.interval": "60 s",
        "properties.group.id": kafka.group_id,
        **{f"properties.{key}": value for key, value in connector_options(settings).items()},
    }
    if new_state is not None and new_state.start_offsets:
        options["scan.startup.mode"] = "specific-offsets"
        options["scan.startup.specific-offsets"] = ";".join(
            f"partition:{partition},offset:{offset}"
            for partition, offset in sorted(new_state.start_offsets.items())
        )
    rendered = ", ".join("'{}' = '{}'".format(k, v.replace("'", "''")) for k, v in options.items())
    return (
        "CREATE TEMPORARY TABLE records ("
        "`payload` BYTES, "
        "`topic` STRING METADATA VIRTUAL, "
        "`partition` INT METADATA VIRTUAL, "
        "`offset` BIGINT METADATA VIRTUAL, "
        "`timestamp` TIMESTAMP_LTZ(3) METADATA VIRTUAL, "
        "`headers` MAP<STRING NOT NULL, BYTES NOT NULL> METADATA VIRTUAL"
        f") WITH ({rendered})"
    )


_RECORD = ("topic", "partition", "offset", "timestamp", "payload")


def _columns() -> str:
    """The columns of the view ``parsed``."""
    return ", ".join(f"`{name}`" for name in (*_RECORD, "seen_at", *ParsedRow._fields))


def _headers() -> str:
    names = (replay.ID_HEADER, replay.OF_HEADER, replay.VIDEOS_HEADER)
    return ", ".join(f"headers['{name}']" for name in names)


def inserts(letters: str) -> dict[str, str]:
    """The query behind each table; one INSERT a table, since two would compact it at once.

    ``letters`` is the table rejected_messages as SQL names it. A replay that is accepted resolves
    its letter: the row is looked up and written again, so that headers alone can change none.
    """
    coordinates = "`topic`, `partition`, `offset`, `timestamp`"
    day = "DATE_FORMAT(seen_at, 'yyyy-MM-dd')"
    first = "nth = 1 AND NOT is_known"
    partition, offset = (f"CAST(letter_{name} AS STRING)" for name in ("partition", "offset"))
    letter = f"CONCAT(letter_topic, '[', {partition}, ']@', {offset})"
    return {
        "videos": (
            "SELECT video_key, video_id, uri, etag, source, TO_TIMESTAMP_LTZ(uploaded_at_ms, 3), "
            f"attributes, `payload`, {coordinates}, record_index, seen_at, "
            f"CASE WHEN {first} THEN CAST(NULL AS STRING) ELSE replay_id END, {day} "
            f"FROM counted WHERE ({first}) OR replay_id IS NOT NULL"
        ),
        "repeats": (
            f"SELECT video_key, video_id, {coordinates}, record_index, seen_at, {day} "
            f"FROM counted WHERE NOT ({first}) AND replay_id IS NULL"
        ),
        "rejected_messages": (
            f"SELECT {coordinates}, reason, error, `payload`, seen_at, {letter}, "
            "CAST(NULL AS TIMESTAMP_LTZ(3)), CAST(0 AS BIGINT) "
            "FROM parsed WHERE reason IS NOT NULL "
            "UNION ALL SELECT r.kafka_topic, r.kafka_partition, r.kafka_offset, "
            "r.kafka_timestamp, r.reason, r.error, r.payload, r.failed_at, r.replay_of, "
            "CAST(p.seen_at AS TIMESTAMP_LTZ(3)), CAST(1 AS BIGINT) "
            "FROM (SELECT *, PROCTIME() AS proc FROM parsed "
            "WHERE reason IS NULL AND record_index = 0 AND letter_topic IS NOT NULL) AS p "
            f"JOIN {letters} {options_hint(LOOKUP)} FOR SYSTEM_TIME AS OF p.proc AS r "
            "ON r.kafka_topic = p.letter_topic AND r.kafka_partition = p.letter_partition "
            "AND r.kafka_offset = p.letter_offset WHERE r.payload = p.payload"
        ),
    }


def _parse_function(new_state: NewState | None) -> Any:
    text = DataTypes.STRING()
    return udtf(
        ParseMessage(new_state),
        input_types=[DataTypes.BYTES(), DataTypes.INT(), DataTypes.BIGINT()]
        + [DataTypes.BYTES()] * 3,
        result_types=[
            DataTypes.INT(),
            text,
            text,
            text,
            text,
            text,
            DataTypes.BIGINT(),
            DataTypes.MAP(text, text),
            DataTypes.BOOLEAN(),
            text,
            text,
            DataTypes.INT(),
            DataTypes.BIGINT(),
            text,
            text,
        ],
    )
