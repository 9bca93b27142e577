"""What the models cost on a GPU, with random weights of the published architectures.

Safety, aesthetics and captions: each alone, all of them in one actor, and in the whole pipeline
with real decoding; beside them DataJuicer's operators, one clip at a time, on the same machine with
the same weights and the same generation settings. ``--tiny`` runs all of it with tiny models, on
a CPU as well. docs/performance.md says what is measured, and how it is run on a bare machine.

Every figure is on the disk once it is there (``….jsonl``), and the report is written after each
part, so that a run that is ended early leaves what it has measured.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import gpu_report, machine
from benchmarks.gpu_meter import Gpu, Lines
from benchmarks.runs import Job, RunFailed, run
from schemas.settings import CHECKOUT

PARTS = ("stages", "datajuicer", "pipeline", "decode", "static")
"""In the order in which they run: those first without which there is nothing to compare."""
_LEAST_S = {"stages": 60.0, "datajuicer": 60.0, "pipeline": 70.0, "decode": 10.0, "static": 60.0}
"""A part is not begun with less time left."""
_SIZES = ((64, 32), (256, 128), (512, 256))
"""Frames and clips of a batch; the first are the defaults of the settings."""
_TINY_SIZES = ((64, 32), (4, 2))
_NEW_TOKENS = 32

_out = Console(stderr=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 if a part failed or was not begun."""
    options = _options(arguments)
    ends = time.monotonic() + options.budget
    options.json.parent.mkdir(parents=True, exist_ok=True)
    lines = Lines(options.json.with_suffix(".jsonl"))
    if options.report:
        return _tell(_write(options.json, lines))
    lines.path.unlink(missing_ok=True)
    lines.add(
        part="machine",
        what="machine",
        **machine.described("benchmarks.gpu"),
        gpu=Gpu.described(),
        versions=machine.versions("torch", "transformers", "av", "numpy"),
    )
    with tempfile.TemporaryDirectory() as scratch:
        runner = _Runner(options, lines, Path(scratch))
        left = [part for part in PARTS if part in (options.only or PARTS)]
        while left:
            # Ours up to the next of DataJuicer's share a process, and with it imports.
            some = left[:1] if left[0] == "datajuicer" else _until_datajuicer(left)
            time_left = ends - time.monotonic()
            if time_left < _LEAST_S[some[0]]:
                lines.add(part=some[0], what="skipped", error=f"{time_left:.0f} s are left")
                left = left[1:]
                continue
            # What comes after a part that hangs still has its time.
            later = sum(_LEAST_S[part] for part in left[len(some) :])
            time_left = max(_LEAST_S[some[0]], time_left - later)
            _out.print(f"{', '.join(some)}: for {time_left:.0f} s at most")
            if some == ["datajuicer"]:
                runner.datajuicer(time_left)
                left = left[1:]
            else:
                done = runner.ours(some, time_left)
                left = left[done:]
            _write(options.json, lines)
    return _tell(_write(options.json, lines))


def _tell(report: dict[str, Any]) -> int:
    """Print the report; the exit code."""
    Console().print(gpu_report.table(report))
    for name, value in report["derived"].items():
        print(f"{value:10.3f}  {name}")
    for problem in report["problems"]:
        print(f"{problem['part']}: {problem['error']}")
    return 1 if report["problems"] else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.gpu", description=__doc__)
    add = parser.add_argument
    folder = CHECKOUT / ".cliplake" / "benchmarks" / "gpu"
    add("--json", type=Path, default=folder / "gpu.json", help="where to write every figure")
    add("--report", action="store_true", help="run nothing: report on the lines beside --json")
    add("--only", action="append", choices=PARTS, help="one part; may be given again")
    add("--tiny", action="store_true", help="tiny models and short windows, to try the script")
    add("--budget", type=float, default=460.0, help="seconds for all of it (default: 460)")
    add("--seconds", type=float, default=6.0, help="of a window that is measured (default: 6)")
    add("--height", type=int, default=360, help="of the made videos (default: 360)")
    add("--cpus", type=int, default=os.cpu_count(), help="cores that the pipeline may use")
    add("--folder", type=Path, default=folder, help="where made videos and clips are kept")
    add("--datajuicer-python", default="", help="the interpreter of DataJuicer's environment")
    add("--datajuicer-path", default="", help="PYTHONPATH for it, in place of the one that is set")
    add("--datajuicer-dtype", default="float32", help="precision of its models")
    options = parser.parse_args(arguments)
    options.folder = options.folder.resolve()
    if options.tiny:
        options.seconds = min(options.seconds, 0.3)
        options.height = 180
    return options


def _until_datajuicer(parts: Sequence[str]) -> list[str]:
    end = parts.index("datajuicer") if "datajuicer" in parts else len(parts)
    return list(parts[:end])


class _Runner:
    """Starts the processes of the parts."""

    def __init__(self, options: argparse.Namespace, lines: Lines, scratch: Path) -> None:
        self._options = options
        self._lines = lines
        self._scratch = scratch
        self._made = scratch / "made.json"

    def ours(self, parts: Sequence[str], time_left: float) -> int:
        """Run parts in one process; how many of them are over, by whatever end."""
        options = self._options
        job = {
            "parts": list(parts),
            "inputs": str(options.folder / ("tiny" if options.tiny else "full")),
            "tiny": options.tiny,
            "height": options.height,
            "new_tokens": 8 if options.tiny else _NEW_TOKENS,
            "sizes": _TINY_SIZES if options.tiny else _SIZES,
            "cpus": options.cpus,
            "pipeline_seconds": options.seconds if options.tiny else 5 * options.seconds,
        }
        error = self._run("benchmarks.gpu_tasks", job, time_left)
        if not error:
            return len(parts)
        lines = self._lines.read()
        begun = [
            line["part"] for line in lines if line["what"] == "begun" and line["part"] in parts
        ]
        part = [*parts[:1], *begun][-1] if parts else "prepare"
        self._lines.add(part=part, what="failed", error=error)
        return max(1, len(begun))

    def datajuicer(self, time_left: float) -> None:
        options = self._options
        if not self._made.exists():
            self.ours([], time_left)
        job = {"dtype": options.datajuicer_dtype, "mended": True}
        path = options.datajuicer_path
        error = self._run(
            "benchmarks.gpu_datajuicer",
            job,
            time_left,
            datajuicer=True,
            python=options.datajuicer_python,
            environment={"PYTHONPATH": path} if path else {},
        )
        if error:
            self._lines.add(part="datajuicer", what="failed", error=error)

    def _run(self, module: str, job: dict[str, Any], time_left: float, **how: Any) -> str:
        """Why it failed; empty if it did not."""
        folder = Path(tempfile.mkdtemp(dir=self._scratch))
        common = {
            "lines": str(self._lines.path),
            "made": str(self._made),
            "seconds": self._options.seconds,
        }
        one = Job(module, {**job, **common}, module=module, timeout_s=time_left, **how)
        try:
            run(one, folder)
        except RunFailed as error:
            return str(error)
        return ""


def _write(path: Path, lines: Lines) -> dict[str, Any]:
    report = gpu_report.made(lines.read())
    part = path.with_name(f"part-{path.name}")
    part.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    part.rename(path)
    return report


if __name__ == "__main__":
    sys.exit(main())
