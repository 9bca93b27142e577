"""A lake on a file system that fails: nothing is lost, and nothing is there twice."""

from __future__ import annotations

import pickle
import shutil
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from tenacity import wait_none

from processors.errors import MediaError
from processors.pool import commits
from processors.pool.commits import Committer
from processors.pool.errors import CommitFailed
from processors.pool.lake import Lake
from processors.pool.position import Position, load_stored
from processors.results import failed, passed
from schemas.reasons import MediaReason
from schemas.tables import CLIP_FRAMES
from tests import pool_lake
from tests.faulty_files import Faults, faulty
from tests.small_disk import fill, small_disk

SEEDS = 30
COMMITS = 3
CLIPS = 2
"""A commit: one that is kept, with a frame, and one that failed."""


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "WAIT", wait_none())


@pytest.fixture(scope="module")
def empty_lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("empty")
    pool_lake.new_lake(pool_lake.settings(folder))
    return folder


def copy_of(empty_lake: Path, folder: Path) -> Path:
    """A lake of a test's own, sooner than making one."""
    return Path(shutil.copytree(empty_lake, folder))


def frames(lake: Lake, number: int, sequence: int) -> bytes:
    """What an actor hands over: a file that is written, and how to commit it."""
    row = {
        "clip_id": pool_lake.clip_id(number),
        "video_frames": [b"jpeg"],
        "frame_times_s": [0.0],
        "enrich_seq": sequence,
    }
    writer = lake.table(CLIP_FRAMES.name).new_batch_write_builder().new_write()
    writer.write_arrow(pa.Table.from_pylist([row], schema=CLIP_FRAMES.arrow_schema()))
    try:
        return pickle.dumps(writer.prepare_commit())
    finally:
        writer.close()


RECIPE = pool_lake.recipe()


def take(lake: Lake, committer: Committer, number: int, epoch: int) -> Position:
    """Give the committer the ``number``-th two clips; the position behind them."""
    first = number * CLIPS
    sequence = (epoch << 40) + first
    kept = passed(pool_lake.clip(first), RECIPE, {"frames_seq": sequence})
    error = MediaError(MediaReason.NOT_FOUND, "it is not there", stage="fetch")
    committer.add(kept, sequence)
    committer.add_frames(frames(lake, first, sequence))
    committer.add(failed(pool_lake.clip(first + 1), RECIPE, error), sequence + 1)
    return Position("table", number + 1, offset=0, epoch=epoch)


def work(folder: Path, faults: Faults) -> int:
    """Commit everything, with a new start after each `CommitFailed`; how many there were."""
    for starts in range(50):
        lake = Lake(pool_lake.settings(folder))
        stored = load_stored(lake)
        committer = Committer(lake, starts + 1)
        try:
            for number in range(stored.position.snapshot if stored.position else 0, COMMITS):
                position = take(lake, committer, number, starts + 1)
                with faulty(faults):
                    committer.commit(position)
        except CommitFailed:
            continue
        return starts
    raise AssertionError("it never came to an end")


def check(folder: Path) -> None:
    """Each clip has its row, its frames and its failure, and each was added once."""
    lake = Lake(pool_lake.settings(folder))
    rows = lake.read("enriched_clips").to_pylist()
    assert Counter(row["clip_id"] for row in rows) == Counter(
        pool_lake.clip_id(n) for n in range(COMMITS * CLIPS)
    )
    assert pool_lake.rows_ever_appended(lake, "enriched_clips") == COMMITS * CLIPS
    found = Counter((f["clip_id"], f["enrich_seq"]) for f in lake.read("clip_frames").to_pylist())
    letters = {f["clip_id"]: f["enrich_seq"] for f in lake.read("failed_clips").to_pylist()}
    for row in rows:
        if row["status"] == "kept":
            assert found[row["clip_id"], row["frames_seq"]] == 1
        else:
            assert letters[row["clip_id"]] == row["enrich_seq"]
    assert max(found.values()) == 1
    position = load_stored(lake).position
    assert position is not None
    assert position.snapshot == COMMITS


def test_one_in_a_hundred_reads_writes_and_renames_fails(empty_lake: Path, tmp_path: Path) -> None:
    met: Counter[str] = Counter()
    for seed in range(SEEDS):
        folder = copy_of(empty_lake, tmp_path / str(seed))
        faults = Faults(seed)
        faults.rate = 0.01
        work(folder, faults)
        check(folder)
        met += faults.met
    assert min(met[what] for what in ("read", "write", "rename", "renamed")) > 0


@pytest.mark.parametrize("times", [1, 2])
def test_a_rename_that_happened_and_reported_failure_is_not_made_again(
    times: int, empty_lake: Path, tmp_path: Path
) -> None:
    folder, faults = copy_of(empty_lake, tmp_path / "lake"), Faults()
    # Of each table's snapshots: the rename of the first, and of the second, of three tables.
    faults.renames_that_seem_to_fail = times * 3
    assert work(folder, faults) == 0
    assert faults.met["renamed"] == times * 3
    check(folder)


@pytest.mark.parametrize("where", ["data", "manifest", "snapshot"])
def test_a_disk_that_is_full_for_a_while_costs_nothing(
    where: str, empty_lake: Path, tmp_path: Path
) -> None:
    folder, faults = copy_of(empty_lake, tmp_path / "lake"), Faults()
    faults.full, faults.full_for = where, 3
    assert work(folder, faults) == 0
    assert faults.met["full"] == 3
    check(folder)


def test_a_disk_that_stays_full_ends_the_driver_and_a_start_with_room_goes_on(
    empty_lake: Path, tmp_path: Path
) -> None:
    folder, faults = tmp_path / "lake", Faults()
    with small_disk(folder, 4 * 2**20) as mounted:
        shutil.copytree(empty_lake, folder, dirs_exist_ok=True)
        lake = Lake(pool_lake.settings(folder))
        committer = Committer(lake, 1)
        committer.commit(take(lake, committer, 0, 1))
        position = take(lake, committer, 1, 1)
        if mounted:
            fill(folder / "filler")
        else:
            faults.full = "data"
        with faulty(faults), pytest.raises(CommitFailed, match="No space left on device"):
            committer.commit(position)
        (folder / "filler").unlink(missing_ok=True)
        assert work(folder, Faults()) == 0
        check(folder)
