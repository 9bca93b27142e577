"""Settings of a stack that gets in nobody's way."""

from __future__ import annotations

from pathlib import Path

from schemas.settings import Settings, load_settings


def free_port_settings(folder: Path, *sections: dict[str, dict[str, object]]) -> Settings:
    """Settings of a stack in ``folder`` on free ports; of ``sections`` the later ones win."""
    values: dict[str, dict[str, object]] = {
        "local": {
            "state_dir": str(folder / "state"),
            "kafka_port": 0,
            "kafka_controller_port": 0,
            "ray_port": 0,
            "flink_jobmanager_rpc_port": 0,
        },
        "flink": {"rest_port": 0},
    }
    for some in sections:
        for section, more in some.items():
            values[section] = {**values.get(section, {}), **more}
    return load_settings(None, **values)
