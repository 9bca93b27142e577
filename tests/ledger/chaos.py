"""Rounds of faults over a running stack: an order is sent, something dies, all must be there."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from kafka import KafkaProducer

from cliplake.accounts import read_accounts
from deploy.local.marked import find
from deploy.local.stack import Stack
from deploy.local.state import StateFolder
from ingest.client import jobs
from ingest.kafka_client import client_options
from processors.failpoints import VARIABLE, arm, hits
from schemas.problems import ConfigError, Unreachable
from schemas.settings import Settings
from tests.ledger.audit import Reference, Verdict, audit, reference_of
from tests.ledger.order import Order, new_order, write_files
from tests.ledger.read import by_flink, by_pypaimon

STORMS = "all failpoints"
"""What a round of them is called."""
SETTLED_S = 300.0
"""A stack that has not got over a fault after so long has failed."""
_NOTICED_S = 1.0

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
    told: list[str]
    """What the stack says of its parts."""
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
        # The stack takes a moment to notice that something just died.
        noticed = time.monotonic() + _NOTICED_S
        self.watch(lambda: time.monotonic() > noticed and self.stack.is_serving())
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
                at = future.get(timeout=10)
                part.places.add((at.topic, at.partition, at.offset))
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

    def storm(self, *points: str, references: int) -> Round:
        """Send parts while all points are armed: who comes back from one meets the next."""
        left = {point: hits(self.failpoints, point) for point in points}
        for point in left:
            arm(self.failpoints, point)

        def all_met_or_settled() -> bool:
            for point in [p for p, count in left.items() if hits(self.failpoints, p) > count]:
                del left[point]
            return not left or self.is_settled()

        # A point that the last of a part did not come by is met by a further one.
        sent = 0
        while left:
            self.send(references)
            sent += references
            self.watch(all_met_or_settled, 3 * SETTLED_S)
        return self._settled(STORMS, sent)

    def fault(self, name: str, inject: Fault, *, references: int) -> Round:
        """Send a part, have something happen while it is on its way, and wait for all rows."""
        self._inject(inject, references)
        return self._settled(name, references)

    def series(self, name: str, faults: Mapping[str, Fault], *, references: int) -> Round:
        """All faults in an order of chance, each with a part on its way.

        The next one comes when the parts are up again, and does not wait for rows: the stack may
        still be getting over the last one.
        """
        for fault in self.rng.sample(sorted(faults), len(faults)):
            self._inject(faults[fault], references)
        return self._settled(name, len(faults) * references)

    def _inject(self, inject: Fault, references: int) -> None:
        self.send(references)
        # In the middle of it: some time within what an undisturbed part takes.
        wait_until = time.monotonic() + self.rng.uniform(0.5, 5.0)
        self.watch(lambda: time.monotonic() > wait_until)
        inject(self)

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
        return audit(self.order, by_flink(self.settings), self.reference)

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
