"""A broker of a test's own, also behind a proxy that can do to it what networks do on bad days."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
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
    return load_settings(
        None,
        local={
            "state_dir": str(folder),
            "kafka_port": port,
            "kafka_controller_port": controller_port,
        },
        kafka={"client": {"bootstrap.servers": f"{ports.HOST}:{port}"}},
    )


@contextmanager
def own_broker(
    settings: Settings, change: Callable[[dict[str, str]], object] = lambda properties: None
) -> Iterator[None]:
    """The broker of these settings, after ``change`` of its properties."""
    part = broker(settings)
    part.prepare()
    file, log = part.cwd / "server.properties", part.cwd / "log"
    properties = dict(line.split("=", 1) for line in file.read_text().splitlines())
    change(properties)
    file.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
    with log.open("w") as output:
        process = subprocess.Popen(
            part.command, cwd=part.cwd, stdout=output, stderr=output, start_new_session=True
        )
    try:
        wait_until(lambda: process.poll() is not None or part.is_ready(), 120)
        assert process.poll() is None, log.read_text(errors="replace")[-3000:]
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def broker_behind_proxy(folder: Path) -> Iterator[TcpProxy]:
    """The proxy in front of a broker with its data in ``folder``, which sends its clients there."""
    settings = broker_settings(folder)
    with proxied(settings.local.kafka_port) as proxy:
        behind = {"advertised.listeners": f"PLAINTEXT://{ports.HOST}:{proxy.port}"}
        with own_broker(settings, lambda properties: properties.update(behind)):
            yield proxy
