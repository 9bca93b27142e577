"""Consumer files: what is damaged is made whole, and holds what might still be needed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from processors.pool.consumer import heal_consumers, hold_snapshots
from processors.pool.lake import Lake
from tests import pool_lake


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = pool_lake.new_lake(pool_lake.settings(tmp_path))
    for n in range(4):
        pool_lake.append_clips(lake, [pool_lake.clip(n)])
    pool_lake.expire(lake, "clips", [1])
    return lake


def consumer(tmp_path: Path, name: str) -> Path:
    return tmp_path / "lake/cliplake.db/clips/consumer" / f"consumer-{name}"


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\x00\x00\x00",
        b"\xff\xfe",
        b'{"nextSnap',
        b"[]",
        b"3",
        b'{"nextSnapshot": null}',
        b'{"nextSnapshot": -1}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_file_holds_all_snapshots_that_there_are(
    lake: Lake, tmp_path: Path, damage: bytes
) -> None:
    hold_snapshots(lake, 4)
    consumer(tmp_path, "of-a-job").write_bytes(damage)
    (healed,) = heal_consumers(lake, ["videos", "clips"])
    assert healed.endswith("clips/consumer/consumer-of-a-job")
    assert json.loads(consumer(tmp_path, "of-a-job").read_text()) == {"nextSnapshot": 2}
    assert json.loads(consumer(tmp_path, "cliplake-pool").read_text()) == {"nextSnapshot": 4}
    assert heal_consumers(lake, ["videos", "clips"]) == []


def test_what_is_whole_is_left_alone(lake: Lake, tmp_path: Path) -> None:
    hold_snapshots(lake, 3)
    # As Paimon's Java writes it.
    consumer(tmp_path, "of-a-job").write_text('{\n  "nextSnapshot" : 3\n}')
    before = consumer(tmp_path, "of-a-job").stat()
    assert heal_consumers(lake, ["clips"]) == []
    assert consumer(tmp_path, "of-a-job").stat().st_mtime_ns == before.st_mtime_ns


def test_the_pools_own_file_is_replaced_whatever_it_holds(lake: Lake, tmp_path: Path) -> None:
    hold_snapshots(lake, 2)
    consumer(tmp_path, "cliplake-pool").write_bytes(b"")
    hold_snapshots(lake, 3)
    assert json.loads(consumer(tmp_path, "cliplake-pool").read_text()) == {"nextSnapshot": 3}
