"""A change of gates over a real lake: rows decided anew, nothing scored, the position kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli import cliplake

from processors.errors import MediaError
from processors.failpoints import VARIABLE, arm
from processors.pool.commits import Committer
from processors.pool.done import load_done
from processors.pool.errors import AlreadyRunning
from processors.pool.lake import Lake
from processors.pool.lock import only_driver
from processors.pool.position import EPOCH_BITS, Position, load_stored
from processors.pool.regate import regate
from processors.pool.source import first_position
from processors.regating import Undecided
from processors.results import ClipResult, duration_rejected, failed, passed, rejected
from schemas.reasons import MediaReason
from schemas.settings import CHECKOUT, Settings, dump_settings
from tests import pool_lake

OLD, NEW = pool_lake.recipe(min_motion=0.25), pool_lake.recipe(min_motion=1.0)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return pool_lake.settings(tmp_path)


@pytest.fixture
def lake(settings: Settings) -> Lake:
    return pool_lake.new_lake(settings)


def scored(number: int, motion: float) -> ClipResult:
    clip = pool_lake.clip(number)
    scores = {"motion_score": motion, "frame_count": 1, "stage_seconds": {"motion": "0.1"}}
    if motion < 0.25:
        return rejected(clip, OLD, "low_motion", scores)
    return passed(clip, OLD, scores)


def write(lake: Lake, *results: ClipResult, epoch: int = 1) -> Position:
    """Commit rows as a driver of that epoch does; the position that it stored."""
    position = Position(lake.identity("clips"), snapshot=4, offset=2, epoch=epoch)
    committer = Committer(lake, epoch)
    for count, result in enumerate(results, start=1):
        committer.add(result, (epoch << EPOCH_BITS) + count)
    committer.commit(position)
    return position


def rows(lake: Lake) -> dict[str, dict[str, Any]]:
    return {row["clip_id"]: row for row in lake.read("enriched_clips").to_pylist()}


def verdicts(lake: Lake) -> list[str | None]:
    found = rows(lake)
    return [found[pool_lake.clip_id(n)]["reject_reason"] for n in range(len(found))]


def test_stored_scores_are_judged_by_the_new_gates_and_all_else_stays(
    settings: Settings, lake: Lake
) -> None:
    write(lake, scored(0, 0.1), scored(1, 0.5), scored(2, 2.0))
    before = rows(lake)
    found = regate(settings, NEW)
    assert found.changed == {("kept", "low_motion"): 1}
    assert (found.unchanged, dict(found.undecided)) == (2, {})
    assert verdicts(lake) == ["low_motion", "low_motion", None]
    for clip_id, row in rows(lake).items():
        old = before[clip_id]
        assert row["gates_fingerprint"] == NEW.gates_fingerprint
        assert row["enrich_seq"] > old["enrich_seq"]
        assert row["enriched_at"] > old["enriched_at"]
        named = {"gates_fingerprint", "enrich_seq", "enriched_at"}
        named |= {"status", "kept", "reject_reason"} if row["status"] != old["status"] else set()
        assert {name for name in row if row[name] != old[name]} == named


def test_the_way_back_gives_the_same_verdicts_as_before(settings: Settings, lake: Lake) -> None:
    write(lake, scored(0, 0.1), scored(1, 0.5))
    regate(settings, NEW)
    found = regate(settings, OLD)
    assert found.changed == {("low_motion", "kept"): 1}
    assert verdicts(lake) == ["low_motion", None]
    assert regate(settings, OLD).decided == 0


def test_the_drivers_position_and_epochs_go_on_as_if_it_had_written(
    settings: Settings, lake: Lake
) -> None:
    position = write(lake, scored(0, 0.5))
    regate(settings, NEW)
    stored = load_stored(lake)
    assert stored.position == position.in_epoch(2)
    assert stored.epoch == 2
    # A driver with the new recipe has nothing to do for the clip, even if it came again.
    assert len(load_done(lake, NEW)) == 1


def test_it_begins_where_a_first_driver_would(settings: Settings, lake: Lake) -> None:
    committer = Committer(lake, 0)
    committer.add(scored(0, 0.5), 1)
    committer.commit(first_position(lake))
    regate(settings, NEW)
    assert load_stored(lake).position == first_position(lake).in_epoch(1)


def test_rows_without_the_scores_that_are_needed_are_left_as_they_are(
    settings: Settings, lake: Lake
) -> None:
    short = duration_rejected(pool_lake.clip(0, duration_s=1.0), OLD)
    error = MediaError(MediaReason.DECODE_ERROR, "it is broken", stage="decode")
    write(lake, short, failed(pool_lake.clip(1), OLD, error), scored(2, 0.5))
    before = rows(lake)
    looser = pool_lake.recipe_of("{min_duration: 0.5}", 1.0)
    found = regate(settings, looser)
    assert found.undecided == {Undecided.NEEDS_SCORING: 1, Undecided.FAILED: 1}
    after = rows(lake)
    for number in (0, 1):
        assert after[pool_lake.clip_id(number)] == before[pool_lake.clip_id(number)]
    assert after[pool_lake.clip_id(2)]["reject_reason"] == "low_motion"


def test_rows_of_other_scores_are_no_business_of_the_recipe(settings: Settings, lake: Lake) -> None:
    write(lake, scored(0, 0.5))
    result = scored(0, 0.5)
    result.enriched.update(scores_fingerprint="another", reject_reason=None)
    write(lake, result, epoch=2)
    # The newest version of the clip is of other scores; the older one does not come to light.
    found = regate(settings, NEW)
    assert (found.decided, found.other_scores) == (0, 1)
    assert rows(lake)[pool_lake.clip_id(0)]["scores_fingerprint"] == "another"


def test_a_dry_run_counts_the_same_and_writes_nothing(settings: Settings, lake: Lake) -> None:
    write(lake, scored(0, 0.1), scored(1, 0.5), scored(2, 2.0))
    latest = lake.latest_snapshot_id("enriched_clips")
    with only_driver(settings):
        dry = regate(settings, NEW, dry_run=True)
    assert lake.latest_snapshot_id("enriched_clips") == latest
    assert regate(settings, NEW).changed == dry.changed


def test_it_does_not_write_beside_a_driver(settings: Settings, lake: Lake) -> None:
    write(lake, scored(0, 0.5))
    with only_driver(settings), pytest.raises(AlreadyRunning):
        regate(settings, NEW)


def test_many_rows_are_committed_a_part_at_a_time(
    settings: Settings, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("processors.pool.regate.ROWS_A_COMMIT", 4)
    write(lake, *(scored(n, 0.5) for n in range(10)))
    seen: list[int] = []
    regate(settings, NEW, progress=lambda so_far: seen.append(so_far.decided))
    assert seen == [4, 8, 10]
    assert len(pool_lake.snapshots(lake, "enriched_clips")) == 1 + 3
    assert verdicts(lake) == ["low_motion"] * 10


@pytest.mark.parametrize("point", ["rows.after_prepare", "commit.after_enriched"])
@pytest.mark.parametrize("nth", [1, 2])
def test_killed_midway_and_run_again_it_leaves_the_rows_of_an_undisturbed_run(
    tmp_path: Path, point: str, nth: int
) -> None:
    lakes = []
    for name in ("killed", "undisturbed"):
        (tmp_path / name).mkdir()
        settings = pool_lake.settings(tmp_path / name)
        lake = pool_lake.new_lake(settings)
        write(lake, *(scored(n, 0.1 + 0.2 * n) for n in range(10)))
        lakes.append((settings, lake))
    (settings, killed), (others, undisturbed) = lakes

    (tmp_path / "settings.json").write_text(dump_settings(settings))
    (tmp_path / "test.yaml").write_text(pool_lake.recipe_text(pool_lake.DURATIONS, 1.0))
    command = [sys.executable, "-m", "tests.pool_regate_main"]
    files = [str(tmp_path / name) for name in ("settings.json", "test.yaml")]
    arm(tmp_path, point, nth=nth)
    ended = subprocess.run(
        [*command, *files, "4"],
        cwd=CHECKOUT,
        env={**os.environ, VARIABLE: str(tmp_path)},
        capture_output=True,
        timeout=120,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    done = sum(row["gates_fingerprint"] == NEW.gates_fingerprint for row in rows(killed).values())
    assert done == 4 * (nth if point == "commit.after_enriched" else nth - 1)

    assert regate(settings, NEW).decided == 10 - done
    regate(others, NEW)
    assert said(killed) == said(undisturbed)
    assert pool_lake.rows_ever_appended(killed, "enriched_clips") == 10 + 10
    assert killed.read("enriched_clips", ["clip_id"]).num_rows == 10


def said(lake: Lake) -> dict[str, dict[str, Any]]:
    """What rows say, but for when and in which order they were written."""
    written = {"enrich_seq", "enriched_at"}
    return {
        clip_id: {name: value for name, value in row.items() if name not in written}
        for clip_id, row in rows(lake).items()
    }


def test_the_command_says_what_turned_and_what_has_to_be_scored(
    settings: Settings, lake: Lake, tmp_path: Path
) -> None:
    short = duration_rejected(pool_lake.clip(0, duration_s=1.0), OLD)
    write(lake, short, scored(1, 0.5), scored(2, 0.1), scored(3, 2.0))
    (tmp_path / "settings.json").write_text(dump_settings(settings))
    (tmp_path / "new.yaml").write_text(pool_lake.recipe_text("{}", 0.7))
    arguments = ("--settings-json", "settings.json", "regate", "--recipe", "new.yaml")
    dry = cliplake(*arguments, "--dry-run", cwd=tmp_path)
    assert dry.returncode == 0, dry.stderr
    assert "3 clips would be decided anew" in dry.stdout
    assert "the settings' recipe, whose gates are others" in dry.stdout
    others = cliplake("--settings-json", "settings.json", "regate", cwd=tmp_path)
    assert "4 clips left as they are: they were scored by other stages" in others.stdout
    assert "whose gates are others" not in others.stdout
    done = cliplake(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "3 clips decided anew" in done.stdout
    assert "kept → rejected: 1 (low_motion 1)" in done.stdout
    assert "rejected → kept: 0" in done.stdout
    assert "unchanged: 2" in done.stdout
    assert "1 clip left as they are" in done.stdout
    assert "process --rescan" in done.stdout
    again = cliplake(*arguments, cwd=tmp_path)
    assert "0 clips decided anew" in again.stdout
    with only_driver(settings):
        beside = cliplake(*arguments, cwd=tmp_path)
    assert beside.returncode == 4
    assert "another driver writes to this lake already" in beside.stderr
