"""The producer on a network that fails: what was accepted arrives once, or there is an error."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import NewTopic

from deploy.local import ports
from ingest.producer import NotAcknowledged, Producer, RecordTooLarge
from ingest.topic import create_topic
from schemas.message import parse_message
from schemas.problems import Unreachable
from schemas.replay import MessageName, Replay, new_replay_id
from schemas.settings import Settings, load_settings
from tests.own_broker import broker_behind_proxy
from tests.tcp_proxy import TcpProxy

pytestmark = pytest.mark.e2e

SENT = 300


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TcpProxy]:
    with broker_behind_proxy(tmp_path_factory.mktemp("broker")) as running:
        yield running


def _through(proxy: TcpProxy, topic: str, **client: str) -> Settings:
    """Settings of a topic of one's own behind the proxy, with short times."""
    options = {
        "bootstrap.servers": f"{ports.HOST}:{proxy.port}",
        "request.timeout.ms": "1000",
        **{name.replace("_", "."): value for name, value in client.items()},
    }
    settings = load_settings(None, kafka={"topic": topic, "client": options, "partitions": 1})
    create_topic(settings)
    return settings


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
    breaks: Callable[[TcpProxy], None], proxy: TcpProxy
) -> None:
    wanted = _through(proxy, f"while{breaks.__name__}".replace("_", "-"))
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
    assert _arrived(wanted, proxy.to_port) == uris


def test_a_broker_that_stays_silent_is_an_error_within_the_time_that_was_given(
    proxy: TcpProxy,
) -> None:
    wanted = _through(proxy, "silent", delivery_timeout_ms="2000")
    producer = Producer(wanted)
    producer.send("file:///videos/first.mp4")
    producer.flush()
    proxy.mode = "silent"
    try:
        for name in ("second", "third"):
            producer.send(f"file:///videos/{name}.mp4")
        with pytest.raises(Unreachable, match=r"2 of 2 records were not.*is the broker running"):
            producer.flush()
        assert producer.sent == 1
    finally:
        proxy.mend()
        producer.close()


def test_records_behind_one_that_failed_are_counted(proxy: TcpProxy) -> None:
    # Both partitions are sent in one request, and one has a record that the topic does not take.
    client = {"bootstrap.servers": f"{ports.HOST}:{proxy.port}", "linger.ms": "500"}
    wanted = load_settings(None, kafka={"topic": "small", "client": client})
    admin = KafkaAdminClient(bootstrap_servers=client["bootstrap.servers"])
    admin.create_topics([NewTopic("small", 2, 1, topic_configs={"max.message.bytes": "1000"})])
    admin.close()
    with Producer(wanted) as producer:
        for partition, size in ((1, 5000), (0, 10), (0, 10)):
            of = MessageName("small", partition, 0)
            producer.send_again(os.urandom(size), Replay(new_replay_id(), of))
        with pytest.raises(NotAcknowledged, match=r"1 of 3 records were not .*TooLarge") as caught:
            producer.flush()
        assert caught.value.too_large
        assert producer.sent == 2


def test_a_record_that_the_client_does_not_send_is_named_at_once(proxy: TcpProxy) -> None:
    with Producer(_through(proxy, "large")) as producer:
        with pytest.raises(RecordTooLarge, match="2000"):
            producer.send_raw(bytes(2_000_000))
        producer.send("file:///videos/first.mp4")
        producer.flush()
        assert producer.sent == 1
