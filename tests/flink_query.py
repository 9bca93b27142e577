"""One query over a lake by Flink SQL, in a process of the flink environment.

``python -m tests.flink_query REQUEST``, the request as JSON, is that process; it knows no code of
ours, so that what it reads is not read by what wrote it. Of ours is only what starts it.
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


def flink_query(
    settings: Any, query: str, *, heap: str = "512m", timeout_s: float = 480
) -> list[list[Any]]:
    """The rows of a bounded query; ``settings`` are the lake's, and ``lake`` is its catalog."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "rows.json"
        request = {
            "catalog": settings.catalog_options,
            "query": query,
            "jars": sorted(str(jar) for jar in settings.flink_jars.glob("*.jar")),
            "output": str(output),
        }
        subprocess.run(
            [str(settings.flink_python), "-m", "tests.flink_query", json.dumps(request)],
            cwd=CHECKOUT,
            env={**os.environ, "JVM_ARGS": f"-Xmx{heap}"},
            check=True,
            capture_output=True,
            timeout=timeout_s,
        )
        rows: list[list[Any]] = json.loads(output.read_text())
        return rows


def main() -> None:
    from pyflink.table import EnvironmentSettings, TableEnvironment

    request = json.loads(sys.argv[1])
    tables = TableEnvironment.create(EnvironmentSettings.in_batch_mode())
    configuration = tables.get_config()
    jars = ";".join(Path(jar).as_uri() for jar in request["jars"])
    configuration.set("pipeline.jars", jars)
    configuration.set("parallelism.default", "1")
    options = {"type": "paimon", **request["catalog"]}
    rendered = ", ".join(f"'{key}' = '{value}'" for key, value in options.items())
    tables.execute_sql(f"CREATE CATALOG lake WITH ({rendered})")
    with tables.execute_sql(request["query"]).collect() as rows:
        Path(request["output"]).write_text(json.dumps([list(row) for row in rows]))


if __name__ == "__main__":
    main()
