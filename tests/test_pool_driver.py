"""The pool's driver over a real lake and a real Ray: every clip once, whatever dies."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from deploy.local import ports
from processors.errors import StageStartError
from processors.failpoints import arm, hits
from processors.pool.commits import Committer
from processors.pool.driver import Driver
from processors.pool.errors import AlreadyRunning, OtherSplit, PoolUnavailable, SourceLost
from processors.pool.lake import Lake
from processors.pool.lock import only_driver
from processors.pool.position import load_stored
from processors.pool.source import first_position
from processors.pool.status_file import status_path
from processors.results import passed
from schemas.settings import Settings
from tests import pool_lake
from tests.conftest import wait_until
from tests.metrics_page import page
from tests.pool_process import Process

SCRIPTED = "tests.pool_chains:Scripted"


@pytest.fixture
def settings(tmp_path: Path, ray_address: str) -> Settings:
    return pool_lake.settings(tmp_path, ray_address=ray_address)


@pytest.fixture
def lake(settings: Settings) -> Lake:
    return pool_lake.new_lake(settings)


def run(settings: Settings, **options: Any) -> None:
    """Work until nothing is left."""
    driver = Driver(settings, pool_lake.recipe(), chain=SCRIPTED)
    driver.run(until_idle=True, **options)


def enriched(lake: Lake) -> dict[str, dict[str, Any]]:
    """Rows of enriched_clips by clip; fails if a clip has two."""
    rows = lake.read("enriched_clips").to_pylist()
    by_clip = {row["clip_id"]: row for row in rows}
    assert len(by_clip) == len(rows)
    return by_clip


def calls(settings: Settings) -> list[list[str]]:
    """Clips of each call that the chain got."""
    return [line.split() for line in (settings.state_dir / "calls").read_text().splitlines()]


def test_clips_of_many_snapshots_end_exactly_once(settings: Settings, lake: Lake) -> None:
    for start in range(0, 60, 20):
        pool_lake.append_clips(lake, [pool_lake.clip(n) for n in range(start, start + 20)])
    run(settings)
    rows = enriched(lake)
    assert set(rows) == {pool_lake.clip_id(n) for n in range(60)}
    assert pool_lake.rows_ever_appended(lake, "enriched_clips") == 60
    row = rows[pool_lake.clip_id(7)]
    assert (row["status"], row["kept"], row["attempts"]) == ("kept", True, 1)
    assert (row["kafka_topic"], row["kafka_partition"], row["kafka_offset"]) == (
        "video-uploads",
        1,
        7,
    )
    frames = lake.read("clip_frames").to_pylist()
    assert {(f["clip_id"], f["enrich_seq"]) for f in frames} == {
        (r["clip_id"], r["frames_seq"]) for r in rows.values()
    }
    assert all(r["frames_seq"] == r["enrich_seq"] for r in rows.values())
    status = json.loads(status_path(settings).read_text())
    assert (status["kept"], status["in_flight"], status["snapshot"]) == (60, 0, 4)


def test_clips_of_another_split_are_refused_unless_told(settings: Settings, lake: Lake) -> None:
    pool_lake.append_clips(lake, [pool_lake.clip(n) for n in range(3)])
    pool_lake.append_clips(lake, [pool_lake.clip(n, split_fingerprint="old") for n in range(3, 6)])
    with pytest.raises(OtherSplit, match=r"have split old.*--any-split"):
        run(settings)
    # What was cut as the recipe says may be finished by then; nothing else is.
    assert set(enriched(lake)) <= {pool_lake.clip_id(n) for n in range(3)}
    run(settings, any_split=True)
    assert set(enriched(lake)) == {pool_lake.clip_id(n) for n in range(6)}
    assert pool_lake.rows_ever_appended(lake, "enriched_clips") == 6
    # Finished ones are no reason to stop, however they were cut.
    run(settings, rescan=True)


def test_a_second_start_goes_on_where_the_first_ended(settings: Settings, lake: Lake) -> None:
    pool_lake.append_clips(lake, [pool_lake.clip(n) for n in range(6)])
    run(settings)
    pool_lake.append_clips(lake, [pool_lake.clip(n) for n in range(6, 12)])
    run(settings)
    assert len(enriched(lake)) == 12
    assert pool_lake.rows_ever_appended(lake, "enriched_clips") == 12
    assert sorted(c for call in calls(settings) for c in call) == sorted(enriched(lake))
    stored = load_stored(lake)
    assert stored.epoch == 2
    assert stored.position is not None
    assert stored.position.snapshot == 3


def test_the_clips_of_a_video_go_to_one_call(settings: Settings, lake: Lake) -> None:
    pool_lake.append_clips(lake, [pool_lake.clip(n) for n in range(12)])
    run(settings)
    batches = calls(settings)
    for video in range(4):
        clips = [pool_lake.clip_id(n) for n in range(video * 3, video * 3 + 3)]
        assert any(
            batch[start : start + 3] == clips for batch in batches for start in range(len(batch))
        )


def test_clips_that_the_duration_filter_dropped_are_written_and_not_dispatched(
    settings: Settings, lake: Lake
) -> None:
    short = pool_lake.clip(1, duration_s=1.0)
    pool_lake.append_clips(lake, [pool_lake.clip(0), short])
    run(settings)
    row = enriched(lake)[pool_lake.clip_id(1)]
    assert (row["status"], row["kept"], row["reject_reason"]) == ("rejected", False, "too_short")
    assert calls(settings) == [[pool_lake.clip_id(0)]]


def test_a_replayed_clip_is_left_alone(settings: Settings, lake: Lake) -> None:
    pool_lake.append_clips(lake, [pool_lake.clip(n) for n in range(4)])
    run(settings)
    pool_lake.append_clips(lake, [pool_lake.clip(n, kafka_offset=900 + n) for n in range(5)])
    run(settings)
    assert len(enriched(lake)) == 5
    assert pool_lake.rows_ever_appended(lake, "enriched_clips") == 5


def test_a_failed_clip_is_one_row_in_each_table(settings: Settings, lake: Lake) -> None:
    missing = pool_lake.clip(1, uri="file:///not-found.mp4")
    pool_lake.append_clips(lake, [pool_lake.clip(0), missing])
    run(settings)
    row = enriched(lake)[pool_lake.clip_id(1)]
    (failure,) = lake.read("failed_clips").to_pylist()
    assert (row["status"], row["reject_reason"]) == ("failed", "not_found")
    assert (failure["clip_id"], failure["enrich_seq"]) == (row["clip_id"], row["enrich_seq"])
    assert (failure["kafka_offset"], failure["attempts"]) == (1, 1)


@pytest.mark.parametrize(
    ("uri", "reason", "attempts"),
    [
        ("file:///kill-worker.mp4", "decoder_crashed", 2),
        ("file:///raise.mp4", "stage_error", 2),
        pytest.param("file:///hang.mp4", "decoder_timeout", 1, marks=pytest.mark.long),
    ],
)
def test_a_clip_that_breaks_its_worker_costs_itself_only(
    tmp_path: Path,
    ray_address: str,
    monkeypatch: pytest.MonkeyPatch,
    uri: str,
    reason: str,
    attempts: int,
) -> None:
    if reason == "decoder_timeout":
        monkeypatch.setattr("processors.pool.dispatch.CALL_SLACK_S", 5.0)
    settings = pool_lake.settings(tmp_path, ray_address=ray_address, attempts=attempts)
    lake = pool_lake.new_lake(settings)
    rows = [pool_lake.clip(n) for n in range(9)]
    rows[4] |= {"uri": uri}
    pool_lake.append_clips(lake, rows)
    run(settings)
    found = enriched(lake)
    assert len(found) == 9
    assert [r["clip_id"] for r in found.values() if r["status"] != "kept"] == [rows[4]["clip_id"]]
    (failure,) = lake.read("failed_clips").to_pylist()
    assert (failure["reason"], failure["stage"], failure["attempts"]) == (reason, "pool", attempts)
    # It was tried in a batch, which counts against nobody, and then alone.
    alone = [call for call in calls(settings) if call == [rows[4]["clip_id"]]]
    assert len(alone) == attempts
    assert pool_lake.rows_ever_appended(lake, "enriched_clips") == 9


def test_a_clip_gets_the_time_that_its_stages_may_take_by_limits_of_their_own(
    settings: Settings, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("processors.pool.dispatch.CALL_SLACK_S", 0.5)
    pool_lake.append_clips(lake, [pool_lake.clip(0)])
    chain = "tests.pool_chains:MayTakeLong"
    Driver(settings, pool_lake.recipe(), chain=chain).run(until_idle=True)
    (row,) = enriched(lake).values()
    assert (row["status"], row["attempts"]) == ("kept", 1)
    # Nobody was killed over it.
    assert calls(settings) == [[pool_lake.clip_id(0)]]


def test_an_outage_blames_nobody_and_work_goes_on_after_it(settings: Settings, lake: Lake) -> None:
    rows = [pool_lake.clip(n, uri="file:///store-out.mp4") for n in range(3)]
    pool_lake.append_clips(lake, rows)
    outage = settings.state_dir / "store-is-out"
    outage.touch()
    worker = threading.Thread(target=run, args=(settings,))
    worker.start()
    wait_until(lambda: calls_exist(settings) and len(calls(settings)) >= 2, 90)
    outage.unlink()
    worker.join(timeout=90)
    assert {row["status"] for row in enriched(lake).values()} == {"kept"}
    assert {row["attempts"] for row in enriched(lake).values()} == {1}
    assert lake.read("failed_clips").num_rows == 0


def calls_exist(settings: Settings) -> bool:
    return (settings.state_dir / "calls").exists()


KILLS = [
    # The first commit of a driver claims its epoch: the second one has rows.
    ("commit.after_enriched", 1),
    ("plan.read", 1),
    ("batch.submitted", 1),
    ("rows.before_prepare", 1),
    ("rows.after_prepare", 2),
    ("commit.begun", 2),
    ("commit.after_frames", 2),
    ("commit.after_failures", 2),
    ("commit.after_enriched", 2),
    ("consumer.half_written", 2),
]
"""Points of the driver, and at which passage it is killed."""


def test_killed_at_every_point_nothing_is_lost_or_doubled(
    settings: Settings, lake: Lake, tmp_path: Path
) -> None:
    number, points = 0, tmp_path / "failpoints"
    points.mkdir()
    for point, nth in KILLS:
        for _ in range(2):
            batch = [pool_lake.clip(n) for n in range(number, number + 8)]
            batch[3] |= {"uri": "file:///not-found.mp4"}
            pool_lake.append_clips(lake, batch)
            number += 8
        arm(points, point, nth=nth)
        code = Process(settings, failpoints=points).wait()
        assert code == -signal.SIGKILL, (point, (settings.state_dir / "driver.log").read_text())
        assert hits(points, point) > 0
    run(settings)
    rows = enriched(lake)
    assert set(rows) == {pool_lake.clip_id(n) for n in range(number)}
    assert sum(row["status"] == "failed" for row in rows.values()) == number // 8
    assert pool_lake.rows_ever_appended(lake, "enriched_clips") == number
    shown = {
        (f["clip_id"], f["enrich_seq"])
        for f in lake.read("clip_frames", ["clip_id", "enrich_seq"]).to_pylist()
    }
    kept = {(r["clip_id"], r["enrich_seq"]) for r in rows.values() if r["kept"]}
    assert kept <= shown
    assert load_stored(lake).epoch == len(KILLS) + 1


def test_sigterm_finishes_what_is_in_flight_and_exits_with_0(
    settings: Settings, lake: Lake
) -> None:
    rows = [pool_lake.clip(n, uri="file:///slow.mp4") for n in range(40)]
    pool_lake.append_clips(lake, rows)
    driver = Process(settings)
    try:
        wait_until(lambda: calls_exist(settings), 90)
        driver.process.send_signal(signal.SIGTERM)
        code = driver.wait()
    finally:
        driver.kill()
    assert code == 0, driver.log.read_text()
    done = len(enriched(lake))
    assert 0 < done < 40
    # What the actors had was finished, not thrown away.
    assert done == sum(len(call) for call in calls(settings))
    run(settings)
    assert len(enriched(lake)) == 40
    assert pool_lake.rows_ever_appended(lake, "enriched_clips") == 40


def test_a_second_driver_is_refused_and_told_of_the_first(settings: Settings, lake: Lake) -> None:
    with only_driver(settings), pytest.raises(AlreadyRunning, match=f"process {os.getpid()}"):
        run(settings)
    run(settings)


def test_an_expired_source_ends_the_driver_and_a_rescan_gets_out(
    settings: Settings, lake: Lake
) -> None:
    pool_lake.append_clips(lake, [pool_lake.clip(n) for n in range(4)])
    run(settings)
    for n in range(4, 8):
        pool_lake.append_clips(lake, [pool_lake.clip(n)])
    pool_lake.expire(lake, "clips", [1, 2, 3])
    with pytest.raises(SourceLost, match="process --rescan"):
        run(settings)
    run(settings, rescan=True)
    assert len(enriched(lake)) == 8
    assert pool_lake.rows_ever_appended(lake, "enriched_clips") == 8
    pool_lake.append_clips(lake, [pool_lake.clip(8)])
    run(settings)
    assert len(enriched(lake)) == 9


def test_a_recreated_source_is_noticed(settings: Settings, lake: Lake) -> None:
    pool_lake.append_clips(lake, [pool_lake.clip(1)])
    run(settings)
    pool_lake.recreate(lake, "clips")
    fresh = Lake(settings)
    for n in range(3):
        pool_lake.append_clips(fresh, [pool_lake.clip(n)])
    with pytest.raises(SourceLost, match="not the one that was read before"):
        run(settings)
    run(settings, rescan=True)
    assert len(enriched(fresh)) == 3


def test_needed_snapshots_are_held_from_expiring(settings: Settings, lake: Lake) -> None:
    pool_lake.append_clips(lake, [pool_lake.clip(1)])
    run(settings)
    consumer = settings.state_dir / "lake/cliplake.db/clips/consumer/consumer-cliplake-pool"
    assert json.loads(consumer.read_text()) == {"nextSnapshot": 2}


def test_a_stage_that_cannot_start_takes_nothing(settings: Settings, lake: Lake) -> None:
    pool_lake.append_clips(lake, [pool_lake.clip(1)])
    with pytest.raises(StageStartError, match=r"safety: model file open-nsfw\.onnx is not there"):
        Driver(settings, pool_lake.recipe(), chain="tests.pool_chains:CannotStart").run()
    assert lake.latest_snapshot_id("enriched_clips") is None


def test_actors_that_do_not_fit_the_cluster_are_a_clear_error(
    tmp_path: Path, ray_address: str
) -> None:
    greedy = pool_lake.settings(
        tmp_path, ray_address=ray_address, cpus_per_actor=64, actor_start_timeout_s=2
    )
    pool_lake.new_lake(greedy)
    with pytest.raises(PoolUnavailable, match=r"each wants 64 CPUs.*pool\.cpus_per_actor"):
        run(greedy)


def test_a_cluster_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    """In a process of its own: here, one that is connected to is used."""
    nowhere = pool_lake.settings(tmp_path, ray_address=f"127.0.0.1:{ports.choose(1)[0]}")
    pool_lake.new_lake(nowhere)
    driver = Process(nowhere)
    assert driver.wait() != 0
    assert "(pool.ray_address) cannot be reached" in driver.log.read_text()


def test_work_under_another_recipe_is_done_again(settings: Settings, lake: Lake) -> None:
    pool_lake.append_clips(lake, [pool_lake.clip(1)])
    committer = Committer(lake, 7)
    committer.add(passed(pool_lake.clip(1), pool_lake.recipe(0.9), {}), 7 << 40)
    committer.commit(first_position(lake).in_epoch(7))
    run(settings)
    (row,) = enriched(lake).values()
    assert row["gates_fingerprint"] == pool_lake.recipe().gates_fingerprint
    assert row["enrich_seq"] >> 40 == 8


def test_metrics_are_served_while_the_driver_runs(settings: Settings, lake: Lake) -> None:
    (port,) = ports.choose(1)
    served = settings.model_copy(
        update={"metrics": settings.metrics.model_copy(update={"port": port})}
    )
    pool_lake.append_clips(lake, [pool_lake.clip(1)])
    driver = Driver(served, pool_lake.recipe(), chain=SCRIPTED)
    worker = threading.Thread(target=driver.run)
    worker.start()
    try:
        wait_until(lambda: 'cliplake_clips_total{status="kept"} 1.0' in page(port), 90)
        assert "cliplake_commit_seconds_bucket" in page(port)
    finally:
        driver.stop()
        worker.join(timeout=90)
    assert not worker.is_alive()
