"""A broker that lets nobody in without a password or a certificate, and the options that do."""

from __future__ import annotations

import ipaddress
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from kafka.admin import KafkaAdminClient, ScramMechanism, UserScramCredentialUpsertion

from deploy.local import broker as local_broker
from deploy.local import ports
from schemas.settings import load_settings
from tests.conftest import wait_until

CANARY = "c4n4ry-5d2e"
PASSWORD = f'{CANARY} \\ "word"'
QUOTED = PASSWORD.replace("\\", "\\\\").replace('"', '\\"')
_MODULE = 'org.apache.kafka.common.security.{}LoginModule required username="app" password="{}";'
PLAIN = {
    "sasl.mechanism": "PLAIN",
    "sasl.jaas.config": _MODULE.format("plain.Plain", QUOTED),
}
SCRAM = {
    "sasl.mechanism": "SCRAM-SHA-512",
    "sasl.jaas.config": _MODULE.format("scram.Scram", QUOTED),
}


@dataclass
class SecuredBroker:
    """A running broker that takes nobody in without a password or a certificate."""

    ports: Mapping[str, int]
    """By security protocol."""
    ca: Path
    certificate: Path
    """Certificate and key of a client."""

    def client(self, protocol: str, **options: str) -> dict[str, str]:
        """``kafka.client`` of the settings, by which one gets in with the right ``options``."""
        tls = {
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.ca),
        }
        return {
            "bootstrap.servers": f"{ports.HOST}:{self.ports[protocol]}",
            "security.protocol": protocol,
            **(tls if protocol.endswith("SSL") else {}),
            **options,
        }


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


@contextmanager
def secured_broker(folder: Path) -> Iterator[SecuredBroker]:
    """The broker, with its data and certificates in ``folder``."""
    authority = _Authority(folder)
    names = ("plain", "control", "SASL_PLAINTEXT", "SSL", "SASL_SSL")
    chosen = dict(zip(names, ports.choose(len(names)), strict=True))
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
    return UserScramCredentialUpsertion("app", ScramMechanism.SCRAM_SHA_512, PASSWORD)


def _secure(properties: Path, chosen: Mapping[str, int], authority: _Authority) -> None:
    """Add listeners that ask who it is."""
    lines = dict(line.split("=", 1) for line in properties.read_text().splitlines())
    secured = ("SASL_PLAINTEXT", "SSL", "SASL_SSL")
    more = [f"{name}://{ports.HOST}:{chosen[name]}" for name in secured]
    lines["listeners"] = ",".join([lines["listeners"], *more])
    lines["advertised.listeners"] = ",".join([lines["advertised.listeners"], *more])
    lines["listener.security.protocol.map"] += "".join(f",{name}:{name}" for name in secured)
    lines["sasl.enabled.mechanisms"] = "PLAIN,SCRAM-SHA-512"
    escaped = QUOTED.replace("\\", "\\\\")
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
