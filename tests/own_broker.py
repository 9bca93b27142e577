"""A broker of a test's own, behind a proxy that can do to it what networks do on bad days."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.local import ports
from deploy.local.broker import broker
from schemas.settings import Settings, load_settings
from tests.conftest import wait_until
from tests.tcp_proxy import TcpProxy, proxied


def broker_settings(folder: Path) -> Settings:
    """Settings of a broker on free ports that keeps its data in ``folder``."""
    port, controller_port = ports.choose(2)
    local = {"state_dir": folder, "kafka_port": port, "kafka_controller_port": controller_port}
    return load_settings(None, local={key: str(value) for key, value in local.items()})


@contextmanager
def broker_behind_proxy(settings: Settings) -> Iterator[TcpProxy]:
    """The proxy in front of the broker, which sends its clients there."""
    part = broker(settings)
    part.prepare()
    properties = part.cwd / "server.properties"
    direct = f"{ports.HOST}:{settings.local.kafka_port}"
    with proxied(settings.local.kafka_port) as running, (part.cwd / "log").open("w") as log:
        text = properties.read_text()
        advertised = "advertised.listeners=PLAINTEXT://"
        assert f"{advertised}{direct}" in text
        behind = text.replace(f"{advertised}{direct}", f"{advertised}{ports.HOST}:{running.port}")
        properties.write_text(behind)
        process = subprocess.Popen(
            part.command, cwd=part.cwd, stdout=log, stderr=log, start_new_session=True
        )
        try:
            wait_until(part.is_ready, 120)
            yield running
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
