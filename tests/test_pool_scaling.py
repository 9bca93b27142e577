"""The number of actors follows the clips that wait, between the least and the most."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from processors.pool.driver import Driver
from processors.pool.scaling import REFUSED_FOR_S, Scaler
from processors.pool.status_file import status_path
from schemas.sections import PoolSettings
from schemas.settings import Settings
from tests import pool_lake
from tests.conftest import wait_until

POOL = PoolSettings(
    min_actors=1,
    max_actors=6,
    grow_after_s=5,
    shrink_after_s=60,
    micro_batch_clips=10,
    calls_in_flight=2,
)
"""An actor has room for 20 clips."""


def wanted(scaler: Scaler, now: float, actors: int, waiting: int, working: int = 0) -> int:
    return scaler.wanted(now, actors=actors, starting=0, waiting=waiting, working=working)


def test_actors_are_doubled_once_clips_have_waited_long_enough() -> None:
    scaler = Scaler(POOL, 0.0)
    assert wanted(scaler, 1.0, 1, waiting=10) == 1
    assert wanted(scaler, 5.9, 1, waiting=500) == 1
    assert wanted(scaler, 6.0, 1, waiting=500) == 2
    # The two have a time of their own to deal with it.
    assert wanted(scaler, 6.1, 2, waiting=500) == 2
    assert wanted(scaler, 11.1, 2, waiting=500) == 4
    assert wanted(scaler, 20.0, 4, waiting=500) == 4
    assert wanted(scaler, 25.0, 4, waiting=500) == 6


def test_a_wait_that_ends_in_between_counts_for_nothing() -> None:
    scaler = Scaler(POOL, 0.0)
    assert wanted(scaler, 1.0, 1, waiting=500) == 1
    assert wanted(scaler, 5.0, 1, waiting=9) == 1
    assert wanted(scaler, 6.0, 1, waiting=500) == 1
    assert wanted(scaler, 10.9, 1, waiting=500) == 1


def test_no_more_are_started_while_one_starts() -> None:
    scaler = Scaler(POOL, 0.0)
    scaler.wanted(0.0, actors=2, starting=1, waiting=500, working=0)
    assert scaler.wanted(9.0, actors=2, starting=1, waiting=500, working=0) == 2
    assert scaler.wanted(9.1, actors=2, starting=0, waiting=500, working=0) == 4


def test_one_is_given_up_at_a_time_when_the_others_would_do() -> None:
    scaler = Scaler(POOL, 0.0)
    assert wanted(scaler, 59.9, 3, waiting=0) == 3
    assert wanted(scaler, 60.0, 3, waiting=0) == 2
    assert wanted(scaler, 119.0, 2, waiting=0) == 2
    assert wanted(scaler, 120.0, 2, waiting=0) == 1
    assert wanted(scaler, 999.0, 1, waiting=0) == 1


def test_a_load_that_would_fill_the_others_keeps_all() -> None:
    scaler = Scaler(POOL, 0.0)
    # Two would have room for 40 clips, and are wanted half empty.
    assert wanted(scaler, 30.0, 3, waiting=0, working=21) == 3
    assert wanted(scaler, 89.0, 3, waiting=0, working=20) == 3
    assert wanted(scaler, 90.0, 3, waiting=0, working=20) == 2


def test_a_cluster_without_room_is_left_alone_for_a_while() -> None:
    scaler = Scaler(POOL, 0.0)
    wanted(scaler, 0.0, 1, waiting=500)
    scaler.refused(1.0)
    assert wanted(scaler, REFUSED_FOR_S, 1, waiting=500) == 1
    assert wanted(scaler, REFUSED_FOR_S + 1.0, 1, waiting=500) == 2


def test_the_least_and_the_most_are_checked() -> None:
    with pytest.raises(ValueError, match="max_actors is 2, and min_actors is 3"):
        PoolSettings(min_actors=3, max_actors=2)
    assert PoolSettings(min_actors=3).actor_limit == 3
    with pytest.raises(ValueError, match="whole ones alone"):
        PoolSettings(cpus_per_actor=1.5)


@contextmanager
def running(settings: Settings) -> Iterator[Callable[[Callable[[], object]], None]]:
    """A driver in a thread, and a wait that ends with what the driver raises."""
    driver = Driver(settings, pool_lake.recipe(), chain="tests.pool_chains:Scripted")
    raised: list[BaseException] = []

    def work() -> None:
        try:
            driver.run()
        except BaseException as error:
            raised.append(error)

    def wait(condition: Callable[[], object]) -> None:
        wait_until(lambda: raised or condition(), 90)
        assert raised == []

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield wait
    finally:
        driver.stop()
        thread.join(timeout=90)
    assert not thread.is_alive()
    assert raised == []


def status(settings: Settings) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(status_path(settings).read_text())
    except FileNotFoundError:
        return {"actors": 0, "kept": 0}
    return found


def test_actors_come_with_a_backlog_and_go_after_it(tmp_path: Path, ray_address: str) -> None:
    settings = pool_lake.settings(
        tmp_path,
        ray_address=ray_address,
        max_actors=3,
        grow_after_s=0.3,
        shrink_after_s=1.5,
        micro_batch_clips=4,
    )
    lake = pool_lake.new_lake(settings)
    slow = [pool_lake.clip(number, uri="file:///slow.mp4") for number in range(300)]
    pool_lake.append_clips(lake, slow)
    with running(settings) as wait:
        wait(lambda: status(settings)["actors"] == 3)
        wait(lambda: status(settings)["kept"] == 300)
        wait(lambda: status(settings)["actors"] == 1)
        pool_lake.append_clips(lake, [pool_lake.clip(300)])
        wait(lambda: status(settings)["kept"] == 301)
    rows = lake.read("enriched_clips", ["clip_id", "status"]).to_pylist()
    assert len(rows) == len({row["clip_id"] for row in rows}) == 301
    assert pool_lake.rows_ever_appended(lake, "enriched_clips") == 301


def test_a_cluster_that_has_no_room_for_more_goes_on_with_what_there_is(
    tmp_path: Path, ray_address: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = pool_lake.settings(
        tmp_path,
        ray_address=ray_address,
        max_actors=2,
        cpus_per_actor=2,
        grow_after_s=0.2,
        actor_start_timeout_s=12,
    )
    lake = pool_lake.new_lake(settings)
    slow = [pool_lake.clip(number, uri="file:///slow.mp4") for number in range(60)]
    pool_lake.append_clips(lake, slow)
    with running(settings) as wait:
        wait(lambda: "going on with 1: 1 of 2 actors did not answer" in caplog.text)
        wait(lambda: status(settings)["kept"] == 60)
        wait(lambda: status(settings)["actors"] == 1)
    assert "each wants 2 CPUs" in caplog.text
