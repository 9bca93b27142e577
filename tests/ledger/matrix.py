"""The long matrix of faults, on a stack of its own: ``make chaos``."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deploy.local.stack import Stack
from processors.failpoints import VARIABLE
from tests.conftest import failpoint_folder, stack_settings
from tests.ledger.chaos import Chaos, Round
from tests.ledger.faults import KILLS, OF_CHECKPOINTS, STORM, freeze_driver


def summary(rounds: Iterable[Round]) -> Table:
    """The matrix: fault, rounds, lost, doubled, wrong, recovery."""
    table = Table(show_edge=False, header_style="bold")
    table.add_column("fault")
    for name in ("rounds", "lost", "doubled", "wrong", "recovery s, median", "longest"):
        table.add_column(name, justify="right")
    by_fault: dict[str, list[Round]] = {}
    for one in rounds:
        by_fault.setdefault(one.fault, []).append(one)
    for fault, some in by_fault.items():
        worst = max(some, key=lambda r: len(r.verdict.lost) + len(r.verdict.doubled))
        times = sorted(r.recovery_s for r in some)
        counts = (worst.verdict.lost, worst.verdict.doubled, worst.verdict.wrong)
        table.add_row(
            fault,
            str(len(some)),
            *(str(len(found)) for found in counts),
            f"{times[len(times) // 2]:.1f}",
            f"{times[-1]:.1f}",
        )
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()) % 100_000)
    parser.add_argument("--hits", type=int, default=20, help="times every failpoint is met")
    parser.add_argument("--kills", type=int, default=10, help="rounds of every kill")
    parser.add_argument("--references", type=int, default=12, help="references a round")
    parser.add_argument("--minutes", type=float, default=240, help="begin no round after them")
    parser.add_argument("--json", type=Path, help="write the rounds there")
    arguments = parser.parse_args()
    console = Console(stderr=True)
    console.print(f"seed {arguments.seed}")
    with tempfile.TemporaryDirectory(prefix="cliplake-chaos-") as name:
        folder = Path(name)
        os.environ[VARIABLE] = str(failpoint_folder(folder))
        told: list[str] = []
        with Stack(stack_settings(folder), log=told.append) as stack:
            chaos = Chaos(stack, told, folder, arguments.seed)
            try:
                ok = _run(chaos, arguments, console)
            finally:
                Console().print(summary(chaos.rounds))
                if arguments.json:
                    rounds = [asdict(r) for r in chaos.rounds]
                    arguments.json.write_text(json.dumps(rounds, indent=1))
    return 0 if ok else 1


def _run(chaos: Chaos, arguments: argparse.Namespace, console: Console) -> bool:
    """Whether every round was clean, and the whole order too when Flink reads it."""
    count = arguments.references
    chaos.undisturbed(4 * count)
    end = time.monotonic() + 60 * arguments.minutes
    freeze = freeze_driver(120)
    steps: list[tuple[str, Callable[[], Round]]] = [
        ("freeze the driver", lambda: chaos.fault("freeze the driver", freeze, references=count))
    ]
    for number in range(max(arguments.hits, arguments.kills)):
        if number < arguments.hits:
            steps.append(("all failpoints", lambda: chaos.storm(*STORM, references=count)))
        for kill in KILLS:
            if number < (arguments.hits if kill in OF_CHECKPOINTS else arguments.kills):
                steps.append((kill, _kill(chaos, kill, count)))
    for number, (name, step) in enumerate(steps):
        if time.monotonic() > end:
            console.print(f"time is over after {number} of {len(steps)} rounds")
            break
        done = step()
        console.print(f"{number + 1}/{len(steps)} {name}: {done.verdict}, {done.recovery_s:.0f} s")
        if not done.verdict.clean:
            break
    final = chaos.final()
    clips = f"{len(chaos.order.messages)} messages, {chaos.order.clips} clips"
    console.print(f"all of it, read by Flink: {final} ({clips}, seed {chaos.seed})")
    return final.clean and all(r.verdict.clean for r in chaos.rounds)


def _kill(chaos: Chaos, name: str, count: int) -> Callable[[], Round]:
    return lambda: chaos.fault(name, KILLS[name], references=count)


if __name__ == "__main__":
    sys.exit(main())
