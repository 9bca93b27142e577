"""Maintains tables of the lake by Paimon's own Java classes; the flink interpreter runs it.

``python -m ingest.maintain --settings-json FILE --step TABLE:PROCEDURE …`` runs the steps in
their order, and prints a line of JSON for each: ``{"table", "procedure", "seconds", "result"}``.
What it cannot do it says in one message on stderr, with exit code 2. It works inside its own
process and needs no Flink cluster; when its standard input ends, it ends at once, so that it
never outlives the process that pauses its commits for it.

pypaimon has none of this. Whoever starts it sees to it that nobody else commits to the tables.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time

from ingest.submit_jobs import prepare_jvm
from schemas.problems import ConfigError
from schemas.settings import load_settings_json
from schemas.tables import TABLES

PROCEDURES = ("expire_snapshots", "remove_orphan_files", "compact", "compact_manifest")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="ingest.maintain", description=__doc__)
    parser.add_argument("--settings-json", required=True)
    parser.add_argument("--step", action="append", required=True)
    options = parser.parse_args(arguments)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        steps = [_step(step) for step in options.step]
        settings = load_settings_json(options.settings_json)
        prepare_jvm(settings)
        from ingest.paimon_java import LakeMaintenance

        lake = LakeMaintenance(settings)
        for table, procedure in steps:
            started = time.monotonic()
            result = lake.run(table, procedure)
            seconds = round(time.monotonic() - started, 3)
            line = {"table": table, "procedure": procedure, "seconds": seconds, "result": result}
            print(json.dumps(line), flush=True)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _step(text: str) -> tuple[str, str]:
    table, _, procedure = text.partition(":")
    if table not in {t.name for t in TABLES} or procedure not in PROCEDURES:
        raise ConfigError(f"step {text!r} is not TABLE:PROCEDURE")
    return table, procedure


def _end_with_parent() -> None:
    while sys.stdin.buffer.read(4096):
        pass
    # The JVM reads our end of a pipe in the same way, and goes with us.
    os._exit(130)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
