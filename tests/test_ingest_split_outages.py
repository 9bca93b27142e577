"""Scoring while a store or the scratch disk is out: no dead letter, and no long wait.

What fetching and probing does then is in `test_ingest_prober`.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.settings import CHECKOUT, FetchSettings, Settings
from tests.conftest import wait_until
from tests.media import SAMPLES
from tests.servers import Served, serve
from tests.tcp_proxy import TcpProxy, proxied

BIKES = SAMPLES / "bikes.mp4"


@pytest.fixture
def server() -> Iterator[Served]:
    with serve({"/bikes.mp4": BIKES.read_bytes()}) as served:
        yield served


@pytest.fixture
def proxy(server: Served) -> Iterator[TcpProxy]:
    with proxied(int(server.url.rpartition(":")[2])) as running:
        yield running


def _score(scratch: Path, proxy: TcpProxy, *, patience_s: float = 1.0, **more: object) -> str:
    """What the operator says of a video behind the proxy."""
    host = f"127.0.0.1:{proxy.port}"
    values: dict[str, object] = {
        "https_hosts": (host,),
        "allow_http": True,
        "allow_private_addresses": True,
        "attempts": 1,
    }
    settings = FetchSettings(**(values | more)).model_dump_json()
    command = (str(Settings().flink_python), "-m", "tests.split_score_main")
    done = subprocess.run(
        [*command, settings, str(scratch), f"http://{host}/bikes.mp4", str(BIKES), str(patience_s)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_store_that_is_out_fails_the_task_and_not_the_video(
    tmp_path: Path, proxy: TcpProxy
) -> None:
    proxy.refuse()
    assert _score(tmp_path, proxy).startswith("StoreOut after ")
    # However often the job starts anew, in the end it goes on without the video.
    assert _score(tmp_path, proxy, outage_s=0.1) == "fetch_failed"
    proxy.mend()
    assert _score(tmp_path, proxy) == "scored"


def test_a_short_outage_is_waited_for_without_a_restart(tmp_path: Path, proxy: TcpProxy) -> None:
    def mend_later() -> None:
        wait_until(lambda: proxy.accepted >= 3, 60)
        proxy.mend()

    proxy.mode = "reset"
    mending = threading.Thread(target=mend_later)
    mending.start()
    assert _score(tmp_path, proxy, patience_s=60.0) == "scored"
    mending.join()


def test_a_scratch_folder_that_cannot_be_written_fails_the_task(
    tmp_path: Path, proxy: TcpProxy
) -> None:
    scratch = tmp_path / "scratch"
    scratch.write_text("a file where the folder should be")
    assert _score(scratch, proxy).startswith("DependencyFault after ")
