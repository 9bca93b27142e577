"""TLS and SASL options of the settings let every client in, and the Java one of Flink."""

from __future__ import annotations

import ipaddress
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from kafka import KafkaConsumer
from kafka.admin import KafkaAdminClient

from deploy.local import broker as local_broker
from deploy.local import ports
from deploy.local.java import java
from ingest.kafka_client import client_options
from ingest.kafka_java import connector_options
from ingest.producer import Producer
from ingest.topic import create_topic, topic_id, topic_offsets
from schemas.problems import ConfigError, Unreachable
from schemas.settings import Settings, load_settings
from tests.conftest import wait_until

PASSWORD = 'p4ss \\ "word"'
_QUOTED = PASSWORD.replace("\\", "\\\\").replace('"', '\\"')
_MODULE = 'org.apache.kafka.common.security.{}LoginModule required username="app" password="{}";'
PLAIN = {
    "sasl.mechanism": "PLAIN",
    "sasl.jaas.config": _MODULE.format("plain.Plain", _QUOTED),
}
SCRAM = {
    "sasl.mechanism": "SCRAM-SHA-512",
    "sasl.jaas.config": _MODULE.format("scram.Scram", _QUOTED),
}

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


@dataclass
class SecuredBroker:
    """A running broker that takes nobody in without a password or a certificate."""

    ports: Mapping[str, int]
    """By security protocol."""
    ca: Path
    client: Path
    """Certificate and key of a client."""

    def settings(self, protocol: str, **options: str) -> Settings:
        tls = {
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.ca),
        }
        return load_settings(
            kafka={
                "partitions": 1,
                "client": {
                    "bootstrap.servers": f"127.0.0.1:{self.ports[protocol]}",
                    "security.protocol": protocol,
                    **(tls if protocol.endswith("SSL") else {}),
                    **options,
                },
            }
        )


class _Authority:
    """Signs certificates, as PEM: the one form that Java and Python both read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key, self._certificate = self._make("ca", None)
        self.file = folder / "ca.pem"
        self.file.write_bytes(_pem(self._certificate))

    def issue(self, name: str) -> Path:
        """A file with a key and its certificate."""
        key, certificate = self._make(name, self._key)
        file = self._folder / f"{name}.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + _pem(certificate)
        )
        return file

    def _make(
        self, name: str, issuer_key: rsa.RSAPrivateKey | None
    ) -> tuple[rsa.RSAPrivateKey, x509.Certificate]:
        key = rsa.generate_private_key(65537, 2048)
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_named(name))
            .issuer_name(_named("ca"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
                critical=False,
            )
            .add_extension(
                x509.BasicConstraints(ca=issuer_key is None, path_length=None), critical=True
            )
            .sign(issuer_key or key, hashes.SHA256())
        )
        return key, certificate


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredBroker]:
    folder = tmp_path_factory.mktemp("secured")
    authority = _Authority(folder)
    names = ("plain", "control", "SASL_PLAINTEXT", "SSL", "SASL_SSL")
    chosen = dict(zip(names, _free_ports(len(names)), strict=True))
    settings = load_settings(
        local={
            "state_dir": str(folder / "state"),
            "kafka_port": chosen["plain"],
            "kafka_controller_port": chosen["control"],
        }
    )
    part = local_broker.broker(settings)
    assert part.prepare is not None
    part.prepare()
    _secure(part.cwd / "server.properties", chosen, authority)
    part.log.parent.mkdir(parents=True, exist_ok=True)
    with part.log.open("wb") as log:
        process = subprocess.Popen(list(part.command), cwd=part.cwd, stdout=log, stderr=log)
    try:
        ready = part.is_ready
        wait_until(lambda: process.poll() is not None or ready(), 120)
        assert process.poll() is None, part.log.read_text(errors="replace")[-3000:]
        # SCRAM's passwords are kept by the broker: they are set over its unsecured listener.
        admin = KafkaAdminClient(bootstrap_servers=f"127.0.0.1:{chosen['plain']}")
        admin.alter_user_scram_credentials([_scram_user()])
        admin.close()
        yield SecuredBroker(chosen, authority.file, authority.issue("client"))
    finally:
        process.terminate()
        process.wait(60)


def _scram_user() -> object:
    from kafka.admin import ScramMechanism, UserScramCredentialUpsertion

    return UserScramCredentialUpsertion("app", ScramMechanism.SCRAM_SHA_512, PASSWORD)


def _free_ports(count: int) -> list[int]:
    import socket

    held = [socket.create_server((ports.HOST, 0)) for _ in range(count)]
    found = [server.getsockname()[1] for server in held]
    for server in held:
        server.close()
    return found


def _secure(properties: Path, chosen: Mapping[str, int], authority: _Authority) -> None:
    """Add listeners that ask who it is."""
    lines = dict(line.split("=", 1) for line in properties.read_text().splitlines())
    secured = ("SASL_PLAINTEXT", "SSL", "SASL_SSL")
    more = [f"{name}://{ports.HOST}:{chosen[name]}" for name in secured]
    lines["listeners"] = ",".join([lines["listeners"], *more])
    lines["advertised.listeners"] = ",".join([lines["advertised.listeners"], *more])
    lines["listener.security.protocol.map"] += "".join(f",{name}:{name}" for name in secured)
    lines["sasl.enabled.mechanisms"] = "PLAIN,SCRAM-SHA-512"
    escaped = _QUOTED.replace("\\", "\\\\")
    for name in ("sasl_plaintext", "sasl_ssl"):
        lines[f"listener.name.{name}.plain.sasl.jaas.config"] = (
            "org.apache.kafka.common.security.plain.PlainLoginModule required "
            f'user_app="{escaped}";'
        )
        lines[f"listener.name.{name}.scram-sha-512.sasl.jaas.config"] = (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        )
    lines |= {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(authority.issue("broker")),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(authority.file),
        "listener.name.ssl.ssl.client.auth": "required",
    }
    properties.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))


CASES = {
    "password": ("SASL_PLAINTEXT", PLAIN),
    "password, not sent": ("SASL_PLAINTEXT", SCRAM),
    "certificate": ("SSL", {}),
    "password over TLS": ("SASL_SSL", PLAIN),
    "password over TLS, not sent": ("SASL_SSL", SCRAM),
}


def _settings(secured: SecuredBroker, case: str) -> Settings:
    protocol, options = CASES[case]
    if protocol == "SSL":
        options = {"ssl.keystore.type": "PEM", "ssl.keystore.location": str(secured.client)}
    return secured.settings(protocol, **options)


@pytest.mark.e2e
@pytest.mark.parametrize("case", CASES)
def test_every_client_gets_in_by_the_settings(
    case: str, secured: SecuredBroker, tmp_path: Path
) -> None:
    settings = _settings(secured, case)
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
@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
@pytest.mark.parametrize("right", [PLAIN, SCRAM], ids=["PLAIN", "SCRAM"])
def test_a_wrong_password_is_refused_and_shown_to_nobody(
    right: dict[str, str], protocol: str, secured: SecuredBroker
) -> None:
    wrong = {**right, "sasl.jaas.config": right["sasl.jaas.config"].replace(_QUOTED, "c4n4ry")}
    settings = secured.settings(protocol, **wrong)
    with pytest.raises(Unreachable) as caught:
        create_topic(settings)
    assert "c4n4ry" not in str(caught.value)
    assert "kafka.client" in str(caught.value)


@pytest.mark.e2e
def test_without_a_certificate_nobody_gets_in(secured: SecuredBroker) -> None:
    with pytest.raises(ConfigError):
        create_topic(secured.settings("SSL"))


def test_classes_that_options_name_are_those_of_flinks_connector() -> None:
    settings = load_settings(kafka={"client": {"bootstrap.servers": "h:1", **SCRAM}})
    options = connector_options(settings)
    shaded = "org.apache.flink.kafka.shaded.org.apache.kafka.common.security.scram."
    assert options["sasl.jaas.config"].startswith(f"{shaded}ScramLoginModule required ")
    assert options["sasl.jaas.config"].endswith(f'password="{_QUOTED}";')
    assert options["bootstrap.servers"] == "h:1"
    again = load_settings(kafka={"client": options})
    assert connector_options(again) == options


def test_another_connector_is_given_the_usual_names(tmp_path: Path) -> None:
    client = {"bootstrap.servers": "h:1", **SCRAM}
    settings = load_settings(kafka={"client": client}, flink={"jars": str(tmp_path)})
    assert connector_options(settings) == client
