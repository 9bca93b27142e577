"""From measured runs to figures: medians, ratios, a table, and what got slower.

JSON holds every run. A ratio is of medians of CPU time, by one name over all benchmarks, so that
two reports can be compared.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from benchmarks.cases import Input
from benchmarks.runs import Run

SLOWER = 1.15
"""A ratio that is worse by this factor is called slower; less than that is the machine's mood."""

LIMIT = "decode"
_OURS = {"split": "split", "enrichment": "ours", "chain": "ours"}
_PEERS = {
    "split": ("scenedetect",),
    "enrichment": ("datajuicer", "datajuicer-mended"),
    "chain": ("datajuicer", "datajuicer-mended"),
}
_SCORE_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Line:
    """Medians of one thing on one input."""

    group: str
    input: str
    what: str
    cpu_s: float
    wall_s: float
    start_cpu_s: float
    peak_bytes: int
    to_decode: float
    """Its CPU time over that of bare decoding."""
    parts: dict[str, float]
    """CPU seconds by part, medians."""


@dataclass(frozen=True)
class Measured:
    """One input, and its runs by what was run."""

    input: Input
    runs: Mapping[str, Sequence[Run]]
    bytes_fetched: int | None
    """By one run of ours; None where files are read in place."""

    def median(self, what: str) -> float:
        """CPU seconds."""
        return statistics.median(run.cpu_s for run in self.runs[what])

    def lines(self) -> list[Line]:
        limit = self.median(LIMIT)
        return [
            Line(
                self.input.group,
                self.input.name,
                what,
                self.median(what),
                statistics.median(run.wall_s for run in runs),
                statistics.median(run.start_cpu_s for run in runs),
                max(run.peak_bytes for run in runs),
                self.median(what) / limit,
                {p: statistics.median(run.parts[p] for run in runs) for p in runs[0].parts},
            )
            for what, runs in self.runs.items()
        ]


def as_json(measured: Sequence[Measured], machine: Mapping[str, Any]) -> dict[str, Any]:
    """The whole report."""
    return {
        "machine": dict(machine),
        "inputs": [
            {
                "group": m.input.group,
                "name": m.input.name,
                "seconds": round(m.input.seconds, 3),
                "frames": m.input.frames,
                "bytes": m.input.size,
                "bytes_fetched": m.bytes_fetched,
            }
            for m in measured
        ],
        "medians": [asdict(line) for m in measured for line in m.lines()],
        "ratios": ratios(measured),
        "equal": equal(measured),
        "runs": [
            {
                "group": m.input.group,
                "input": m.input.name,
                "what": what,
                **{name: value for name, value in asdict(run).items() if name != "found"},
            }
            for m in measured
            for what, runs in m.runs.items()
            for run in runs
        ],
    }


def ratios(measured: Sequence[Measured]) -> dict[str, float]:
    """By name: ``ours/decode`` is better when small, ``peer/ours`` when large."""
    found: dict[str, float] = {}
    for m in measured:
        group, name = m.input.group, m.input.name
        ours = m.median(_OURS[group])
        found[f"{group} {name}: ours/decode"] = ours / m.median(LIMIT)
        for peer in _PEERS[group]:
            if peer in m.runs:
                found[f"{group} {name}: {peer}/ours"] = m.median(peer) / ours
    splits = [m for m in measured if m.input.group == "split"]
    if splits:
        sums = {w: sum(m.median(w) for m in splits) for w in ("split", LIMIT, "scenedetect")}
        found["split of all: ours/decode"] = sums["split"] / sums[LIMIT]
        found["split of all: scenedetect/ours"] = sums["scenedetect"] / sums["split"]
    return {name: round(value, 3) for name, value in found.items()}


def equal(measured: Sequence[Measured]) -> dict[str, bool]:
    """Whether both sides found the same: cuts as frame numbers, scores of the same clip files.

    The chains' scores are not compared: DataJuicer's are of clips that it has encoded anew.
    """
    found = {}
    for m in measured:
        first = {what: runs[0].found for what, runs in m.runs.items()}
        if m.input.group == "split":
            found[f"cuts of {m.input.name}"] = first["split"] == first["scenedetect"]
        elif m.input.group == "enrichment":
            for stage in ("safety", "motion", "aesthetics"):
                ours = [clip[stage] for clip in first["ours"]]
                theirs = [clip[stage] for clip in first["datajuicer-mended"]]
                near = all(
                    abs(a - b) <= _SCORE_TOLERANCE for a, b in zip(ours, theirs, strict=True)
                )
                found[f"{stage} of {m.input.name}"] = near
    return found


def slower(now: Mapping[str, float], recorded: Mapping[str, float]) -> list[str]:
    """A line for each ratio that is worse than the recorded one."""
    lines = []
    for name in now.keys() & recorded.keys():
        before, after = recorded[name], now[name]
        worse = after / before if name.endswith("/decode") else before / after
        if worse > SLOWER:
            lines.append(f"{name} was {before:.2f} and is {after:.2f}")
    return sorted(lines)


def table(measured: Sequence[Measured]) -> Table:
    """The medians, for a terminal."""
    shown = Table(title="medians; CPU time of the work, all processes of it")
    for column in ("on", "what"):
        shown.add_column(column)
    for column in ("CPU s", "x decode", "wall s", "start CPU s", "peak MiB", "fetched / source"):
        shown.add_column(column, justify="right")
    for m in measured:
        for line in m.lines():
            fetched = m.bytes_fetched is not None and line.what == "ours"
            shown.add_row(
                f"{line.group} {line.input}",
                line.what,
                f"{line.cpu_s:.2f}",
                f"{line.to_decode:.2f}",
                f"{line.wall_s:.2f}",
                f"{line.start_cpu_s:.2f}",
                f"{line.peak_bytes / 2**20:.0f}",
                f"{(m.bytes_fetched or 0) / m.input.size:.2f}" if fetched else "",
            )
            for part, cpu_s in line.parts.items():
                shown.add_row("", f"  {part}", f"{cpu_s:.2f}")
        shown.add_section()
    return shown
