"""A Kafka broker of one process (KRaft, loopback), from the jars that ``make setup`` brings."""

from __future__ import annotations

import shlex
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from deploy.local import ports
from deploy.local.errors import StackError
from deploy.local.java import java
from deploy.local.parts import Part
from schemas.settings import CHECKOUT, Settings

JARS = CHECKOUT / ".cache" / "jars" / "kafka"
JVM = ("-Xms128m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""A small heap, and code compiled once and simply: it starts sooner and is fast enough here."""

LOGGING = (
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.log.kafka.server=info",
)


def broker(settings: Settings) -> Part:
    """The broker on ``local.kafka_port``; its data is kept under ``<state_dir>/kafka``."""
    home = settings.state_dir / "kafka"
    port = settings.local.kafka_port
    return Part(
        name="broker",
        command=_command(home),
        log=settings.state_dir / "logs" / "broker.log",
        cwd=home,
        prepare=lambda: _prepare(home, port, settings.local.kafka_controller_port),
        is_ready=lambda: answers_metadata(f"{ports.HOST}:{port}", port),
        stop_grace_s=20.0,
    )


def answers_metadata(address: str, port: int) -> bool:
    """Whether the broker says who its members are, which it does only once it is registered."""
    if not ports.answers(port):
        return False
    try:
        admin = KafkaAdminClient(
            bootstrap_servers=address, request_timeout_ms=2_000, bootstrap_timeout_ms=2_000
        )
    except KafkaError:
        return False
    try:
        return bool(admin.describe_cluster()["brokers"])
    except KafkaError:
        return False
    finally:
        admin.close()


def _command(home: Path) -> list[str]:
    run = [java(), *JVM, *LOGGING, "-cp", f"{JARS}/*"]
    properties = str(home / "server.properties")
    server = [*run, "kafka.Kafka", properties]
    cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    # In one word: an id may begin with a hyphen, and would be taken for an option.
    named = f"--cluster-id={cluster_id}"
    format_storage = [*run, "kafka.tools.StorageTool", "format", named, "-c", properties]
    formatted = home / "data" / "meta.properties"
    # One child for both, so that there is one process to watch from the start on.
    script = (
        f"[ -e {shlex.quote(str(formatted))} ] || {shlex.join(format_storage)} || exit $?\n"
        f"exec {shlex.join(server)}"
    )
    return ["/bin/sh", "-c", script]


def _prepare(home: Path, port: int, controller_port: int) -> None:
    if not any(JARS.glob("kafka_*.jar")):
        raise StackError(f"{JARS} holds no broker: run `make setup`")
    home.mkdir(parents=True, exist_ok=True)
    listen, control = f"{ports.HOST}:{port}", f"{ports.HOST}:{controller_port}"
    properties = {
        "node.id": "1",
        "process.roles": "broker,controller",
        "listeners": f"PLAINTEXT://{listen},CONTROLLER://{control}",
        "advertised.listeners": f"PLAINTEXT://{listen}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        # Static voters: the port may be another one the next time.
        "controller.quorum.voters": f"1@{control}",
        "log.dirs": str(home / "data"),
        "auto.create.topics.enable": "false",
        "num.partitions": "2",
        # There is one broker to hold a replica, and one topic that matters.
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        # A killed broker's registration stands in the new one's way for this long.
        "broker.session.timeout.ms": "4000",
        "broker.heartbeat.interval.ms": "1000",
        "group.initial.rebalance.delay.ms": "0",
    }
    lines = [f"{key}={value}" for key, value in properties.items()]
    (home / "server.properties").write_text("\n".join(lines) + "\n", encoding="utf-8")
