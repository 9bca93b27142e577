"""Reads tables of a lake by Flink SQL, in the flink environment; it knows no code of ours.

``python -m tests.ledger.flink_read REQUEST``, the request as JSON: see `tests.ledger.read`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pyflink.table import EnvironmentSettings, TableEnvironment


def main() -> None:
    request = json.loads(sys.argv[1])
    tables = TableEnvironment.create(EnvironmentSettings.in_batch_mode())
    configuration = tables.get_config()
    jars = ";".join(Path(jar).as_uri() for jar in request["jars"])
    configuration.set("pipeline.jars", jars)
    configuration.set("parallelism.default", "1")
    options = {"type": "paimon", **request["catalog"]}
    rendered = ", ".join(f"'{key}' = '{value}'" for key, value in options.items())
    tables.execute_sql(f"CREATE CATALOG lake WITH ({rendered})")
    # One query: each would start a cluster of its own.
    query = " UNION ALL ".join(
        f"SELECT '{name}', JSON_OBJECT({_pairs(columns)}) "
        f"FROM lake.`{request['database']}`.`{name}`"
        for name, columns in request["columns"].items()
    )
    found: dict[str, list[dict[str, object]]] = {name: [] for name in request["columns"]}
    with tables.execute_sql(query).collect() as rows:
        for name, row in rows:
            found[name].append(json.loads(row))
    Path(request["output"]).write_text(json.dumps(found))


def _pairs(columns: list[str]) -> str:
    return ", ".join(f"'{column}' VALUE `{column}`" for column in columns)


if __name__ == "__main__":
    main()
