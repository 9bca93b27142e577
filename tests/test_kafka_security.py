"""TLS and SASL options of the settings let every client in, and the Java one of Flink."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from kafka import KafkaConsumer

from benchmarks.cluster import benchmark_settings, flink_cluster
from deploy.local import broker as local_broker
from deploy.local.java import java
from ingest.client import submit_jobs
from ingest.kafka_client import client_options
from ingest.kafka_java import connector_options
from ingest.producer import Producer
from ingest.topic import create_topic, topic_id, topic_offsets
from processors.pool.lake import Lake
from schemas.problems import ConfigError, Unreachable
from schemas.settings import Settings, load_settings
from tests.canary import arguments_with, files_with
from tests.conftest import wait_until
from tests.secured_broker import CANARY, PLAIN, QUOTED, SCRAM, SecuredBroker, secured_broker

READER = """
import java.io.FileReader;
import java.time.Duration;
import java.util.*;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.TopicPartition;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.serialization.ByteArrayDeserializer;

public class Reader {
    public static void main(String[] arguments) throws Exception {
        Properties options = new Properties();
        options.load(new FileReader(arguments[0]));
        var bytes = new ByteArrayDeserializer();
        try (var consumer = new KafkaConsumer<byte[], byte[]>(options, bytes, bytes)) {
            var partition = new TopicPartition(arguments[1], 0);
            var ends = consumer.endOffsets(List.of(partition), Duration.ofSeconds(60));
            System.out.println("end " + ends.get(partition));
        }
    }
}
"""
"""Reads with the client that Flink's connector holds; a Java file is a program of its own."""


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredBroker]:
    with secured_broker(tmp_path_factory.mktemp("secured")) as running:
        yield running


CASES = {
    "password": ("SASL_PLAINTEXT", PLAIN),
    "password, not sent": ("SASL_PLAINTEXT", SCRAM),
    "certificate": ("SSL", {}),
    "password over TLS": ("SASL_SSL", PLAIN),
    "password over TLS, not sent": ("SASL_SSL", SCRAM),
}


def _settings(secured: SecuredBroker, protocol: str, **options: str) -> Settings:
    return load_settings(kafka={"partitions": 1, "client": secured.client(protocol, **options)})


@pytest.mark.e2e
@pytest.mark.parametrize("case", CASES)
def test_every_client_gets_in_by_the_settings(
    case: str, secured: SecuredBroker, tmp_path: Path
) -> None:
    protocol, options = CASES[case]
    if protocol == "SSL":
        options = {"ssl.keystore.type": "PEM", "ssl.keystore.location": str(secured.certificate)}
    settings = _settings(secured, protocol, **options)
    kafka = settings.kafka.model_copy(update={"topic": f"topic-{list(CASES).index(case)}"})
    settings = settings.model_copy(update={"kafka": kafka})
    assert create_topic(settings)
    assert topic_id(settings)
    with Producer(settings) as producer:
        producer.send("file:///v.mp4")
    assert producer.sent == 1
    assert [(o.begin, o.end) for o in topic_offsets(settings).values()] == [(0, 1)]
    consumer = KafkaConsumer(
        kafka.topic,
        **client_options(kafka, "consumer"),
        auto_offset_reset="earliest",
        consumer_timeout_ms=20_000,
    )
    assert b"file:///v.mp4" in next(consumer).value
    consumer.close()
    assert _end_by_java(settings, tmp_path) == "end 1"


def _end_by_java(settings: Settings, folder: Path) -> str:
    """What the Java client in Flink's connector says, given the options that Flink gives it."""
    source, options = folder / "Reader.java", folder / "options.properties"
    source.write_text(READER)
    escaped = {k: v.replace("\\", "\\\\") for k, v in connector_options(settings).items()}
    options.write_text("".join(f"{name}={value}\n" for name, value in escaped.items()))
    logging = [*local_broker.JARS.glob("slf4j-*.jar")]
    jars = [*settings.flink_jars.glob("flink-sql-connector-kafka-*.jar"), *logging]
    done = subprocess.run(
        [java(), "-cp", ":".join(map(str, jars)), str(source), str(options), settings.kafka.topic],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


@pytest.mark.e2e
def test_the_arrivals_job_gets_in_by_the_settings_and_shows_the_password_to_nobody(
    secured: SecuredBroker, tmp_path: Path
) -> None:
    settings = benchmark_settings(
        tmp_path,
        kafka={"topic": "arrivals", "client": secured.client("SASL_SSL", **SCRAM)},
        local={"start_kafka": False},
        flink={"checkpoint_interval_s": 1.0},
    )
    with flink_cluster(settings) as cluster, ThreadPoolExecutor(1) as executor:
        with Producer(cluster.settings) as producer:
            key = producer.send("file:///v.mp4")
            producer.send_raw(b"junk")
        submission = executor.submit(submit_jobs, cluster.settings, only="arrivals")
        while not submission.done():
            assert not arguments_with(CANARY)
            time.sleep(0.2)
        submission.result()
        lake = Lake(cluster.settings)
        wait_until(lambda: all(map(lake.latest_snapshot_id, ("videos", "rejected_messages"))), 180)
        assert not arguments_with(CANARY)
        assert not files_with(CANARY, tmp_path)
    assert lake.read("videos", ["video_key"]).to_pylist() == [{"video_key": key}]
    assert lake.read("rejected_messages", ["payload"]).to_pylist() == [{"payload": b"junk"}]
    # What was looked through holds the logs, a checkpoint, and the lake.
    for name in ("jobmanager.log", "taskmanager.log", "submit-jobs.log", "_metadata", "*.parquet"):
        assert [*tmp_path.rglob(name)], name


@pytest.mark.e2e
@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
@pytest.mark.parametrize("right", [PLAIN, SCRAM], ids=["PLAIN", "SCRAM"])
def test_a_wrong_password_is_refused_and_shown_to_nobody(
    right: dict[str, str], protocol: str, secured: SecuredBroker
) -> None:
    wrong = {**right, "sasl.jaas.config": right["sasl.jaas.config"].replace(QUOTED, CANARY)}
    settings = _settings(secured, protocol, **wrong)
    with pytest.raises(Unreachable) as caught:
        create_topic(settings)
    assert CANARY not in str(caught.value)
    assert "kafka.client" in str(caught.value)


@pytest.mark.e2e
def test_without_a_certificate_nobody_gets_in(secured: SecuredBroker) -> None:
    with pytest.raises(ConfigError):
        create_topic(_settings(secured, "SSL"))


def test_classes_that_options_name_are_those_of_flinks_connector() -> None:
    settings = load_settings(kafka={"client": {"bootstrap.servers": "h:1", **SCRAM}})
    options = connector_options(settings)
    shaded = "org.apache.flink.kafka.shaded.org.apache.kafka.common.security.scram."
    assert options["sasl.jaas.config"].startswith(f"{shaded}ScramLoginModule required ")
    assert options["sasl.jaas.config"].endswith(f'password="{QUOTED}";')
    assert options["bootstrap.servers"] == "h:1"
    again = load_settings(kafka={"client": options})
    assert connector_options(again) == options


def test_another_connector_is_given_the_usual_names(tmp_path: Path) -> None:
    client = {"bootstrap.servers": "h:1", **SCRAM}
    settings = load_settings(kafka={"client": client}, flink={"jars": str(tmp_path)})
    assert connector_options(settings) == client
