"""From the settings of a person to those of a running stack: which ports, which addresses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deploy.local import ports
from schemas.settings import Settings

RAY_SPARE_PORTS = 3


@dataclass(frozen=True)
class Resolved:
    """What the parts are started with."""

    settings: Settings
    """The real ports, and the addresses of what is started here."""
    ports: Mapping[str, int]
    """Setting → port, of the parts that are started here."""
    ray_spare_ports: tuple[int, int, int]


def resolve(settings: Settings) -> Resolved:
    """Choose a port wherever the settings say 0; StackError if a named one is not free."""
    local = settings.local
    wanted: dict[str, int] = {}
    if local.start_kafka:
        wanted["local.kafka_port"] = local.kafka_port
        wanted["local.kafka_controller_port"] = local.kafka_controller_port
    if local.start_flink:
        wanted["flink.rest_port"] = settings.flink.rest_port
        wanted["local.flink_jobmanager_rpc_port"] = local.flink_jobmanager_rpc_port
    if local.start_ray:
        wanted["local.ray_port"] = local.ray_port
    ports.require_free({name: port for name, port in wanted.items() if port})
    unset = [name for name, port in wanted.items() if not port]
    taken = set(wanted.values())
    free = ports.choose(len(unset) + RAY_SPARE_PORTS, but=taken)
    real = {**wanted, **dict(zip(unset, free, strict=False))}
    first, second, third = free[-RAY_SPARE_PORTS:]
    return Resolved(_with(settings, real), real, (first, second, third))


def _with(settings: Settings, real: Mapping[str, int]) -> Settings:
    """The settings with these ports, and what follows from them."""
    by_section: dict[str, dict[str, object]] = {"local": {}, "flink": {}, "pool": {}, "kafka": {}}
    for name, port in real.items():
        section, key = name.split(".")
        by_section[section][key] = port
    if settings.local.start_kafka:
        servers = f"{ports.HOST}:{real['local.kafka_port']}"
        by_section["kafka"]["client"] = {**settings.kafka.client, "bootstrap.servers": servers}
    if settings.local.start_flink:
        by_section["flink"]["rest_address"] = ports.HOST
    if settings.local.start_ray:
        by_section["pool"]["ray_address"] = f"{ports.HOST}:{real['local.ray_port']}"
    # Relative paths are from where this process runs; its children run elsewhere.
    anchored = settings.anchored()
    changed = {
        section: getattr(anchored, section).model_copy(update=values)
        for section, values in by_section.items()
    }
    return anchored.model_copy(update=changed)
