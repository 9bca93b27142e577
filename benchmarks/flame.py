"""Where the time of each stage goes: a flame graph of the split, and one of the enrichment.

``python -m benchmarks.flame FOLDER --figure docs/flame.svg`` runs the tasks of `benchmarks.tasks`
under py-spy, decoding children included, with tiny models and on the sample clips, and draws what
their stacks were. Only work is drawn: no imports, no loading of models. Wide is long; what stands
on a box was called by it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from benchmarks import cases
from benchmarks.inputs import Video, samples

_RATE = 100
"""Samples a second."""
_REPEATS = {"split": 5, "enrich": 2}
"""Of the samples: the former takes a tenth of the time."""
_WIDTH, _HEIGHT, _TITLE = 1200, 17, 40
_LEAST = 0.002
"""Share of a graph that a box has to have to be drawn."""
_COLOURS = {".py)": "#e8a35c", "": "#9db8d2"}
"""Python's frames, and those of libraries."""
_FONT = 'font-family="sans-serif" font-size="11"'
_ADDRESS = re.compile(r"(?:0x[0-9a-f]+|\?) \((.*?)\)")
_LINE = re.compile(r":\d+\)$")
_HASH = re.compile(r"-[0-9a-f]{8}\.so[\d.]*|\.abi3\.so|\.cpython[\w-]*\.so|\.so[\d.]*")


@dataclass(frozen=True)
class Graph:
    """One flame graph: which stacks are in it, and under which headings."""

    title: str
    anchors: Sequence[str]
    """A stack counts from one of these on, the first that is in it."""
    stages: Sequence[tuple[str, str]]
    """Heading, and what is in a stack that belongs under it; the first wins."""
    excluded: Sequence[str] = ()


SPLIT = Graph(
    "split",
    ("score_segment (", "probe (", "detect_scenes ("),
    (
        ("decode", "FrameReader"),
        ("convert", "processors/media/planes.py"),
        ("score", "processors/media/scoring.py"),
        ("probe", "processors/media/probe.py"),
        ("other", ""),
    ),
)
ENRICHMENT = Graph(
    "enrichment",
    ("decode_clips (", "Stage.run (", "EnrichmentChain.run ("),
    (
        ("motion", "processors/motion.py"),
        ("safety", "processors/models/safety.py"),
        ("aesthetics", "processors/models/aesthetics.py"),
        ("captions", "processors/models/captions.py"),
        ("frames", "decode_clips"),
        ("around them", ""),
    ),
    # A child's start, and who only waits for it.
    excluded=("<module>", "Sandbox.run", "SharedBatches.run ("),
)


@dataclass
class Box:
    """One frame with all that it called."""

    samples: int = 0
    above: dict[str, Box] = field(default_factory=dict)

    def add(self, frames: Sequence[str], count: int) -> None:
        self.samples += count
        box = self
        for frame in frames:
            box = box.above.setdefault(frame, Box())
            box.samples += count


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.flame", description=__doc__)
    parser.add_argument("folder", type=Path, help="for clips, models and recordings")
    parser.add_argument("--figure", type=Path, required=True, help="the SVG to draw")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    graphs = {
        graph.title: graph_of(record(job, options.folder), graph)
        for graph, job in jobs(options.folder, samples())
    }
    options.figure.write_text(draw(graphs), encoding="utf-8")
    for title, root in graphs.items():
        shares = {name: f"{box.samples / root.samples:.0%}" for name, box in root.above.items()}
        print(f"{title}: {root.samples} samples; {shares}")
    return 0


def jobs(folder: Path, videos: Sequence[Video]) -> Iterator[tuple[Graph, dict[str, Any]]]:
    """What is recorded, as orders of `benchmarks.tasks`."""
    from tests.tiny_models import make_checkpoints

    paths = [str(video.path) for video in videos]
    yield SPLIT, {"task": "split", "videos": paths * _REPEATS["split"]}
    clips = [str(clip) for clip in cases.make_clips(videos, folder / "clips")]
    process = cases.our_process(make_checkpoints(folder / "models"), cases.STAGES[1:])
    yield ENRICHMENT, {"task": "enrich", "clips": clips * _REPEATS["enrich"], "process": process}


def record(job: dict[str, Any], folder: Path) -> str:
    """The stacks of a task's processes: ``frame;frame;… count`` a line."""
    order, stacks = folder / "flame-job.json", folder / f"{job['task']}.stacks"
    order.write_text(json.dumps({"folder": str(folder), **job}), encoding="utf-8")
    task = [sys.executable, "-m", "benchmarks.tasks", str(order), str(folder / "answer.json")]
    subprocess.run(
        [
            str(Path(sys.executable).with_name("py-spy")),
            *("record", "--subprocesses", "--native", "--rate", str(_RATE)),
            *("--format", "raw", "--output", str(stacks), "--", *task),
        ],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )
    return stacks.read_text(encoding="utf-8")


def graph_of(stacks: str, graph: Graph) -> Box:
    """The samples of work, under their stages' headings."""
    root = Box()
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        work = _work(stack.split(";"), graph)
        if not work:
            continue
        stage = next(name for name, text in graph.stages if text in stack)
        root.add([stage, *_readable(work)], int(count))
    return root


def _work(frames: Sequence[str], graph: Graph) -> Sequence[str]:
    """The frames from the anchor on; none if the stack is not of the graph."""
    for number, frame in enumerate(frames):
        if frame.startswith(tuple(graph.anchors)):
            work = frames[number:]
            return [] if any(text in f for f in work for text in graph.excluded) else work
    return []


def _readable(frames: Sequence[str]) -> list[str]:
    """Names without addresses, lines and hashes; what follows itself once."""
    found: list[str] = []
    for frame in frames:
        name = _HASH.sub("", _ADDRESS.sub(r"\1", _LINE.sub(")", frame)))
        if not found or found[-1] != name:
            found.append(name)
    return found


def draw(graphs: dict[str, Box]) -> str:
    """All graphs, one below the other, as SVG; a box's title is shown under the mouse."""
    parts: list[str] = []
    top = 0
    for title, root in graphs.items():
        height = _depth(root, root.samples) * _HEIGHT
        parts.append(
            f'<text x="10" y="{top + 24}" {_FONT} font-weight="bold">{escape(title)}: '
            f"{root.samples} samples</text>"
        )
        bottom = top + _TITLE + height
        parts += _boxes(root, root.samples, 0.0, bottom)
        top = bottom + 10
    size = f'width="{_WIDTH}" height="{top}" viewBox="0 0 {_WIDTH} {top}"'
    white = f'<rect width="{_WIDTH}" height="{top}" fill="white"/>'
    return "\n".join(
        [f'<svg xmlns="http://www.w3.org/2000/svg" {size}>', white, *parts, "</svg>", ""]
    )


def _depth(box: Box, whole: int) -> int:
    drawn = [one for one in box.above.values() if one.samples >= _LEAST * whole]
    return 1 + max(map(_depth, drawn, [whole] * len(drawn))) if drawn else 0


def _boxes(box: Box, whole: int, left: float, bottom: float) -> Iterator[str]:
    """What stands on ``box``, whose left edge is at ``left`` pixels and upper one at ``bottom``."""
    for name, one in sorted(box.above.items(), key=lambda item: -item[1].samples):
        if one.samples < _LEAST * whole:
            continue
        width = one.samples / whole * _WIDTH
        colour = next(value for end, value in _COLOURS.items() if name.endswith(end))
        fitting = int(width / 6.2)
        label = name if len(name) <= fitting else name[: max(0, fitting - 1)]
        text = (
            f'<text x="{left + 3:.1f}" y="{bottom - 5:.0f}" {_FONT}>{escape(label)}</text>'
            if fitting >= 4
            else ""
        )
        yield (
            f"<g><title>{escape(name)}: {one.samples / whole:.1%}</title>"
            f'<rect x="{left:.1f}" y="{bottom - _HEIGHT:.0f}" width="{max(width - 0.6, 0.4):.1f}" '
            f'height="{_HEIGHT - 1}" fill="{colour}"/>{text}</g>'
        )
        yield from _boxes(one, whole, left, bottom - _HEIGHT)
        left += width


if __name__ == "__main__":
    sys.exit(main())
