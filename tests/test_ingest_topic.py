"""A topic that has to be made gets what the settings say, and else what its broker gives one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kafka import KafkaAdminClient

from ingest.topic import create_topic, topic_offsets
from schemas.problems import Unreachable
from schemas.settings import Settings
from tests.own_broker import broker_settings, own_broker

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Of a broker that by itself gives a topic three replicas, and has no others to hold them."""
    wanted = broker_settings(tmp_path_factory.mktemp("broker"))
    given = {"num.partitions": "5", "default.replication.factor": "3"}
    with own_broker(wanted, lambda properties: properties.update(given)):
        yield wanted


def _with(settings: Settings, **kafka: object) -> Settings:
    return settings.model_copy(update={"kafka": settings.kafka.model_copy(update=kafka)})


def test_the_broker_decides_what_the_settings_leave_open(settings: Settings) -> None:
    with pytest.raises(Unreachable, match=r"fewer brokers.*kafka\.replication_factor"):
        create_topic(_with(settings, topic="as-the-broker-likes"))
    one_replica = _with(settings, topic="one-replica", replication_factor=1)
    assert create_topic(one_replica)
    assert len(topic_offsets(one_replica)) == 5
    assert not create_topic(one_replica)


def test_the_settings_decide_what_they_name(settings: Settings) -> None:
    named = _with(settings, topic="named", partitions=3, replication_factor=1)
    assert create_topic(named)
    admin = KafkaAdminClient(bootstrap_servers=settings.kafka.bootstrap_servers)
    (topic,) = admin.describe_topics(["named"])
    admin.close()
    assert [len(partition["replica_nodes"]) for partition in topic["partitions"]] == [1, 1, 1]
