"""The ledger itself, and the short matrix of faults: whatever dies, nothing is lost or doubled."""

from __future__ import annotations

import copy
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from deploy.local.stack import Stack
from tests.ledger.audit import COLUMNS, audit, place
from tests.ledger.chaos import Chaos
from tests.ledger.faults import KILLS, STORM, freeze_driver
from tests.ledger.order import BROKEN_FILES, VIDEOS, Order, new_order
from tests.ledger.read import by_flink, by_pypaimon, letters_on_topic

REFERENCES = 8
"""A round; with its repeats and its poison some ten messages."""


def test_an_order_is_the_same_for_the_same_seed_and_holds_all_kinds(tmp_path: Path) -> None:
    order, again = new_order(3, 300, tmp_path), new_order(3, 300, tmp_path)
    assert order == again
    assert order.messages != new_order(4, 300, tmp_path).messages
    assert set(order.contents.values()) == set(VIDEOS)
    assert set(order.broken.values()) == {reason for _, reason in BROKEN_FILES.values()}
    assert len(order.contents) + len(order.broken) == 300
    rejected = sum(order.rejected.values())
    assert len(order.messages) == 300 + order.repeats + rejected
    assert order.repeats > 10 < rejected
    for seed in range(200):
        assert set(new_order(seed, 20, tmp_path).contents.values()) == set(VIDEOS)


@pytest.mark.parametrize("column", ["kafka_topic", "kafka_partition", "kafka_offset"])
def test_a_row_with_the_coordinates_of_another_message_is_none_of_its_own(column: str) -> None:
    order = Order(0, messages=[b"{"], rejected={"not_json": 1}, places={("uploads", 0, 7)})
    row = {"kafka_topic": "uploads", "kafka_partition": 0, "kafka_offset": 7, "reason": "not_json"}
    tables: Any = {name: [] for name in COLUMNS} | {"rejected_messages": [row]}
    assert audit(order, tables).clean
    row[column] = "elsewhere" if column == "kafka_topic" else 1
    assert audit(order, tables).lost == ["rejected_messages not_json: 0 of 1"]


@pytest.fixture(scope="module")
def chaos(stack: Stack, told: list[str]) -> Chaos:
    """Sent to and undisturbed so far; what comes later is compared with it."""
    chaos = Chaos(stack, told, stack.settings.state_dir.parent, random.randrange(100_000))
    print(f"seed {chaos.seed}")
    first = chaos.undisturbed(20)
    assert first.verdict.clean, str(first.verdict)
    assert {name for name, _ in chaos.reference} == set(VIDEOS)
    return chaos


@pytest.mark.e2e
def test_killed_at_every_failpoint(chaos: Chaos) -> None:
    done = chaos.storm(*STORM, references=REFERENCES)
    assert done.verdict.clean, str(done.verdict)


SHORT = (
    "kill the driver",
    "kill Ray",
    "kill the broker",
    "kill the JobManager",
    "kill a TaskManager",
)
"""The rest, and more rounds of all, are `make chaos`."""


@pytest.mark.e2e
@pytest.mark.parametrize(
    "kill", [k if k in SHORT else pytest.param(k, marks=pytest.mark.long) for k in KILLS]
)
def test_killed_in_the_middle(chaos: Chaos, kill: str) -> None:
    done = chaos.fault(kill, KILLS[kill], references=REFERENCES)
    assert done.verdict.clean, str(done.verdict)


@pytest.mark.e2e
def test_a_frozen_driver_goes_on_and_a_second_one_is_refused(chaos: Chaos) -> None:
    done = chaos.fault("freeze", freeze_driver(5), references=REFERENCES)
    assert done.verdict.clean, str(done.verdict)


@pytest.mark.e2e
def test_flink_reads_the_same_and_the_ledger_sees_what_is_missing_or_doubled(
    chaos: Chaos,
) -> None:
    ours = by_pypaimon(chaos.settings)
    flinks = by_flink(chaos.settings)
    for tables in (ours, flinks):
        verdict = audit(chaos.order, tables, chaos.reference)
        assert verdict.clean, str(verdict)
    for table in ("videos", "clips", "enriched_clips", "failed_videos", "clip_frames"):
        key = lambda row: sorted((k, str(v)) for k, v in row.items())  # noqa: E731
        assert sorted(map(key, flinks[table])) == sorted(map(key, ours[table]))
    for table in ("videos", "repeats", "rejected_messages", "clips", "enriched_clips"):
        assert audit(chaos.order, without_one(ours, table, chaos)).lost, table
    for table in ("videos", "repeats", "rejected_messages", "failed_videos", "enriched_clips"):
        assert audit(chaos.order, with_one_twice(ours, table, chaos)).doubled, table
    changed: Any = copy.deepcopy(dict(ours))
    row = next(r for r in changed["enriched_clips"] if is_ours(r, chaos) and r["motion_score"])
    row["motion_score"] += 1e-6
    assert audit(chaos.order, changed, chaos.reference).wrong


@pytest.mark.e2e
def test_every_dead_letter_is_on_its_topic(chaos: Chaos) -> None:
    tables = by_pypaimon(chaos.settings)
    missing = {
        place(row)
        for name in ("rejected_messages", "failed_videos")
        for row in tables[name]
        if is_ours(row, chaos)
    }
    assert missing

    def none_is_missing() -> bool:
        missing.difference_update(letters_on_topic(chaos.settings))
        return not missing

    with suppress(TimeoutError):
        chaos.watch(none_is_missing, 60)
    assert not missing


def is_ours(row: Any, chaos: Chaos) -> bool:
    return place(row) in chaos.order.places


def without_one(tables: Any, name: str, chaos: Chaos) -> Any:
    ours = next(row for row in tables[name] if is_ours(row, chaos))
    return {**tables, name: [row for row in tables[name] if row is not ours]}


def with_one_twice(tables: Any, name: str, chaos: Chaos) -> Any:
    ours = next(row for row in tables[name] if is_ours(row, chaos))
    return {**tables, name: [*tables[name], ours]}
