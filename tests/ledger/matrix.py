"""The long matrix of faults, on a stack of its own: ``make chaos``.

The driver is frozen, and each kill is met alone, which tells how long the stack takes to get over
it. Then come storms, in which all failpoints are armed at once, and series, in which all kills
come one after another, in turns, until each was met as often as is asked for.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deploy.local.stack import Stack
from processors.failpoints import VARIABLE
from tests.conftest import failpoint_folder, stack_settings
from tests.ledger.chaos import STORMS, Chaos, Round
from tests.ledger.faults import IN_SERIES, KILLS, OF_CHECKPOINTS, STORM, freeze_driver

SERIES = "all kills, one after another"
CHECKPOINTS = "kills at checkpoints, one after another"
REFERENCES_BEFORE_A_KILL = 4
"""In a series."""


def summary(rounds: Iterable[Round]) -> Table:
    """The matrix: fault, rounds, the most that one lost, doubled and got wrong, recovery."""
    table = Table(show_edge=False, header_style="bold")
    table.add_column("fault")
    for name in ("rounds", "lost", "doubled", "wrong", "recovery s, median", "longest"):
        table.add_column(name, justify="right")
    by_fault: dict[str, list[Round]] = {}
    for one in rounds:
        by_fault.setdefault(one.fault, []).append(one)
    for fault, some in by_fault.items():
        times = sorted(r.recovery_s for r in some)
        verdicts = [r.verdict for r in some]
        table.add_row(
            fault,
            str(len(some)),
            str(max(len(v.lost) for v in verdicts)),
            str(max(len(v.doubled) for v in verdicts)),
            str(max(len(v.wrong) for v in verdicts)),
            f"{times[len(times) // 2]:.1f}",
            f"{times[-1]:.1f}",
        )
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()) % 100_000)
    parser.add_argument("--hits", type=int, default=20, help="times every failpoint is met")
    parser.add_argument("--kills", type=int, default=10, help="times every kill is met")
    parser.add_argument("--references", type=int, default=12, help="references a round")
    parser.add_argument("--skip", type=int, default=0, help="rounds that an earlier run has done")
    parser.add_argument("--minutes", type=float, default=240, help="begin no round after them")
    parser.add_argument("--json", type=Path, help="write the rounds there")
    arguments = parser.parse_args()
    console = Console(stderr=True)
    console.print(f"seed {arguments.seed}")
    folder = Path(tempfile.mkdtemp(prefix="cliplake-chaos-"))
    os.environ[VARIABLE] = str(failpoint_folder(folder))
    told: list[str] = []
    ok = False
    try:
        with Stack(stack_settings(folder), log=told.append) as stack:
            chaos = Chaos(stack, told, folder, arguments.seed)
            try:
                ok = _run(chaos, arguments, console)
            finally:
                Console().print(summary(chaos.rounds))
                if arguments.json:
                    rounds = [asdict(r) for r in chaos.rounds]
                    arguments.json.write_text(json.dumps(rounds, indent=1))
    finally:
        if ok:
            shutil.rmtree(folder)
        else:
            console.print("\n".join(told[-20:]), markup=False)
            console.print(f"the lake and all logs are in {folder}")
    return 0 if ok else 1


def _run(chaos: Chaos, arguments: argparse.Namespace, console: Console) -> bool:
    """Whether every round was clean, and the whole order too when Flink reads it."""
    count = arguments.references
    chaos.undisturbed(4 * count)
    end = time.monotonic() + 60 * arguments.minutes
    freeze = freeze_driver(120)
    steps: list[tuple[str, Callable[[], Round]]] = [
        ("freeze the driver", lambda: chaos.fault("freeze the driver", freeze, references=count)),
        *((kill, _alone(chaos, kill, count)) for kill in KILLS),
    ]
    for number in range(1, max(arguments.hits, arguments.kills) + 1):
        if number <= arguments.hits:
            steps.append((STORMS, lambda: chaos.storm(*STORM, references=count)))
        if number < arguments.kills:
            steps.append((SERIES, _series(chaos, SERIES, IN_SERIES)))
            steps.append(("terminate the driver", _alone(chaos, "terminate the driver", count)))
        elif number < arguments.hits:
            steps.append((CHECKPOINTS, _series(chaos, CHECKPOINTS, OF_CHECKPOINTS)))
    for number, (name, step) in list(enumerate(steps))[arguments.skip :]:
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


def _alone(chaos: Chaos, name: str, count: int) -> Callable[[], Round]:
    return lambda: chaos.fault(name, KILLS[name], references=count)


def _series(chaos: Chaos, name: str, kills: Sequence[str]) -> Callable[[], Round]:
    faults = {kill: KILLS[kill] for kill in kills}
    return lambda: chaos.series(name, faults, references=REFERENCES_BEFORE_A_KILL)


if __name__ == "__main__":
    sys.exit(main())
