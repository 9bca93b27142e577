"""Two Ray nodes: two raylets of one cluster, each with a scratch folder of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from deploy.local.ports import HOST
from schemas.settings import Settings, load_settings
from tests import pool_lake
from tests.clip_media import clip, panning
from tests.conftest import wait_until
from tests.media import encode
from tests.pool_process import Process
from tests.servers import serve


@dataclass
class TwoNodes:
    """A head without CPUs, and two nodes with room for one actor each."""

    cluster: Cluster
    nodes: list[Any]
    scratch: list[Path]

    @property
    def address(self) -> str:
        return str(self.cluster.address)


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    tmp_path = tmp_path_factory.mktemp("nodes")
    small = {"object_store_memory": 80 * 2**20, "node_ip_address": HOST}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
    try:
        scratch = [tmp_path / "scratch-1", tmp_path / "scratch-2"]
        nodes = [
            cluster.add_node(
                num_cpus=1,
                env_vars={"CLIPLAKE__FETCH__SCRATCH_DIR": str(folder)},
                **small,
            )
            for folder in scratch
        ]
        yield TwoNodes(cluster, nodes, scratch)
    finally:
        cluster.shutdown()


def test_real_clips_are_fetched_and_scored_on_both(tmp_path: Path, two_nodes: TwoNodes) -> None:
    settings = real_settings(tmp_path, two_nodes.address)
    recipe = pool_lake.recipe(min_motion=0)
    lake = pool_lake.new_lake(settings)
    media = encode(tmp_path / "video.mp4", panning(60, 96, 128, 2))
    row = clip(media, 0, 60, recipe)
    with serve({"/video.mp4": media.read_bytes()}) as server:
        own = [{"clip_id": pool_lake.clip_id(n), "video_key": f"video-{n}"} for n in range(12)]
        pool_lake.append_clips(lake, [{**row, "uri": f"{server.url}/video.mp4", **o} for o in own])
        with Process(settings, chain="processors.chain:EnrichmentChain", recipe=recipe) as driver:
            wait_until(lambda: statuses(lake) == ["kept"] * 12, 90)
            log = driver.log.read_text()
    assert all(folder.is_dir() for folder in two_nodes.scratch)
    assert not settings.scratch_dir.exists()
    assert "placing 2 of worker (fetch, decode, motion) on 1 CPUs, 0 GPUs" in log


def test_clips_of_a_lost_node_go_to_the_other(tmp_path: Path, two_nodes: TwoNodes) -> None:
    settings = pool_lake.settings(
        tmp_path / "state",
        ray_address=two_nodes.address,
        min_actors=2,
        cpus_per_actor=1,
        micro_batch_clips=2,
    )
    lake = pool_lake.new_lake(settings)
    pool_lake.append_clips(lake, [pool_lake.clip(number) for number in range(120)])
    with Process(settings, chain="tests.pool_chains:OnNodes") as driver:
        wait_until(lambda: all((folder / "nodes").exists() for folder in two_nodes.scratch), 90)
        used = [set((f / "nodes").read_text().split()) for f in two_nodes.scratch]
        assert [len(nodes) for nodes in used] == [1, 1]
        assert used[0] != used[1]
        two_nodes.cluster.remove_node(two_nodes.nodes[0], allow_graceful=False)
        wait_until(lambda: statuses(lake) == ["kept"] * 120, 90)
        assert driver.process.poll() is None
    assert pool_lake.rows_ever_appended(lake, "enriched_clips") == 120
    assert lake.read("failed_clips", ["clip_id"]).num_rows == 0


def statuses(lake: Any) -> list[str]:
    return [row["status"] for row in lake.read("enriched_clips", ["status"]).to_pylist()]


def real_settings(tmp_path: Path, address: str) -> Settings:
    return load_settings(
        None,
        local={"state_dir": str(tmp_path / "state")},
        fetch={
            "https_hosts": [HOST],
            "allow_http": True,
            "allow_private_addresses": True,
        },
        pool={
            "ray_address": address,
            "min_actors": 2,
            "micro_batch_clips": 1,
            "calls_in_flight": 1,
            "commit_interval_s": 0.2,
        },
    )
