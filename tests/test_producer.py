"""The producer's options come by the Java client's names, and its errors say where and what."""

from __future__ import annotations

import socket

import pytest

from ingest.kafka_client import client_options
from ingest.producer import Producer
from schemas.problems import ConfigError
from schemas.settings import KafkaSettings, load_settings


def kafka(**client: str) -> KafkaSettings:
    dotted = {name.replace("__", "."): value for name, value in client.items()}
    return KafkaSettings(client={"bootstrap.servers": "a:1, b:2", **dotted})


def test_dotted_names_become_typed_arguments() -> None:
    options = client_options(
        kafka(linger__ms="20", security__protocol="SASL_SSL", client__id="me", acks="all"),
        "producer",
    )
    assert options["bootstrap_servers"] == ["a:1", "b:2"]
    assert options["linger_ms"] == 20
    assert options["security_protocol"] == "SASL_SSL"
    assert options["client_id"] == "me"
    assert options["acks"] == "all"


def test_pem_files_and_the_host_name_check_have_names_of_their_own() -> None:
    options = client_options(
        kafka(
            ssl__truststore__type="PEM",
            ssl__truststore__location="/ca.pem",
            ssl__keystore__location="/me.pem",
            ssl__key__password="secret",
            ssl__endpoint__identification__algorithm="",
        ),
        "consumer",
    )
    assert options["ssl_cafile"] == "/ca.pem"
    assert options["ssl_certfile"] == "/me.pem"
    assert options["ssl_password"] == "secret"
    assert options["ssl_check_hostname"] is False


def test_a_java_login_gives_user_and_password() -> None:
    login = (
        "org.apache.kafka.common.security.scram.ScramLoginModule required "
        'username="al\\"ice" password="p\\\\w";'
    )
    options = client_options(
        kafka(sasl__mechanism="SCRAM-SHA-512", sasl__jaas__config=login), "admin"
    )
    assert options["sasl_plain_username"] == 'al"ice'
    assert options["sasl_plain_password"] == "p\\w"
    assert options["sasl_mechanism"] == "SCRAM-SHA-512"


def test_a_login_that_cannot_be_read_is_refused_without_repeating_it() -> None:
    with pytest.raises(ConfigError, match=r"sasl\.jaas\.config") as caught:
        client_options(kafka(sasl__jaas__config="Krb5LoginModule keyTab=hush"), "producer")
    assert "hush" not in str(caught.value)


def test_an_option_of_another_kind_of_client_is_left_out() -> None:
    options = client_options(kafka(max__poll__records="7"), "producer")
    assert "max_poll_records" not in options
    assert client_options(kafka(max__poll__records="7"), "consumer")["max_poll_records"] == 7


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("linger__millis", "5", r"no option 'linger\.millis'; did you mean 'linger\.ms'"),
        ("socket__connection__setup__timeout__ms", "5", "no option 'socket.connection.setup"),
        ("linger__ms", "soon", r"linger\.ms = 'soon'"),
        ("enable__auto__commit", "maybe", "true or false"),
        ("ssl__truststore__type", "JKS", "PEM"),
    ],
)
def test_what_kafka_python_cannot_do_is_named(name: str, value: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        client_options(kafka(**{name: value}), "producer")


def test_a_missing_broker_is_one_clear_error() -> None:
    with socket.socket() as taken:
        # Bound and not listening: every connection is refused.
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        settings = load_settings(
            None, kafka={"client": {"bootstrap.servers": address, "bootstrap.timeout.ms": "500"}}
        )
        with pytest.raises(ConfigError, match=rf"{address}.*is the broker running"):
            Producer(settings)
