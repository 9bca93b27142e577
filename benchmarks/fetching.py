"""How many bytes the enrichment of long videos fetches, against what the videos have.

``python -m benchmarks.fetching FOLDER --scenes 400 --actors 2 --nodes 1`` makes an hour of video,
serves it over HTTP on loopback, and has the real driver with real Ray actors enrich its clips:
fetch, decode, frame quality, motion. What fetching as often as there are micro-batches takes of
CPU is measured apart, with objects that are kept and without. It prints a table and writes
``FOLDER/fetching.json``.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from benchmarks import clips, inputs
from processors.fetch import Fetcher
from processors.media.probe import probe
from processors.pool.cluster import prepare_environment
from processors.pool.driver import Driver
from processors.scenes import Scene
from processors.split import clip_rows
from schemas.sections import PoolSettings
from schemas.settings import Settings, load_settings
from tests import pool_lake
from tests.servers import serve

SCENE_S = 9
"""400 of them are an hour."""
HEIGHT = 180
_HOST = "127.0.0.1"
_PIECE = 1 << 20


@dataclass
class _Sent:
    """What the server has sent."""

    requests: int = 0
    bytes: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.fetching", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scenes", type=int, default=400)
    parser.add_argument("--videos", type=int, default=1)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--actors", type=int, default=1, help="of each node")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    # Before Ray is imported.
    prepare_environment(Settings(pool=PoolSettings(ray_address=f"{_HOST}:0")))
    video = long_video(options.folder, options.scenes)
    load, wall = os.getloadavg()[0], time.perf_counter()
    with _served(video, options.videos) as (urls, sent), _cluster(options) as address:
        settings = _settings(options, address)
        batches = -(-options.scenes // settings.pool.micro_batch_clips)
        kept_s, anew_s = _fetch_cpu_s(urls[0], video, batches, settings)
        sent.requests = sent.bytes = 0
        lake = pool_lake.new_lake(settings)
        for number, url in enumerate(urls):
            pool_lake.append_clips(lake, rows(video, url, number))
        Driver(settings, clips.recipe()).run(until_idle=True)
    done = lake.read("enriched_clips", ["status", "cpu_s"]).to_pylist()
    size = video.stat().st_size
    report: dict[str, Any] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "video_bytes": size,
        "videos": options.videos,
        "clips": len(done),
        "failed": sum(row["status"] == "failed" for row in done),
        "nodes": options.nodes,
        "actors_of_a_node": options.actors,
        "requests": sent.requests,
        "fetched_over_source": round(sent.bytes / size / options.videos, 3),
        "cpu_s_to_fetch_once_and_find": round(kept_s, 2),
        "cpu_s_to_fetch_each_time": round(anew_s, 2),
        "cpu_s_of_the_clips": round(sum(row["cpu_s"] for row in done), 1),
        "wall_s": round(time.perf_counter() - wall, 1),
        "load_before": load,
        "load_after": os.getloadavg()[0],
    }
    (options.folder / "fetching.json").write_text(json.dumps(report, indent=2) + "\n")
    for name, value in report.items():
        print(f"{name.replace('_', ' '):28} {value:>26}")


def long_video(folder: Path, scenes: int) -> Path:
    """A video of many scenes: one of ten seconds, its packets over and over."""
    (short,) = inputs.make([inputs.Made(HEIGHT, "h264", "short")], folder)
    return inputs.lengthened(short.path, scenes * SCENE_S, folder / f"{scenes}-scenes.mp4")


def rows(video: Path, url: str, number: int) -> list[dict[str, Any]]:
    """Rows of ``clips``: scenes of `SCENE_S` seconds."""
    info = probe(str(video))
    step = SCENE_S * inputs.FPS
    tick = (info.last_pts_end - info.start_pts) // info.frame_count
    scenes = [
        Scene(info.start_pts + first * tick, info.start_pts + (first + step) * tick,
              first, first + step)
        for first in range(0, info.frame_count - step + 1, step)
    ]  # fmt: skip
    return clip_rows(
        {"video_key": f"video-{number}", "video_id": url, "uri": url, "kafka_offset": number},
        info,
        scenes,
        recipe=clips.recipe(),
        content_sha256=_sha256(video),
        created_at=datetime.now(UTC),
    )


def _fetch_cpu_s(url: str, video: Path, times: int, settings: Settings) -> tuple[float, float]:
    """CPU seconds of fetching the video so often for its clips: kept, and anew each time."""
    taken, sha256 = [], _sha256(video)
    with tempfile.TemporaryDirectory(dir=settings.state_dir.parent) as scratch:
        for keep in (True, False):
            fetcher = Fetcher(settings.fetch, Path(scratch), keep_for="enrichment" if keep else "")
            before = time.thread_time()
            for _ in range(times):
                with fetcher.fetch(url, expected_sha256=sha256):
                    pass
            taken.append(time.thread_time() - before)
            fetcher.close()
    return taken[0], taken[1]


@functools.cache
def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def _served(video: Path, count: int) -> Iterator[tuple[list[str], _Sent]]:
    """The video under so many names, and what was sent of it."""
    sent, lock = _Sent(), threading.Lock()

    def send(handler: BaseHTTPRequestHandler) -> None:
        with lock:
            sent.requests += 1
        handler.send_response(200)
        handler.send_header("Content-Length", str(video.stat().st_size))
        handler.end_headers()
        with video.open("rb") as file:
            while piece := file.read(_PIECE):
                handler.wfile.write(piece)
                with lock:
                    sent.bytes += len(piece)

    names = [f"/{number}.mp4" for number in range(count)]
    with serve(dict.fromkeys(names, send)) as server:
        yield [server.url + name for name in names], sent


@contextmanager
def _cluster(options: argparse.Namespace) -> Iterator[str]:
    """A Ray cluster of so many nodes, each with a scratch folder of its own."""
    from ray.cluster_utils import Cluster

    small = {"object_store_memory": 80 * 2**20, "node_ip_address": _HOST}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
    try:
        for number in range(options.nodes):
            scratch = options.folder.resolve() / f"scratch-{number}"
            cluster.add_node(
                num_cpus=options.actors,
                env_vars={"CLIPLAKE__FETCH__SCRATCH_DIR": str(scratch)},
                **small,
            )
        yield str(cluster.address)
    finally:
        cluster.shutdown()


def _settings(options: argparse.Namespace, address: str) -> Settings:
    moment = datetime.now(UTC).strftime("%H%M%S%f")
    return load_settings(
        None,
        local={"state_dir": str(options.folder.resolve() / f"state-{moment}")},
        fetch={"https_hosts": [_HOST], "allow_http": True, "allow_private_addresses": True},
        pool={"ray_address": address, "min_actors": options.nodes * options.actors},
    )


if __name__ == "__main__":
    main()
