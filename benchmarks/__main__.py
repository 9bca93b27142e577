"""What the pipeline's work costs, beside bare decoding, PySceneDetect and DataJuicer.

Groups: ``split`` (a video at a time), ``enrichment`` (the stages after it, on clips that are
files) and ``chain`` (both, DataJuicer's with its re-encoding). Rounds alternate between the
sides; each run is a process of its own. ``make bench`` needs what ``make test`` needs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import av
import cv2
from rich.console import Console

from benchmarks import cases, figure, inputs, machine, report
from benchmarks.runs import Run, run
from processors.media.probe import probe
from schemas.settings import CHECKOUT

GROUPS = ("split", "enrichment", "chain")
RECORDED = Path(__file__).with_name("recorded.json")
_LONGEST_CLIPS_S = 30.0
"""Of video, in the enrichment and the chain, unless everything is asked for: DataJuicer's motion
operator takes a second of CPU for a second of video, and more."""

_out = Console(stderr=True)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    if options.check and not options.check.is_file():
        _out.print(f"{options.check} is missing: make it by --json {options.check}")
        return 2
    folder: Path = options.folder
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as opened:
        asked = _inputs(options, folder, Path(scratch), opened)
        measured = [_measure(one, options.rounds, Path(scratch)) for one in asked]
    found = report.as_json(measured, _machine(options))
    Console().print(report.table(measured))
    for name, ratio in found["ratios"].items():
        print(f"{ratio:8.2f}  {name}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if options.figure:
        options.figure.write_text(figure.draw(found), encoding="utf-8")
    unequal = [name for name, same in found["equal"].items() if not same]
    for name in unequal:
        print(f"not equal: {name}")
    worse = []
    if options.check:
        recorded = json.loads(options.check.read_text(encoding="utf-8"))
        worse = report.slower(found["ratios"], recorded["ratios"])
        for line in worse:
            print(f"slower: {line}")
        print(f"{len(worse)} ratios are worse than the recorded by more than {report.SLOWER:g}")
    return 1 if worse or unequal else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    add = parser.add_argument
    add("--videos", type=Path, help="a folder of videos, split beside the samples")
    add("--json", type=Path, help="where to write every figure")
    add("--figure", type=Path, help="where to draw the figure, an SVG")
    add("--rounds", type=int, default=3, help="runs of everything (default: 3)")
    add("--only", action="append", choices=GROUPS, help="one group; may be given again")
    add("--input", action="append", help="only inputs of this name; may be given again")
    add("--full", action="store_true", help="all sizes, codecs and keyframe distances: hours")
    add(
        "--check",
        type=Path,
        nargs="?",
        const=RECORDED,
        help="compare ratios with those of an earlier JSON; exit code 1 if any is worse",
    )
    add(
        "--folder",
        type=Path,
        default=CHECKOUT / ".cliplake" / "benchmarks",
        help="where made videos, clips and models are kept",
    )
    return parser.parse_args(arguments)


def _inputs(
    options: argparse.Namespace, folder: Path, scratch: Path, opened: ExitStack
) -> list[cases.Input]:
    """What is measured; made and cut now, as far as it is not there."""
    groups = options.only or GROUPS
    videos = inputs.samples()
    given = inputs.videos_in(options.videos) if options.videos else []
    made = list(inputs.ALL_MADE if options.full else inputs.FEW_MADE)
    if options.input:
        videos, given = (
            [video for video in some if video.name in options.input] for some in (videos, given)
        )
        made = [one for one in made if one.name in options.input]
    _out.print(f"making {len(made)} videos in {folder}, as far as they are not there")
    videos += inputs.make(made, folder / "videos")
    asked = []
    if "split" in groups:
        asked += cases.split_inputs([*videos, *given])
    if set(groups) & {"enrichment", "chain"}:
        from tests.tiny_models import make_checkpoints

        checkpoints = make_checkpoints(scratch / "models")
        # Videos that were given can be of any length: they are there if they are asked for by name.
        videos += given if options.full or options.input else []
        some = videos if options.full else _few(videos)
        clips = [
            inputs.Video(path.name, path, probe(path))
            for path in cases.make_clips(some, folder / "clips")
        ]
        if "enrichment" in groups:
            name = f"{len(clips)} clips"
            asked.append(cases.enrichment_input(name, clips, checkpoints))
        if "chain" in groups:
            chain = cases.chain_input(f"{len(some)} videos", some, clips, checkpoints)
            asked.append(opened.enter_context(chain))
    return asked


def _few(videos: Sequence[inputs.Video]) -> list[inputs.Video]:
    """The smallest pictures first, as many as are not too long together."""
    taken: list[inputs.Video] = []
    for video in sorted(videos, key=lambda v: v.info.width * v.info.height):
        seconds = sum(v.info.duration_s for v in taken) + video.info.duration_s
        if not taken or seconds <= _LONGEST_CLIPS_S:
            taken.append(video)
    return taken


def _measure(one: cases.Input, rounds: int, scratch: Path) -> report.Measured:
    """All jobs of an input, round by round, in turn."""
    runs: dict[str, list[Run]] = {name: [] for name in one.jobs}
    fetched: list[int] = []
    for number in range(1, rounds + 1):
        for name, job in one.jobs.items():
            _out.print(f"{one.group} {one.name}: {name} ({number} of {rounds})")
            with tempfile.TemporaryDirectory(dir=scratch) as own:
                before = one.store.bytes_sent if one.store else 0
                runs[name].append(run(job, Path(own)))
                if one.store and name == "ours":
                    fetched.append(one.store.bytes_sent - before)
    return report.Measured(one, runs, int(statistics.median(fetched)) if fetched else None)


def _machine(options: argparse.Namespace) -> dict[str, Any]:
    """Where and how a report was made."""
    return {
        **machine.described("benchmarks"),
        "rounds": options.rounds,
        "versions": {
            **machine.versions("av", "numpy"),
            "opencv": cv2.__version__,
            "libavcodec": ".".join(map(str, av.library_versions["libavcodec"])),
            **machine.versions("scenedetect-headless"),
            "datajuicer": "1.6.1",
        },
    }


if __name__ == "__main__":
    sys.exit(main())
