"""One measured run: a fresh process that does one thing, and how much memory its tree had.

What it does is in `benchmarks.tasks` and `benchmarks.datajuicer_tasks`, or in the module that a
job names; what it took it says itself, by `benchmarks.meter`.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import psutil

from schemas.settings import CHECKOUT

DATAJUICER_PYTHON = CHECKOUT / ".venv-datajuicer" / "bin" / "python"
TASKS = "benchmarks.tasks"
DATAJUICER_TASKS = "benchmarks.datajuicer_tasks"
_SAMPLE_S = 0.2
"""Between looks at the memory. A process's own peak is kept by the kernel, so that only a child
that is gone sooner is missed."""
_FIRST_SAMPLE_S, _FIRST_SAMPLES = 0.02, 50
"""In the first second: on an idle machine a short run is over before a longer pause is."""
_TIMEOUT_S = 3600.0
_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""Of both sides: idle threads that spin would count as work."""


class RunFailed(Exception):
    """A measured process ended with an error."""


@dataclass(frozen=True)
class Job:
    """What one process is to do, and where."""

    task: str
    """A function of the module."""
    arguments: Mapping[str, Any]
    datajuicer: bool = False
    """Whether it runs in DataJuicer's environment."""
    module: str = ""
    """The module that does it; by default `benchmarks.tasks`, or that for DataJuicer."""
    python: str = ""
    """The interpreter, if it is another than the environment's."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables beside those that there are."""
    timeout_s: float = _TIMEOUT_S


@dataclass(frozen=True)
class Run:
    """What one process took."""

    cpu_s: float
    """Of its work: user and system time of the process and all its descendants."""
    wall_s: float
    start_cpu_s: float
    """What came before the work."""
    peak_bytes: int
    """Resident memory at its highest, of all processes of the tree together."""
    parts: dict[str, float] = field(default_factory=dict)
    """CPU seconds by part of the work."""
    found: Any = None
    """What the work found, so that sides can be compared."""


def run(job: Job, folder: Path) -> Run:
    """Do ``job`` in a process of its own; ``folder`` is for files. Raises `RunFailed`."""
    order, answer, log = folder / "job.json", folder / "answer.json", folder / "log.txt"
    task = {"task": job.task, "folder": str(folder), **job.arguments}
    order.write_text(json.dumps(task), encoding="utf-8")
    answer.unlink(missing_ok=True)
    python = job.python or (str(DATAJUICER_PYTHON) if job.datajuicer else sys.executable)
    module = job.module or (DATAJUICER_TASKS if job.datajuicer else TASKS)
    with log.open("wb") as output:
        process = psutil.Popen(
            [python, "-m", module, str(order), str(answer)],
            cwd=CHECKOUT,
            env={**psutil.Process().environ(), **_ONE_THREAD, **job.environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        watch = _Memory(process)
        try:
            code = process.wait(job.timeout_s)
        except psutil.TimeoutExpired:
            code = f"nothing within {job.timeout_s:.0f} s"
        finally:
            peak = watch.stop()
            end_all(process)
    if code or not answer.exists():
        text = log.read_text(encoding="utf-8", errors="replace")[-4000:]
        raise RunFailed(f"{job.task} ended with {code}:\n{text}")
    said = json.loads(answer.read_text(encoding="utf-8"))
    return Run(
        cpu_s=said["cpu_s"],
        wall_s=said["wall_s"],
        start_cpu_s=said["start_cpu_s"],
        peak_bytes=peak,
        parts=said["parts"],
        found=said["found"],
    )


def end_all(process: psutil.Popen) -> None:
    """End a process and all that it started."""
    with contextlib.suppress(psutil.Error):
        tree = [process, *process.children(recursive=True)]
        for one in tree:
            with contextlib.suppress(psutil.Error):
                one.kill()
        psutil.wait_procs(tree, timeout=10)


class _Memory:
    """Looks at the memory of a process and its descendants until it is stopped."""

    def __init__(self, process: psutil.Popen) -> None:
        self._process = process
        self._peak = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """The highest sum of the peaks of processes that were there together, bytes."""
        self._stopped.set()
        self._thread.join()
        return self._peak

    def _watch(self) -> None:
        for pause in chain(repeat(_FIRST_SAMPLE_S, _FIRST_SAMPLES), repeat(_SAMPLE_S)):
            if self._stopped.wait(pause):
                return
            try:
                tree = [self._process, *self._process.children(recursive=True)]
            except psutil.Error:
                return
            self._peak = max(self._peak, sum(_own_peak(process.pid) for process in tree))


def _own_peak(pid: int) -> int:
    """The most resident memory that a process ever had, bytes; 0 if it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except (OSError, ValueError):
        return 0
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
