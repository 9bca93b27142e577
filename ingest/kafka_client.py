"""kafka-python by the Java client's dotted option names, which is how people know Kafka's options.

Flink's Kafka source takes the same options as they are; this is for our own processes: the
producer, the topic's administration and the accounts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError

from schemas.problems import ConfigError, Unreachable, nearest
from schemas.settings import KafkaSettings

CONNECT_TIMEOUT_MS = 10_000
"""How long a client tries to find a first broker; a wrong address is known within this time."""

_KINDS: dict[str, Any] = {
    "producer": KafkaProducer,
    "consumer": KafkaConsumer,
    "admin": KafkaAdminClient,
}

# Java's names that are not kafka-python's with dots for underscores.
_RENAMED = {
    "ssl.key.password": "ssl_password",
    "ssl.truststore.location": "ssl_cafile",
    "ssl.keystore.location": "ssl_certfile",
    "ssl.cipher.suites": "ssl_ciphers",
}
_STORES = {"ssl.truststore.type", "ssl.keystore.type"}
_HOSTNAME_CHECK = "ssl.endpoint.identification.algorithm"
_JAAS = "sasl.jaas.config"
_NOT_PYTHON = {"key_serializer", "value_serializer", "kafka_client", "selector", "partitioner"}
_JAAS_PATTERN = re.compile(r'\b(username|password)\s*=\s*"((?:[^"\\]|\\.)*)"')


def client_options(kafka: KafkaSettings, kind: str) -> dict[str, Any]:
    """Arguments for kafka-python's ``producer``, ``consumer`` or ``admin`` client.

    An option that only another kind of client has is left out; one that kafka-python lacks
    altogether is a `ConfigError` that names it.
    """
    options: dict[str, Any] = {"bootstrap_timeout_ms": CONNECT_TIMEOUT_MS}
    known = _defaults(kind)
    for name, text in kafka.client.items():
        for key, value in _translate(name, text):
            if key in known:
                options[key] = value
    options["bootstrap_servers"] = [
        server.strip() for server in kafka.bootstrap_servers.split(",") if server.strip()
    ]
    return options


@contextmanager
def explained(kafka: KafkaSettings) -> Iterator[None]:
    """Turn kafka-python's errors into a `ConfigError` that says where and what to look at.

    It is `Unreachable` unless the options themselves are wrong.
    """
    try:
        yield
    except (KafkaError, OSError, AssertionError, ValueError) as error:
        where = f"Kafka at {kafka.bootstrap_servers}, topic {kafka.topic}"
        detail = str(error) or type(error).__name__
        kind = Unreachable if isinstance(error, (KafkaError, OSError)) else ConfigError
        raise kind(
            f"{where}: {detail}; is the broker running and kafka.client in the settings right?"
        ) from error


@cache
def _defaults(kind: str) -> dict[str, Any]:
    config: dict[str, Any] = _KINDS[kind].DEFAULT_CONFIG
    return {key: value for key, value in config.items() if key not in _NOT_PYTHON}


@cache
def _all_defaults() -> dict[str, Any]:
    return {key: value for kind in _KINDS for key, value in _defaults(kind).items()}


def _translate(name: str, text: str) -> list[tuple[str, Any]]:
    """kafka-python's names and values for one option of the Java client."""
    if name == _JAAS:
        return _from_jaas(text)
    if name in _STORES:
        if text.upper() != "PEM":
            raise ConfigError(
                f"kafka.client: {name} = {text}: only PEM files can be read by every part; "
                "export the store to PEM"
            )
        return []
    if name == _HOSTNAME_CHECK:
        return [("ssl_check_hostname", bool(text.strip()))]
    if name in _RENAMED:
        renamed = _RENAMED[name]
        return [(renamed, _typed(name, text, renamed))]
    key = name.replace(".", "_")
    if key not in _all_defaults():
        raise ConfigError(
            f"kafka.client: kafka-python has no option {name!r}"
            + nearest(name, [known.replace("_", ".") for known in _all_defaults()])
        )
    return [(key, _typed(name, text, key))]


def _typed(name: str, text: str, key: str) -> Any:
    default = _all_defaults().get(key)
    try:
        if key == "acks":
            return text if text == "all" else int(text)
        if isinstance(default, bool):
            if text.lower() not in ("true", "false"):
                raise ValueError("true or false was expected")
            return text.lower() == "true"
        if isinstance(default, int) or (default is None and key.endswith(("_ms", "_bytes"))):
            return int(text)
        if isinstance(default, float):
            return float(text)
    except ValueError as error:
        raise ConfigError(f"kafka.client: {name} = {text!r}: {error}") from None
    return text


def _from_jaas(text: str) -> list[tuple[str, Any]]:
    found = {key: re.sub(r"\\(.)", r"\1", value) for key, value in _JAAS_PATTERN.findall(text)}
    if "username" not in found or "password" not in found:
        # The value itself may be a secret: it is not repeated.
        raise ConfigError(
            f'kafka.client: {_JAAS} has no username="…" and password="…"; only PLAIN and SCRAM '
            "logins can be used by every part"
        )
    return [("sasl_plain_username", found["username"]), ("sasl_plain_password", found["password"])]
