"""DataJuicer's part of the GPU benchmark, in its environment: one clip at a time.

Its operators are called directly, as in `benchmarks.datajuicer_tasks`, and each decodes for
itself. Weights are those of ours, in the precision that is asked for: single by default, which is
how its operators run a checkpoint that is saved so; its image classifier cannot be run in another.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import torch
from loguru import logger

from benchmarks import random_weights
from benchmarks.gpu_meter import Done, Lines, window
from benchmarks.meter import Meter


def do_without_ray() -> None:
    """Where Ray is not installed: it is too large to be taken along, and operators that are called
    directly have no use for it. DataJuicer's package of executors wants it when it is imported,
    and that is done by the package above, of which operators use one module."""
    if importlib.util.find_spec("ray") is None:
        core = ModuleType("data_juicer.core")
        package = importlib.util.find_spec("data_juicer")
        assert package is not None
        core.__path__ = [f"{place}/core" for place in package.submodule_search_locations or ()]
        sys.modules["data_juicer.core"] = core


def measure(job: dict[str, Any], lines: Lines) -> None:
    """Each operator over the clips, again and again for some seconds."""
    from benchmarks.datajuicer_tasks import operators

    found: dict[str, dict[str, Any]] = {path: {} for path in job["clips"]}
    for name, operator in operators(job).items():
        began = time.perf_counter()
        # Loads its model, and runs it once.
        operator(job["clips"][0])
        lines.add(what=f"{name} set up", seconds=time.perf_counter() - began)
        done, end = Done(), time.monotonic() + job["seconds"]
        with window() as took:
            while done.clips < len(job["clips"]) or time.monotonic() < end:
                place = done.clips % len(job["clips"])
                path = job["clips"][place]
                said = operator(path)
                found[path][name] = said.strip() if isinstance(said, str) else said
                done.add(Done(1, job["seconds_of"][place]))
        lines.rate(name, done, took, dtype=job["dtype"])
    for path, scores in found.items():
        lines.add(what="scores", side="datajuicer", clip=Path(path).name, **scores)


def main(order: str, answer: str) -> None:
    """Do what the file ``order`` says; figures go to its ``lines``."""
    logger.remove()
    logger.add(sys.stderr, level="ERROR")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    job = json.loads(Path(order).read_text(encoding="utf-8"))
    job |= json.loads(Path(job["made"]).read_text(encoding="utf-8"))
    do_without_ray()
    random_weights.install(getattr(torch, job["dtype"]))
    lines = Lines(Path(job["lines"]), {"part": "datajuicer"})
    lines.add(what="begun")
    measure(job, lines)
    lines.add(what="ended")
    Meter().write(answer, None)


if __name__ == "__main__":
    main(*sys.argv[1:])
