"""Rounds of faults over a running stack: an order is sent, something dies, and all must be there.

``python -m tests.ledger.chaos`` is `make chaos`: the long matrix, on a stack of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil
from kafka import KafkaProducer
from rich.console import Console
from rich.table import Table

from cliplake.accounts import read_accounts
from deploy.local.flink_cluster import ask_rest
from deploy.local.marked import find
from deploy.local.pool_driver import pool_driver
from deploy.local.stack import Stack
from deploy.local.state import SETTINGS, StateFolder
from ingest.client import jobs
from ingest.kafka_client import client_options
from processors.failpoints import VARIABLE, arm, disarm, hits
from processors.pool.errors import AlreadyRunning
from schemas.problems import ConfigError, Unreachable
from schemas.settings import Settings
from tests.conftest import failpoint_folder, stack_settings
from tests.ledger.audit import Reference, Verdict, audit, reference_of
from tests.ledger.order import Order, new_order, write_files
from tests.ledger.read import by_flink, by_pypaimon

SETTLED_S = 300.0
"""A stack that has not got over a fault after so long has failed."""

Fault = Callable[["Chaos"], None]


@dataclass
class Round:
    """One fault and what came of it."""

    fault: str
    references: int
    recovery_s: float
    """From the fault until every row of the round was there and the accounts were balanced."""
    verdict: Verdict


@dataclass
class Chaos:
    """A stack, what was sent to it so far, and the rows of the first, undisturbed part."""

    stack: Stack
    folder: Path
    seed: int
    order: Order = field(init=False)
    reference: Reference = field(default_factory=dict)
    rounds: list[Round] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.order = Order(self.seed)
        self.failpoints = Path(os.environ[VARIABLE])
        self.media = self.folder / "media"
        self.rng = random.Random(self.seed)
        self._orders = 0
        write_files(self.media)

    @property
    def settings(self) -> Settings:
        return self.stack.settings

    def send(self, references: int) -> None:
        """Send a part of the order, and wait until the broker has it."""
        self.watch(self.stack.is_serving)
        self._orders += 1
        part = new_order(1000 * self.seed + self._orders, references, self.media)
        options = client_options(self.settings.kafka, "producer")
        producer = KafkaProducer(**options, acks="all", enable_idempotence=True, retries=10)
        try:
            # kafka-python refuses a record that has neither key nor value.
            key = b"ledger"
            sent = [
                producer.send(self.settings.kafka.topic, value=message, key=key)
                for message in part.messages
            ]
            producer.flush(timeout=60)
            for future in sent:
                place = future.get(timeout=10)
                part.offsets.add((place.partition, place.offset))
        finally:
            producer.close(timeout=10)
        self.order.add(part)

    def undisturbed(self, references: int) -> Round:
        """The first part, without a fault: what the same contents must give ever after."""
        self.send(references)
        started = time.monotonic()
        self.watch(self.is_settled)
        recovery_s = time.monotonic() - started
        tables = by_pypaimon(self.settings)
        ours = [r for r in tables["enriched_clips"] if r["video_id"] in self.order.contents]
        self.reference = reference_of(self.order, ours)
        return self._ended("none", references, recovery_s)

    def failpoint(self, *points: str, references: int, nth: int = 1) -> Round:
        """Send a part while points are armed; each kills the first process that passes it."""
        before = {point: hits(self.failpoints, point) for point in points}
        for point in points:
            arm(self.failpoints, point, nth=nth)
        self.send(references)

        def all_met() -> bool:
            return all(hits(self.failpoints, p) > count for p, count in before.items())

        try:
            self.watch(all_met)
        finally:
            for point in points:
                disarm(self.failpoints, point)
        return self._settled(" + ".join(points), references)

    def fault(self, name: str, inject: Fault, *, references: int) -> Round:
        """Send a part, have something happen while it is on its way, and wait for all rows."""
        self.send(references)
        # In the middle of it: some time within what an undisturbed part takes.
        wait_until = time.monotonic() + self.rng.uniform(0.5, 5.0)
        self.watch(lambda: time.monotonic() > wait_until)
        inject(self)
        return self._settled(name, references)

    def watch(self, condition: Callable[[], bool], timeout_s: float = SETTLED_S) -> None:
        """Have the stack restart what dies until the condition holds; TimeoutError otherwise."""
        deadline = time.monotonic() + timeout_s

        def holds() -> bool:
            if time.monotonic() > deadline:
                raise TimeoutError(f"not so within {timeout_s:.0f} s (seed {self.seed})")
            return condition()

        self.stack.watch(holds)

    def is_settled(self) -> bool:
        """Whether everything that was sent is accounted for, and every part serves again."""
        if not (self.stack.is_serving() and both_jobs_run(self.settings)):
            return False
        try:
            accounts = read_accounts(self.settings)
        except Unreachable:  # the broker died, and the stack has not noticed yet
            return False
        return accounts.balanced or bool(accounts.problems)

    def _settled(self, fault: str, references: int) -> Round:
        started = time.monotonic()
        self.watch(self.is_settled)
        return self._ended(fault, references, time.monotonic() - started)

    def _ended(self, fault: str, references: int, recovery_s: float) -> Round:
        verdict = audit(self.order, by_pypaimon(self.settings), self.reference)
        self.rounds.append(Round(fault, references, round(recovery_s, 1), verdict))
        return self.rounds[-1]

    def final(self) -> Verdict:
        """The whole order by Flink SQL in another process."""
        return audit(self.order, by_flink(self.settings, self.folder), self.reference)

    # Faults

    def pid(self, part: str) -> int:
        """The part's main process, once it is there: an earlier fault may have just ended it."""
        self.watch(lambda: self.stack.is_serving() and part in self.stack.pids())
        return self.stack.pids()[part]

    def processes(self, part: str, *words: str) -> list[psutil.Process]:
        """Living processes of a part whose command line has one of the words, or all of them."""
        mark = StateFolder(self.settings.state_dir).mark().of_part(part)
        found = []
        for process in find(mark):
            try:
                line = " ".join(process.cmdline())
            except psutil.Error:
                continue
            if not words or any(word in line for word in words):
                found.append(process)
        return found


def both_jobs_run(settings: Settings) -> bool:
    try:
        return all(job.ready for job in jobs(settings))
    except ConfigError:  # the JobManager has not set the job up yet
        return False


def kill_part(part: str) -> Fault:
    """SIGKILL to the part's main process."""
    return lambda chaos: os.kill(chaos.pid(part), signal.SIGKILL)


def kill_one_of(part: str, *words: str) -> Fault:
    """SIGKILL to one of a part's further processes, once there is one."""

    def inject(chaos: Chaos) -> None:
        found: list[psutil.Process] = []

        def there_is_one() -> bool:
            found[:] = chaos.processes(part, *words)
            return bool(found)

        chaos.watch(there_is_one, 60)
        chaos.rng.choice(found).kill()

    return inject


def kill_at_checkpoint(when: str) -> Fault:
    """SIGKILL to a TaskManager while a checkpoint of the split job is under way, or just done."""

    def inject(chaos: Chaos) -> None:
        job = next(j.job_id for j in jobs(chaos.settings) if j.name.endswith("split"))
        seen = _checkpoints(chaos.settings, job)[1]
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            under_way, completed = _checkpoints(chaos.settings, job)
            if (when == "before" and under_way) or (when == "after" and completed > seen):
                break
            time.sleep(0.01)
        os.kill(chaos.pid("taskmanager"), signal.SIGKILL)

    return inject


def _checkpoints(settings: Settings, job: str) -> tuple[int, int]:
    counts = (ask_rest(settings, f"/jobs/{job}/checkpoints") or {}).get("counts", {})
    return counts.get("in_progress", 0), counts.get("completed", 0)


def freeze_driver(seconds: float) -> Fault:
    """SIGSTOP to the pool's driver for a while; a second one that starts meanwhile is refused."""

    def inject(chaos: Chaos) -> None:
        pid = chaos.pid("pool")
        os.kill(pid, signal.SIGSTOP)
        try:
            until = time.monotonic() + seconds
            code = _second_driver(chaos.settings)
            if code != AlreadyRunning.exit_code:
                raise AssertionError(f"a second driver ended with {code}")
            chaos.watch(lambda: time.monotonic() > until, seconds + 60)
        finally:
            os.kill(pid, signal.SIGCONT)

    return inject


def _second_driver(settings: Settings) -> int:
    part = pool_driver(settings, settings.state_dir / SETTINGS)
    command = subprocess.run(
        part.command, env={**os.environ, **part.environment}, cwd=part.cwd, timeout=90, check=False
    )
    return command.returncode


def terminate_driver(chaos: Chaos) -> None:
    """SIGTERM to the pool's driver under load: it drains and is gone within 30 s."""
    driver = psutil.Process(chaos.pid("pool"))
    driver.terminate()
    chaos.watch(lambda: not driver.is_running() or driver.status() == psutil.STATUS_ZOMBIE, 30)


# Points that different processes pass are met in one round.
FAILPOINT_ROUNDS: tuple[tuple[str, ...], ...] = (
    ("fetch.done", "plan.read"),
    ("probe.done", "batch.submitted"),
    ("decode.done", "rows.before_prepare"),
    ("split.segment_scored", "rows.after_prepare"),
    ("frames.before_prepare", "commit.begun"),
    ("split.merged", "commit.after_frames"),
    ("frames.after_prepare", "commit.after_failures"),
    ("commit.after_enriched",),
    ("consumer.half_written",),
)
KILLS: dict[str, Fault] = {
    "kill the driver": kill_part("pool"),
    "kill Ray": kill_part("ray"),
    "kill a Ray actor": kill_one_of("ray", "ray::EnrichActor"),
    "kill a decoding child of an actor": kill_one_of("ray", "processors.media"),
    "kill the broker": kill_part("broker"),
    "kill the JobManager": kill_part("jobmanager"),
    "kill a TaskManager": kill_part("taskmanager"),
    "kill a Python worker of Flink": kill_one_of("taskmanager", "pyflink"),
    "kill before a checkpoint": kill_at_checkpoint("before"),
    "kill after a checkpoint": kill_at_checkpoint("after"),
    "terminate the driver": terminate_driver,
}


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
    parser.add_argument("--hits", type=int, default=20, help="rounds of every failpoint")
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
        with Stack(stack_settings(folder)) as stack:
            chaos = Chaos(stack, folder, arguments.seed)
            ok = _run(chaos, arguments, console)
            if arguments.json:
                arguments.json.write_text(json.dumps([asdict(r) for r in chaos.rounds], indent=1))
    Console().print(summary(chaos.rounds))
    return 0 if ok else 1


def _run(chaos: Chaos, arguments: argparse.Namespace, console: Console) -> bool:
    """Whether every round was clean, and the whole order too when Flink reads it."""
    count = arguments.references
    chaos.undisturbed(4 * count)
    end = time.monotonic() + 60 * arguments.minutes
    steps: list[tuple[str, Callable[[], Round]]] = []
    for number in range(max(arguments.hits, arguments.kills)):
        if number < arguments.hits:
            for points in FAILPOINT_ROUNDS:
                nth = chaos.rng.randint(1, 2)
                steps.append((" + ".join(points), _failpoint(chaos, points, count, nth)))
        if number < arguments.kills:
            steps += [(kill, _kill(chaos, kill, count)) for kill in KILLS]
    freeze = freeze_driver(120)
    steps.append(("freeze", lambda: chaos.fault("freeze the driver", freeze, references=count)))
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


def _failpoint(chaos: Chaos, points: Sequence[str], count: int, nth: int) -> Callable[[], Round]:
    return lambda: chaos.failpoint(*points, references=count, nth=nth)


def _kill(chaos: Chaos, name: str, count: int) -> Callable[[], Round]:
    return lambda: chaos.fault(name, KILLS[name], references=count)


if __name__ == "__main__":
    sys.exit(main())
