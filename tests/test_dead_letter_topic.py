"""Every dead letter is on its topic at least once, whatever dies or is out meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from kafka import KafkaAdminClient
from kafka.admin import NewTopic

from deploy.local import ports
from ingest.topic import topic_offsets
from processors.failpoints import VARIABLE, arm, hits
from processors.pool.errors import AlreadyRunning, SourceLost
from processors.pool.lake import Lake
from processors.pool.letter_positions import positions_file
from processors.pool.lock import only_letter_publisher
from schemas.problems import ConfigError
from schemas.settings import CHECKOUT, Settings, dump_settings
from tests import letter_lake as letters
from tests import pool_lake
from tests.cli import cliplake
from tests.conftest import wait_until
from tests.letter_topic import headers_of, records
from tests.metrics_page import page
from tests.own_broker import broker_behind_proxy
from tests.tcp_proxy import TcpProxy

pytestmark = pytest.mark.e2e

CANARY = "c4n4ry-in-the-options"


@dataclass
class Place:
    """A lake of its own with a topic of its own, behind the proxy."""

    folder: Path
    settings: Settings
    lake: Lake
    direct: str
    """The broker's address past the proxy."""

    def file(self) -> Path:
        file = self.folder / "settings.json"
        file.write_text(dump_settings(self.settings))
        return file

    def publisher(self, failpoints: Path | None = None) -> Publishing:
        return Publishing(self, failpoints)

    def records(self) -> list[Any]:
        """Everything on the topic, by partition and offset."""
        client = {"bootstrap.servers": self.direct}
        return records(self.settings.kafka.model_copy(update={"client": client}))

    def count(self) -> int:
        """Records on the topic; none before it is made."""
        topic = self.settings.kafka.dead_letter_topic
        kafka = self.settings.kafka.model_copy(
            update={"topic": topic, "client": {"bootstrap.servers": self.direct}}
        )
        try:
            offsets = topic_offsets(self.settings.model_copy(update={"kafka": kafka}))
        except ConfigError:
            return 0
        return sum(partition.end for partition in offsets.values())

    def ids(self) -> Counter[str]:
        """How often each letter is on the topic."""
        return Counter(headers_of(r)["cliplake-letter-id"] for r in self.records())


class Publishing:
    """`cliplake dead-letters publish` in a process of its own."""

    def __init__(self, place: Place, failpoints: Path | None) -> None:
        self.log = place.folder / "publisher.log"
        command = ["--settings-json", str(place.file()), "dead-letters", "publish"]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cliplake.main", *command],
                cwd=CHECKOUT,
                env={**os.environ, VARIABLE: str(failpoints or "")},
                stdout=log,
                stderr=log,
            )

    def __enter__(self) -> Publishing:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def says(self, words: str) -> bool:
        return words in self.log.read_text()


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TcpProxy]:
    with broker_behind_proxy(tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture
def place(proxy: TcpProxy, tmp_path: Path) -> Iterator[Place]:
    base = pool_lake.settings(tmp_path)
    client = {
        "bootstrap.servers": f"{ports.HOST}:{proxy.port}",
        "request.timeout.ms": "1000",
        "delivery.timeout.ms": "2000",
        # Of no use without SASL: here to be looked for where it has no place.
        "sasl.plain.password": CANARY,
    }
    kafka = base.kafka.model_copy(
        update={"dead_letter_topic": f"dead-{uuid.uuid4().hex}", "client": client}
    )
    settings = base.model_copy(update={"kafka": kafka})
    yield Place(
        tmp_path,
        settings,
        pool_lake.new_lake(settings),
        f"{ports.HOST}:{proxy.to_port}",
    )
    proxy.mend()


def there(place: Place, count: int) -> None:
    wait_until(lambda: place.count() >= count, 60)


def test_letters_carry_connects_headers_and_the_message(place: Place) -> None:
    hostile = b"junk \x1b[2J\xff"
    letters.write(
        place.lake,
        "rejected_messages",
        letters.rejected(3, hostile, error="not JSON: \x1b[2J\u202e"),
        letters.rejected(4, None, reason="empty_message"),
    )
    letters.write(place.lake, "videos", letters.video(1), letters.video(2))
    with place.publisher() as publisher:
        there(place, 2)
        # What comes later is followed.
        letters.write(place.lake, "failed_videos", letters.failed_video(1))
        letters.write(place.lake, "failed_clips", letters.failed_clip(2, 0))
        resolved = letters.failed_video(1, resolved_at=letters.NOW)
        letters.write(place.lake, "failed_videos", resolved)
        letters.write(place.lake, "failed_videos", letters.failed_video(2))
        there(place, 5)
        publisher.process.send_signal(signal.SIGTERM)
        assert publisher.process.wait(20) == 0
    found = {record.key.decode(): record for record in place.records()}
    assert {key: record.value for key, record in found.items()} == {
        "video-uploads[0]@3": hostile,
        "video-uploads[0]@4": None,
        letters.key(1): b"message 1",
        letters.key(2): b"message 2",
        letters.key(2000): b"message 2",
    }
    prefix = "__connect.errors."
    assert dict(found["video-uploads[0]@3"].headers) == {
        f"{prefix}topic": b"video-uploads",
        f"{prefix}partition": b"0",
        f"{prefix}offset": b"3",
        f"{prefix}connector.name": b"cliplake-arrivals",
        f"{prefix}stage": b"arrivals",
        f"{prefix}exception.class.name": b"not_json",
        f"{prefix}exception.message": b"not JSON: \\x1b[2J\\u202e",
        "cliplake-letter-id": b"rejected_messages/video-uploads[0]@3/video-uploads[0]@3",
        "cliplake-letter-failed-at": b"2026-01-31T12:00:00.000+00:00",
    }
    clip = dict(found[letters.key(2000)].headers)
    assert clip[f"{prefix}connector.name"] == b"cliplake-pool"
    assert clip[f"{prefix}stage"] == b"decode"
    assert set(place.ids().values()) == {1}
    assert CANARY not in str(place.records())
    assert CANARY not in publisher.log.read_text()


def test_killed_before_the_position_is_kept_it_loses_nothing(place: Place) -> None:
    points = place.folder / "failpoints"
    points.mkdir()
    letters.write(place.lake, "failed_videos", *map(letters.failed_video, range(250)))
    # Two of three chunks are on the topic, and the position is behind the first of them.
    arm(points, "letters.sent", nth=2)
    with place.publisher(points) as killed:
        assert killed.process.wait(60) == -signal.SIGKILL
    assert hits(points, "letters.sent") == 1
    assert len(place.ids()) == 200
    letters.write(place.lake, "failed_videos", letters.failed_video(300))
    with place.publisher(points):
        wait_until(lambda: len(place.ids()) == 251, 60)
    # Some came once more than they needed to, and none under another id.
    assert set(place.ids().values()) == {1, 2}
    assert len(place.ids()) == 251


@pytest.mark.parametrize("breaks", [TcpProxy.refuse, TcpProxy.silence])
def test_while_the_broker_is_out_letters_wait(place: Place, proxy: TcpProxy, breaks: Any) -> None:
    letters.write(place.lake, "rejected_messages", letters.rejected(0, b"first"))
    with place.publisher() as publisher:
        there(place, 1)
        breaks(proxy)
        for offset in range(1, 20):
            payload = f"junk {offset}".encode()
            letters.write(place.lake, "rejected_messages", letters.rejected(offset, payload))
            time.sleep(0.1)
        wait_until(lambda: publisher.says("dead letters wait"), 90)
        assert publisher.process.poll() is None
        proxy.mend()
        wait_until(lambda: len(place.ids()) == 20, 90)
        assert publisher.process.poll() is None


def test_a_page_shows_what_is_published_and_what_waits(place: Place, proxy: TcpProxy) -> None:
    (port,) = ports.choose(1)
    metrics = place.settings.metrics.model_copy(update={"letters_port": port})
    place.settings = place.settings.model_copy(update={"metrics": metrics})

    def shows(*lines: str) -> bool:
        return {f"cliplake_letters_{line}" for line in lines} <= set(page(port).splitlines())

    published, waiting = 'total{table="rejected_messages"}', 'snapshot_lag{table="failed_videos"}'
    letters.write(place.lake, "rejected_messages", letters.rejected(0, bytes(2_000_000)))
    with place.publisher() as publisher:
        wait_until(lambda: shows(f"{published} 1.0", f"{waiting} 0.0"), 60)
        assert shows("too_large_total 1.0", "failures_total 0.0", 'total{table="failed_clips"} 0.0')
        sockets = psutil.Process(publisher.process.pid).net_connections("tcp")
        listening = [s.laddr for s in sockets if s.status == psutil.CONN_LISTEN]
        assert listening == [("127.0.0.1", port)]
        proxy.refuse()
        for number in range(2):
            letters.write(place.lake, "failed_videos", letters.failed_video(number))
        wait_until(lambda: shows(f"{waiting} 2.0"), 90)
        assert not shows("failures_total 0.0")
        proxy.mend()
        published = 'total{table="failed_videos"}'
        wait_until(lambda: shows(f"{published} 2.0", f"{waiting} 0.0"), 90)


def test_a_broker_that_is_out_at_the_start_is_waited_for(place: Place, proxy: TcpProxy) -> None:
    letters.write(place.lake, "rejected_messages", letters.rejected(0, b"first"))
    proxy.refuse()
    with place.publisher() as publisher:
        wait_until(lambda: publisher.says("dead letters wait"), 90)
        # It knows where to go on, which is all that `up` waits for.
        assert positions_file(place.settings).exists()
        proxy.mend()
        there_count = lambda: publisher.says("1 letters of rejected_messages published")  # noqa: E731
        wait_until(there_count, 90)
    assert len(place.ids()) == 1


def test_a_message_that_is_too_large_is_left_out_and_named(place: Place) -> None:
    admin = KafkaAdminClient(bootstrap_servers=place.direct)
    topic, limit = place.settings.kafka.dead_letter_topic, "20000"
    admin.create_topics([NewTopic(topic, 2, 1, topic_configs={"max.message.bytes": limit})])
    admin.close()
    # The second is more than the topic takes, the third more than the client sends.
    sizes = {1: 10_000, 2: 30_000, 3: 2_000_000, 4: 10}
    rows = [letters.rejected(offset, os.urandom(size)) for offset, size in sizes.items()]
    letters.write(place.lake, "rejected_messages", *rows)
    with place.publisher():
        wait_until(lambda: len(place.ids()) == 4, 60)
    found = {record.key.decode()[-1]: record for record in place.records()}
    assert {offset: len(record.value or b"") for offset, record in found.items()} == {
        "1": 10_000,
        "2": 0,
        "3": 0,
        "4": 10,
    }
    left_out = {o: dict(r.headers).get("cliplake-letter-left-out-bytes") for o, r in found.items()}
    assert left_out == {"1": None, "2": b"30000", "3": b"2000000", "4": None}


def test_a_table_that_expired_or_was_made_again_ends_it(place: Place) -> None:
    letters.write(place.lake, "failed_videos", letters.failed_video(0))
    with place.publisher():
        there(place, 1)
    for offset in range(1, 4):
        letters.write(place.lake, "failed_videos", letters.failed_video(offset))
    pool_lake.expire(place.lake, "failed_videos", [1, 2])
    with place.publisher() as expired:
        assert expired.process.wait(60) == SourceLost.exit_code
    assert expired.says("snapshot 2 of failed_videos has expired before it was read; remove ")
    positions_file(place.settings).unlink()
    with place.publisher() as running:
        wait_until(lambda: len(place.ids()) == 4, 60)
        pool_lake.recreate(place.lake, "rejected_messages")
        assert running.process.wait(30) == SourceLost.exit_code
    assert running.says("table rejected_messages is not the one that was read before")
    assert not running.says("Traceback")


def test_a_second_one_is_refused_and_none_starts_without_a_topic(place: Place) -> None:
    with only_letter_publisher(place.settings), place.publisher() as second:
        assert second.process.wait(60) == AlreadyRunning.exit_code
    kafka = place.settings.kafka.model_copy(update={"dead_letter_topic": ""})
    place.settings = place.settings.model_copy(update={"kafka": kafka})
    command = ("--settings-json", str(place.file()), "dead-letters", "publish")
    done = cliplake(*command, cwd=place.folder)
    assert done.returncode == 2
    assert "kafka.dead_letter_topic" in done.stderr
