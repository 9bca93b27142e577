"""Commits to ``clips`` beside another process.

``python -m tests.pool_commit_racer SETTINGS NAME COMMITS``
Prints a line when it is ready, starts with the first line that it is sent, and ends having
printed how many commits it was told had succeeded. ``plain`` as a fourth argument commits as
pypaimon does by itself.
"""

from __future__ import annotations

import sys

from pypaimon import CatalogFactory

from processors.pool.lake import Lake
from schemas.settings import load_settings_json

OPTIONS = {
    "snapshot.ignore-empty-commit": "false",
    # A commit that lost a race tries again at once: with growing pauses the other one would have
    # the table to itself.
    "commit.max-retries": "1000",
    "commit.min-retry-wait": "1 ms",
    "commit.max-retry-wait": "2 ms",
}


def main() -> None:
    settings = load_settings_json(sys.argv[1])
    name, commits = sys.argv[2], int(sys.argv[3])
    lake = Lake(settings)
    catalog = CatalogFactory.create(dict(lake.options)) if "plain" in sys.argv else lake.catalog
    table = catalog.get_table(f"{lake.database}.clips")
    table = table.copy(OPTIONS)
    builder = table.new_stream_write_builder()._with_commit_user(name)
    print("ready", flush=True)
    sys.stdin.readline()
    done = 0
    commit = builder.new_commit()
    for number in range(1, commits + 1):
        commit.commit([], number)
        done += 1
    commit.close()
    print(done)


if __name__ == "__main__":
    main()
