"""What poison among the videos costs the good ones.

``python -m benchmarks.poison`` splits a thousand good videos one after the other, as one slot of
Flink does; then the same with ten among them of which nothing can be made (1 %), and then with
one more at which the decoder hangs until its deadline (0.1 %). Rounds alternate; medians are
shown. Wall time is what counts here, since a decoder that hangs takes no CPU time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import inputs
from benchmarks.runs import Job, Run, run
from schemas.reasons import MediaReason
from tests.poison import POISONS

HANG = "hang"
"""In place of a video's path: a decoder that never comes back."""


def jobs(video: Path, good: int, folder: Path) -> dict[str, Job]:
    """The three streams, by name; poison is made in ``folder`` and spread evenly."""
    poison = _poison(max(1, good // 100), folder)
    hangs = [HANG] * max(1, good // 1000)
    streams = {
        "good": [str(video)] * good,
        "and 1 % poison": _among([str(video)] * good, poison),
        "and 0.1 % that hang": _among([str(video)] * good, poison + hangs),
    }
    return {name: Job("split_stream", {"videos": videos}) for name, videos in streams.items()}


def _poison(count: int, folder: Path) -> list[str]:
    """Files that the split refuses, each for a reason or by a way of its own while they last."""
    refused = [p for p in POISONS.values() if isinstance(p.split, MediaReason)]
    # From all over the table: its neighbours are alike.
    chosen = refused[:: max(1, len(refused) // count)]
    made = []
    for number, poison in enumerate(islice(chosen, count)):
        own = folder / str(number)
        own.mkdir(parents=True)
        made.append(str(poison.make(own)))
    return made


def _among(videos: Sequence[str], others: Sequence[str]) -> list[str]:
    """``others`` at even distances between ``videos``."""
    mixed = list(videos)
    for number, other in reversed(list(enumerate(others))):
        mixed.insert((2 * number + 1) * len(videos) // (2 * len(others)), other)
    return mixed


def as_json(runs: dict[str, list[Run]], good: int) -> dict[str, Any]:
    """Medians by stream; ``slower`` is wall time over that of the good ones alone."""
    walls = {name: statistics.median(r.wall_s for r in some) for name, some in runs.items()}
    first = next(iter(walls.values()))
    return {
        "good": good,
        "load": os.getloadavg()[0],
        "streams": {
            name: {
                "wall_s": round(walls[name], 2),
                "cpu_s": round(statistics.median(r.cpu_s for r in some), 2),
                "slower": round(walls[name] / first, 3),
                **some[0].found,
            }
            for name, some in runs.items()
        },
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.poison", description=__doc__)
    parser.add_argument("--good", type=int, default=1000, help="good videos (default: 1000)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--video", type=Path, help="the good one (default: the smallest sample)")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args(arguments)
    video = options.video or min(inputs.samples(), key=lambda v: v.info.width).path
    runs: dict[str, list[Run]] = {}
    progress = Console(stderr=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        streams = jobs(video.resolve(), options.good, folder / "poison")
        for number in range(1, options.rounds + 1):
            for stream, job in streams.items():
                progress.print(f"{stream} ({number} of {options.rounds})")
                with tempfile.TemporaryDirectory(dir=folder) as own:
                    runs.setdefault(stream, []).append(run(job, Path(own)))
    found = as_json(runs, options.good)
    table = Table(title=f"{options.good} times {video.name}, load {found['load']:.1f}")
    table.add_column("stream")
    for column in ("split", "refused", "CPU s", "wall s", "slower"):
        table.add_column(column, justify="right")
    for stream, line in found["streams"].items():
        cells = (line[key] for key in ("split", "refused", "cpu_s", "wall_s", "slower"))
        table.add_row(stream, *map(str, cells))
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
