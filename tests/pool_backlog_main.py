"""Reads a backlog of ``clips`` in a process of its own.

``python -m tests.pool_backlog_main SETTINGS`` prints as JSON how many clips there
were, the snapshot that comes next, and by how many KiB the most memory ever in use grew.
"""

from __future__ import annotations

import json
import resource
import sys

from processors.pool.lake import Lake
from processors.pool.source import ClipSource, first_position
from schemas.settings import load_settings_json

WARM = 20
"""Reads by which libraries are loaded and pools are filled."""


def main() -> None:
    lake = Lake(load_settings_json(sys.argv[1]))
    source = ClipSource(lake, first_position(lake))
    clips, reads, before = 0, 0, 0
    while (chunk := source.read(1000)) is not None:
        clips += chunk.rows.num_rows
        reads += 1
        if reads == WARM:
            before = peak()
    print(json.dumps({"clips": clips, "next": source.next_snapshot, "grown": peak() - before}))


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
