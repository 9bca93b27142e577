"""Two ways to read a lake: through our code, and through Flink SQL in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from processors.pool.lake import Lake
from schemas.settings import CHECKOUT, Settings
from tests.ledger.audit import COLUMNS, Tables
from tests.letter_topic import headers_of, records


def by_pypaimon(settings: Settings) -> Tables:
    """Every table of the audit through `processors.pool.lake`."""
    lake = Lake(settings)
    return {name: lake.read(name, columns).to_pylist() for name, columns in COLUMNS.items()}


def letters_on_topic(settings: Settings) -> set[tuple[int, int]]:
    """Partition and offset of the message of each record on the dead-letter topic."""
    found = map(headers_of, records(settings.kafka))
    names = ("__connect.errors.partition", "__connect.errors.offset")
    return {(int(headers[names[0]]), int(headers[names[1]])) for headers in found}


def by_flink(settings: Settings, folder: Path) -> Tables:
    """The same by a bounded query a table, run by Flink in a process of its own."""
    output = folder / "by-flink.json"
    request = {
        "catalog": settings.catalog_options,
        "database": settings.catalog.database,
        "columns": COLUMNS,
        "jars": sorted(str(jar) for jar in settings.flink_jars.glob("*.jar")),
        "output": str(output),
    }
    subprocess.run(
        [str(settings.flink_python), "-m", "tests.ledger.flink_read", json.dumps(request)],
        cwd=CHECKOUT,
        env={**os.environ, "JVM_ARGS": "-Xmx512m"},
        check=True,
        capture_output=True,
        timeout=240,
    )
    tables: Tables = json.loads(output.read_text())
    return tables
