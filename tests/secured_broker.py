"""A broker that lets nobody in without a password or a certificate, and the options that do."""

from __future__ import annotations

import ipaddress
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

from deploy.local import ports
from tests.own_broker import broker_settings, own_broker

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

_SECURED = ("SASL_PLAINTEXT", "SSL", "SASL_SSL")


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
    settings = broker_settings(folder)
    taken = (settings.local.kafka_port, settings.local.kafka_controller_port)
    chosen = dict(zip(_SECURED, ports.choose(len(_SECURED), but=taken), strict=True))
    with own_broker(settings, lambda properties: _secure(properties, chosen, authority)):
        # SCRAM's passwords are kept by the broker: they are set over its unsecured listener.
        admin = KafkaAdminClient(bootstrap_servers=settings.kafka.bootstrap_servers)
        admin.alter_user_scram_credentials([_scram_user()])
        admin.close()
        yield SecuredBroker(chosen, authority.file, authority.issue("client"))


def _scram_user() -> object:
    return UserScramCredentialUpsertion("app", ScramMechanism.SCRAM_SHA_512, PASSWORD)


def _secure(lines: dict[str, str], chosen: Mapping[str, int], authority: _Authority) -> None:
    """Add listeners that ask who it is."""
    more = [f"{name}://{ports.HOST}:{chosen[name]}" for name in _SECURED]
    lines["listeners"] = ",".join([lines["listeners"], *more])
    lines["advertised.listeners"] = ",".join([lines["advertised.listeners"], *more])
    lines["listener.security.protocol.map"] += "".join(f",{name}:{name}" for name in _SECURED)
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
