"""Reading the dead-letter topic, as somebody who subscribes to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from schemas.settings import KafkaSettings


def records(kafka: KafkaSettings) -> list[Any]:
    """Everything on ``kafka.dead_letter_topic``, by partition and offset."""
    consumer = KafkaConsumer(
        bootstrap_servers=kafka.client["bootstrap.servers"], enable_auto_commit=False
    )
    try:
        numbers = consumer.partitions_for_topic(kafka.dead_letter_topic) or ()
        partitions = [TopicPartition(kafka.dead_letter_topic, n) for n in sorted(numbers)]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        ends = consumer.end_offsets(partitions)
        found: list[Any] = []
        while any(consumer.position(p) < end for p, end in ends.items()):
            for some in consumer.poll(timeout_ms=500).values():
                found += some
        return found
    finally:
        consumer.close(autocommit=False)


def headers_of(record: Any) -> Mapping[str, str]:
    return {name: value.decode() for name, value in record.headers}
