"""Ports: a taken one is named with the setting that moves it, and chosen ones are free."""

from __future__ import annotations

import os
import socket

import pytest

from deploy.local import ports
from deploy.local.errors import StackError
from deploy.local.resolve import resolve
from schemas.settings import Settings, load_settings


@pytest.fixture
def taken() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def settings_with(tmp_path, **local: int) -> Settings:
    zeros = dict.fromkeys(
        ("kafka_port", "kafka_controller_port", "ray_port", "flink_jobmanager_rpc_port"), 0
    )
    return load_settings(
        local={"state_dir": str(tmp_path), **zeros, **local}, flink={"rest_port": 0}
    )


def test_a_taken_port_is_named_with_its_setting_and_its_holder(taken: int, tmp_path) -> None:
    with pytest.raises(StackError) as refused:
        resolve(settings_with(tmp_path, kafka_port=taken))
    text = str(refused.value)
    assert str(taken) in text
    assert "local.kafka_port" in text
    assert f"pid {os.getpid()}" in text


def test_every_problem_with_ports_is_told_at_once(taken: int, tmp_path) -> None:
    free = ports.choose(1)[0]
    with pytest.raises(StackError) as refused:
        resolve(
            settings_with(tmp_path, kafka_port=taken, ray_port=free, flink_jobmanager_rpc_port=free)
        )
    text = str(refused.value)
    assert f"port {taken} is held by" in text
    assert f"port {free} is set twice" in text


def test_zero_stands_for_different_free_ports_and_the_addresses_follow(tmp_path) -> None:
    resolved = resolve(settings_with(tmp_path))
    chosen = [*resolved.ports.values(), *resolved.ray_spare_ports]
    assert len(set(chosen)) == 8
    assert all(ports.is_free(port) for port in chosen)
    settings = resolved.settings
    assert settings.kafka.bootstrap_servers == f"127.0.0.1:{settings.local.kafka_port}"
    assert settings.pool.ray_address == f"127.0.0.1:{settings.local.ray_port}"
    assert settings.flink.rest_port == resolved.ports["flink.rest_port"]


def test_parts_that_are_not_started_here_keep_their_addresses(taken: int) -> None:
    settings = load_settings(
        local={"start_kafka": False, "start_flink": False, "start_ray": False},
        kafka={"client": {"bootstrap.servers": f"broker.example:{taken}"}},
        flink={"rest_address": "flink.example", "rest_port": taken},
        pool={"ray_address": f"ray.example:{taken}"},
    )
    resolved = resolve(settings)
    assert resolved.ports == {}
    assert resolved.settings == settings.anchored()
