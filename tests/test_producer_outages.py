"""The producer on a network that fails: what was accepted arrives once, or there is an error."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from kafka import KafkaConsumer, TopicPartition

from deploy.local import ports
from deploy.local.broker import broker
from ingest.producer import Producer
from ingest.topic import create_topic
from schemas.message import parse_message
from schemas.problems import Unreachable
from schemas.settings import Settings, load_settings
from tests.conftest import wait_until
from tests.tcp_proxy import TcpProxy, proxied

pytestmark = pytest.mark.e2e

SENT = 300


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("broker")
    port, controller_port = ports.choose(2)
    local = {"state_dir": folder, "kafka_port": port, "kafka_controller_port": controller_port}
    return load_settings(None, local={key: str(value) for key, value in local.items()})


@pytest.fixture(scope="module")
def proxy(settings: Settings) -> Iterator[TcpProxy]:
    """In front of a broker of one's own, which sends its clients there."""
    part = broker(settings)
    part.prepare()
    properties = part.cwd / "server.properties"
    direct = f"{ports.HOST}:{settings.local.kafka_port}"
    with proxied(settings.local.kafka_port) as running, (part.cwd / "log").open("w") as log:
        text = properties.read_text()
        advertised = "advertised.listeners=PLAINTEXT://"
        assert f"{advertised}{direct}" in text
        behind = text.replace(f"{advertised}{direct}", f"{advertised}{ports.HOST}:{running.port}")
        properties.write_text(behind)
        process = subprocess.Popen(
            part.command, cwd=part.cwd, stdout=log, stderr=log, start_new_session=True
        )
        try:
            wait_until(part.is_ready, 120)
            yield running
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _through(settings: Settings, proxy: TcpProxy, topic: str, **client: str) -> Settings:
    """Settings of a topic of one's own behind the proxy, with short times."""
    options = {
        "bootstrap.servers": f"{ports.HOST}:{proxy.port}",
        "request.timeout.ms": "1000",
        **{name.replace("_", "."): value for name, value in client.items()},
    }
    kafka = settings.kafka.model_copy(update={"topic": topic, "client": options, "partitions": 1})
    changed = settings.model_copy(update={"kafka": kafka})
    create_topic(changed)
    return changed


def _arrived(settings: Settings, direct: int) -> list[str]:
    """The URIs on the topic, in order, read past the proxy's back once it passes bytes on."""
    topic = settings.kafka.topic
    consumer = KafkaConsumer(bootstrap_servers=f"{ports.HOST}:{direct}", enable_auto_commit=False)
    try:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        consumer.seek_to_beginning(partition)
        end = consumer.end_offsets([partition])[partition]
        uris: list[str] = []
        while consumer.position(partition) < end:
            for records in consumer.poll(timeout_ms=500).values():
                uris += [parse_message(record.value)[0].uri for record in records]
        return uris
    finally:
        consumer.close(autocommit=False)


def _crawl(proxy: TcpProxy) -> None:
    proxy.bytes_per_s = 200


@pytest.mark.parametrize("breaks", [TcpProxy.reset, TcpProxy.silence, TcpProxy.refuse, _crawl])
def test_what_is_sent_while_the_network_fails_for_a_while_arrives_once_and_in_order(
    breaks: Callable[[TcpProxy], None], settings: Settings, proxy: TcpProxy
) -> None:
    wanted = _through(settings, proxy, f"while{breaks.__name__}".replace("_", "-"))
    uris = [f"file:///videos/{number}.mp4" for number in range(SENT)]
    with Producer(wanted) as producer:
        for number, uri in enumerate(uris):
            if number == SENT // 3:
                breaks(proxy)
                threading.Timer(2.0, proxy.mend).start()
            producer.send(uri)
            time.sleep(0.002)
        producer.flush()
        assert producer.sent == SENT
    assert _arrived(wanted, settings.local.kafka_port) == uris


def test_a_broker_that_stays_silent_is_an_error_within_the_time_that_was_given(
    settings: Settings, proxy: TcpProxy
) -> None:
    wanted = _through(settings, proxy, "silent", delivery_timeout_ms="2000")
    producer = Producer(wanted)
    producer.send("file:///videos/first.mp4")
    producer.flush()
    proxy.mode = "silent"
    try:
        producer.send("file:///videos/second.mp4")
        with pytest.raises(Unreachable, match="is the broker running"):
            producer.flush()
        assert producer.sent == 1
    finally:
        proxy.mend()
        producer.close()
