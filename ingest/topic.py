"""The topic: made if it is missing, told apart from another of the same name, and measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.errors import InvalidReplicationFactorError, TopicAlreadyExistsError

from ingest.kafka_client import client_options, explained
from schemas.problems import ConfigError, Unreachable
from schemas.settings import Settings

_BROKERS_DEFAULT = -1
"""In a request to make a topic (KIP-464; Kafka 2.4)."""


@dataclass(frozen=True)
class PartitionOffsets:
    """Offsets of one partition: of the first record still there, and of the next one to come."""

    begin: int
    end: int


def create_topic(settings: Settings) -> bool:
    """Make the topic; False if it was there already.

    What the settings leave open, of partitions and replicas, the broker decides. `Unreachable` if
    there are too few brokers to hold the replicas.
    """
    kafka = settings.kafka
    wanted = {
        "num_partitions": kafka.partitions or _BROKERS_DEFAULT,
        "replication_factor": kafka.replication_factor or _BROKERS_DEFAULT,
    }
    with explained(kafka), _admin(settings) as admin:
        try:
            admin.create_topics({kafka.topic: wanted})
        except TopicAlreadyExistsError:
            return False
        except InvalidReplicationFactorError:
            factor = kafka.replication_factor or "the broker's default"
            raise Unreachable(
                f"Kafka at {kafka.bootstrap_servers}: topic {kafka.topic} cannot be made, since "
                f"there are fewer brokers than it is to have replicas ({factor}); start those that "
                "are missing, or set a smaller kafka.replication_factor"
            ) from None
    return True


def topic_id(settings: Settings) -> str:
    """The broker's id of the topic, another one after it was deleted and made again.

    `ConfigError` if the topic is not there.
    """
    kafka = settings.kafka
    with explained(kafka), _admin(settings) as admin:
        found: list[dict[str, Any]] = admin.describe_topics([kafka.topic])
    if not found or found[0].get("error_code"):
        raise ConfigError(
            f"topic {kafka.topic} is not on Kafka at {kafka.bootstrap_servers}; "
            "`cliplake up` makes it, or name another in the settings (kafka.topic)"
        )
    return str(found[0].get("topic_id", ""))


def topic_offsets(settings: Settings) -> dict[int, PartitionOffsets]:
    """Begin and end offsets of every partition; `ConfigError` if the topic is not there."""
    kafka = settings.kafka
    with explained(kafka):
        consumer = KafkaConsumer(**client_options(kafka, "consumer"), enable_auto_commit=False)
        try:
            numbers = consumer.partitions_for_topic(kafka.topic)
            if not numbers:
                raise ConfigError(
                    f"topic {kafka.topic} is not on Kafka at {kafka.bootstrap_servers}"
                )
            partitions = [TopicPartition(kafka.topic, number) for number in sorted(numbers)]
            begin = consumer.beginning_offsets(partitions)
            end = consumer.end_offsets(partitions)
        finally:
            consumer.close(autocommit=False)
    return {p.partition: PartitionOffsets(begin[p], end[p]) for p in partitions}


class _admin:  # noqa: N801 - a context manager, used like a function
    def __init__(self, settings: Settings) -> None:
        self._options = client_options(settings.kafka, "admin")

    def __enter__(self) -> Any:
        self._client = KafkaAdminClient(**self._options)
        return self._client

    def __exit__(self, *error: object) -> None:
        self._client.close()
