"""The pool while a store of videos, or the scratch disk, is out: it waits and blames no clip."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from processors.pool.driver import Driver
from processors.pool.lake import Lake
from processors.pool.status_file import status_path
from schemas.settings import Settings
from tests import pool_lake
from tests.conftest import wait_until
from tests.servers import Served, serve
from tests.small_disk import fill, small_disk
from tests.tcp_proxy import TcpProxy, proxied

FETCHING = "tests.pool_chains:Fetching"
CLIPS = 6
"""Of each store; three a video."""


@pytest.fixture
def server() -> Iterator[Served]:
    with serve({"/v.mp4": bytes(200_000)}) as served:
        yield served


@pytest.fixture
def proxy(server: Served) -> Iterator[TcpProxy]:
    with proxied(int(server.url.rpartition(":")[2])) as running:
        yield running


def _settings(folder: Path, ray_address: str, *hosts: str, **fetch: object) -> Settings:
    base = pool_lake.settings(folder, ray_address=ray_address)
    limits = {"connect_timeout_s": 1.0, "read_timeout_s": 1.0, "deadline_s": 3.0, "attempts": 1}
    allowed = {"https_hosts": hosts, "allow_http": True, "allow_private_addresses": True}
    changed = base.fetch.model_copy(update={**limits, **allowed, **fetch})
    return base.model_copy(update={"fetch": changed})


def _host(url: str) -> str:
    return url.removeprefix("http://")


def _append(lake: Lake, first: int, uri: str) -> None:
    pool_lake.append_clips(lake, [pool_lake.clip(first + n, uri=uri) for n in range(CLIPS)])


class _Working:
    """A driver that works in a thread until nothing is left."""

    def __init__(self, settings: Settings) -> None:
        driver = Driver(settings, pool_lake.recipe(), chain=FETCHING)
        self._thread = threading.Thread(target=lambda: driver.run(until_idle=True))
        self._thread.start()

    def finish(self) -> None:
        self._thread.join(timeout=90)
        assert not self._thread.is_alive()


def _rows(lake: Lake) -> list[dict[str, object]]:
    return lake.read("enriched_clips").to_pylist()


def test_clips_of_a_store_that_is_out_wait_and_those_of_others_go_on(
    tmp_path: Path, ray_address: str, server: Served, proxy: TcpProxy
) -> None:
    out = f"127.0.0.1:{proxy.port}"
    settings = _settings(tmp_path, ray_address, out, _host(server.url))
    lake = pool_lake.new_lake(settings)
    proxy.mode = "reset"
    _append(lake, 0, f"http://{out}/v.mp4")
    _append(lake, CLIPS, f"{server.url}/v.mp4")
    working = _Working(settings)
    wait_until(lambda: len(_rows(lake)) == CLIPS, 90)
    assert {row["clip_id"] for row in _rows(lake)} == {
        pool_lake.clip_id(n) for n in range(CLIPS, 2 * CLIPS)
    }
    proxy.mode = "forward"
    working.finish()
    rows = _rows(lake)
    assert {row["clip_id"] for row in rows} == {pool_lake.clip_id(n) for n in range(2 * CLIPS)}
    assert {(row["status"], row["attempts"]) for row in rows} == {("kept", 1)}
    assert lake.read("failed_clips").num_rows == 0


def test_a_store_that_stays_out_costs_its_clips_in_the_end_and_no_others(
    tmp_path: Path, ray_address: str, server: Served, proxy: TcpProxy
) -> None:
    out = f"127.0.0.1:{proxy.port}"
    settings = _settings(tmp_path, ray_address, out, _host(server.url), outage_s=1.0)
    lake = pool_lake.new_lake(settings)
    proxy.refuse()
    _append(lake, 0, f"http://{out}/v.mp4")
    _append(lake, CLIPS, f"{server.url}/v.mp4")
    _Working(settings).finish()
    statuses = {row["clip_id"]: row["status"] for row in _rows(lake)}
    assert statuses == {
        pool_lake.clip_id(n): "failed" if n < CLIPS else "kept" for n in range(2 * CLIPS)
    }
    letters = lake.read("failed_clips").to_pylist()
    assert {(letter["reason"], letter["retryable"]) for letter in letters} == {
        ("fetch_failed", True)
    }


def test_a_full_scratch_disk_pauses_the_pool_until_there_is_room(
    tmp_path: Path, ray_address: str, server: Served
) -> None:
    scratch = tmp_path / "scratch"
    settings = _settings(tmp_path, ray_address, _host(server.url), scratch_dir=str(scratch))
    lake = pool_lake.new_lake(settings)
    _append(lake, 0, f"{server.url}/v.mp4")
    with small_disk(scratch, 2**21) as mounted:
        blocker = scratch / "filler" if mounted else scratch
        if mounted:
            fill(blocker)
        else:
            # A folder that cannot be made is as good as a disk without room.
            blocker.rmdir()
            blocker.write_text("a file where the folder should be")
        working = _Working(settings)
        status = status_path(settings)
        wait_until(lambda: status.exists() and '"paused": true' in status.read_text(), 90)
        assert _rows(lake) == []
        blocker.unlink()
        working.finish()
    assert {(row["status"], row["attempts"]) for row in _rows(lake)} == {("kept", 1)}
    assert lake.read("failed_clips").num_rows == 0
