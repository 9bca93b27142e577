"""How often real actors fetch a video whose clips are more than a micro-batch."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import psutil

from processors.pool.driver import Driver
from processors.pool.lake import Lake
from schemas.settings import Settings
from tests import pool_lake
from tests.servers import Served, serve

FETCHING = "tests.pool_chains:Fetching"
BODY = bytes(range(256)) * 4096
CLIPS = 48


def _settings(folder: Path, ray_address: str, **fetch: object) -> Settings:
    base = pool_lake.settings(folder, ray_address=ray_address, min_actors=2)
    allowed = {"https_hosts": ("127.0.0.1",), "allow_http": True, "allow_private_addresses": True}
    changed = base.fetch.model_copy(update={**allowed, "deadline_s": 20.0, **fetch})
    return base.model_copy(update={"fetch": changed})


def _enriched(settings: Settings, server: Served) -> list[dict[str, Any]]:
    """The rows of one video's clips, once the pool is done with them."""
    lake = pool_lake.new_lake(settings)
    pool_lake.append_clips(lake, _clips(f"{server.url}/v.mp4"))
    Driver(settings, pool_lake.recipe(), chain=FETCHING).run(until_idle=True)
    return _rows(lake)


def _clips(uri: str) -> Iterable[dict[str, Any]]:
    of = {"uri": uri, "video_key": "long", "content_sha256": hashlib.sha256(BODY).hexdigest()}
    return [pool_lake.clip(n, clip_index=n, **of) for n in range(CLIPS)]


def _rows(lake: Lake) -> list[dict[str, Any]]:
    return lake.read("enriched_clips").to_pylist()


def test_a_long_video_is_fetched_once_by_all_actors_of_a_machine(
    tmp_path: Path, ray_address: str
) -> None:
    settings = _settings(tmp_path, ray_address)
    with serve({"/v.mp4": BODY}) as server:
        rows = _enriched(settings, server)
        assert len(server.requests) == 1
    assert [row["status"] for row in rows] == ["kept"] * CLIPS
    # Nobody needs it any more.
    assert not list(settings.scratch_dir.glob("kept-*"))


def test_a_video_whose_fetching_actor_is_killed_is_fetched_by_another(
    tmp_path: Path, ray_address: str
) -> None:
    killed: list[int] = []

    def kill_the_first(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(BODY)))
        handler.end_headers()
        handler.wfile.write(BODY[: len(BODY) // 2])
        if not killed:
            # Time for the other actor to wait for this one.
            time.sleep(1)
            killed.append(_process_at(handler.client_address[1]))
            os.kill(killed[0], signal.SIGKILL)
        handler.wfile.write(BODY[len(BODY) // 2 :])

    settings = _settings(tmp_path, ray_address)
    with serve({"/v.mp4": kill_the_first}) as server:
        rows = _enriched(settings, server)
        assert len(server.requests) == 2
    assert len(killed) == 1
    assert {(row["status"], row["attempts"]) for row in rows} == {("kept", 1)}
    assert len(rows) == CLIPS


def _process_at(port: int) -> int:
    """The process whose connection comes from this port."""
    found = [c.pid for c in psutil.net_connections("tcp4") if c.laddr and c.laddr.port == port]
    (pid,) = (pid for pid in found if pid not in (None, os.getpid()))
    return int(pid)
