"""Kafka's options as Flink's connector takes them. kafka-python's are `ingest.kafka_client`.

The SQL connector carries Kafka's Java client under another package name, and looks for the
classes that options name (login modules, callback handlers) as they are written: by their usual
names it would not find them.
"""

from __future__ import annotations

import re

from schemas.settings import Settings

_SHADED = "org.apache.flink.kafka.shaded."
_KAFKA_CLASS = re.compile(r"(?<![\w.])org\.apache\.kafka\.[\w.]*[A-Z]\w*")
_SQL_CONNECTOR = "flink-sql-connector-kafka-*.jar"


def connector_options(settings: Settings) -> dict[str, str]:
    """``kafka.client`` of the settings, its classes by the names that the connector has."""
    client = settings.kafka.client
    if not any(settings.flink_jars.glob(_SQL_CONNECTOR)):
        return dict(client)
    return {name: _KAFKA_CLASS.sub(rf"{_SHADED}\g<0>", text) for name, text in client.items()}
