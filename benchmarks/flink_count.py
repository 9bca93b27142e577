"""Counts a table's rows and clips by Flink SQL, in a process of the flink environment.

``python -m benchmarks.flink_count REQUEST``, the request as JSON, is that process; it knows no
code of ours beyond this file, so that what it counts is not read by what wrote it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent


def count_rows(settings: Any, tables: list[str]) -> dict[str, tuple[int, int]]:
    """Rows and distinct clips of each of these tables; ``settings`` are the lake's."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "counts.json"
        request = {
            "catalog": settings.catalog_options,
            "database": settings.catalog.database,
            "tables": tables,
            "jars": sorted(str(jar) for jar in settings.flink_jars.glob("*.jar")),
            "output": str(output),
        }
        subprocess.run(
            [str(settings.flink_python), "-m", "benchmarks.flink_count", json.dumps(request)],
            cwd=CHECKOUT,
            env={**os.environ, "JVM_ARGS": "-Xmx1500m"},
            check=True,
            capture_output=True,
            timeout=900,
        )
        counts: dict[str, list[int]] = json.loads(output.read_text())
    return {name: (rows, clips) for name, (rows, clips) in counts.items()}


def main() -> None:
    from pyflink.table import EnvironmentSettings, TableEnvironment

    request = json.loads(sys.argv[1])
    environment = TableEnvironment.create(EnvironmentSettings.in_batch_mode())
    configuration = environment.get_config()
    jars = ";".join(Path(jar).as_uri() for jar in request["jars"])
    configuration.set("pipeline.jars", jars)
    configuration.set("parallelism.default", "1")
    options = {"type": "paimon", **request["catalog"]}
    rendered = ", ".join(f"'{key}' = '{value}'" for key, value in options.items())
    environment.execute_sql(f"CREATE CATALOG lake WITH ({rendered})")
    counts = {}
    for name in request["tables"]:
        query = (
            f"SELECT COUNT(*), COUNT(DISTINCT clip_id) FROM lake.`{request['database']}`.`{name}`"
        )
        with environment.execute_sql(query).collect() as rows:
            counts[name] = [int(value) for row in rows for value in row]
    Path(request["output"]).write_text(json.dumps(counts))


if __name__ == "__main__":
    main()
