"""Two ways to read a lake: through our code, and through Flink SQL in a process of its own."""

from __future__ import annotations

import json
from collections.abc import Iterable

from processors.pool.lake import Lake
from schemas.settings import Settings
from tests.flink_query import flink_query
from tests.ledger.audit import COLUMNS, Tables
from tests.ledger.order import Place
from tests.letter_topic import headers_of, records


def by_pypaimon(settings: Settings) -> Tables:
    """Every table of the audit through `processors.pool.lake`."""
    lake = Lake(settings)
    return {name: lake.read(name, columns).to_pylist() for name, columns in COLUMNS.items()}


def letters_on_topic(settings: Settings) -> set[Place]:
    """The message of each record on the dead-letter topic."""
    of = "__connect.errors."
    return {
        (headers[f"{of}topic"], int(headers[f"{of}partition"]), int(headers[f"{of}offset"]))
        for headers in map(headers_of, records(settings.kafka))
    }


def by_flink(settings: Settings) -> Tables:
    """The same by Flink, in a process of its own."""
    # One query: each would start a cluster of its own.
    query = " UNION ALL ".join(
        f"SELECT '{name}', JSON_OBJECT({_pairs(columns)}) "
        f"FROM lake.`{settings.catalog.database}`.`{name}`"
        for name, columns in COLUMNS.items()
    )
    found: dict[str, list[dict[str, object]]] = {name: [] for name in COLUMNS}
    for name, row in flink_query(settings, query):
        found[name].append(json.loads(row))
    return found


def _pairs(columns: Iterable[str]) -> str:
    return ", ".join(f"'{column}' VALUE `{column}`" for column in columns)
