"""A standalone Flink cluster, a JobManager and a TaskManager, from the pip package's own files."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from deploy.local import ports
from deploy.local.errors import StackError
from deploy.local.java import java
from deploy.local.parts import Part
from schemas.settings import CHECKOUT, Settings

JOBMANAGER, TASKMANAGER = "jobmanager", "taskmanager"

LOGGING = """\
rootLogger.level = ${env:ROOT_LOG_LEVEL:-INFO}
rootLogger.appenderRef.console.ref = Console
appender.console.name = Console
appender.console.type = CONSOLE
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{yyyy-MM-dd'T'HH:mm:ss.SSS} %-5p %c{1} - %m%n
logger.pekko.name = org.apache.pekko
logger.pekko.level = WARN
logger.hadoop.name = org.apache.hadoop
logger.hadoop.level = ERROR
logger.kafka.name = org.apache.kafka
logger.kafka.level = WARN
logger.netty.name = org.jboss.netty.channel.DefaultChannelPipeline
logger.netty.level = OFF
"""


def flink_parts(settings: Settings) -> list[Part]:
    """JobManager and TaskManager; the TaskManager is ready when its slots are registered."""
    home = settings.state_dir / "flink"
    package = package_dir(settings.flink_python)

    def part(name: str, ready: Any) -> Part:
        return Part(
            name=name,
            command=["/bin/bash", str(package / "bin" / f"{name}.sh"), "start-foreground"],
            environment=_environment(package, home),
            log=settings.state_dir / "logs" / f"{name}.log",
            cwd=home,
            prepare=lambda: write_configuration(settings, package, home),
            is_ready=ready,
            stop_grace_s=8.0,
        )

    def slots_are_there() -> bool:
        overview = ask_rest(settings, "/overview")
        return bool(overview and overview.get("slots-total", 0) >= settings.flink.task_slots)

    return [
        part(JOBMANAGER, lambda: ask_rest(settings, "/overview") is not None),
        part(TASKMANAGER, slots_are_there),
    ]


def ask_rest(settings: Settings, path: str) -> Any:
    """The JSON that the JobManager answers, or None while it does not."""
    url = f"http://{settings.flink.rest_address}:{settings.flink.rest_port}{path}"
    try:
        with urllib.request.urlopen(url, timeout=2.0) as answer:
            return json.load(answer)
    except (OSError, ValueError):
        return None


def package_dir(python: Path) -> Path:
    """Folder of the pyflink package in the environment of ``python``; StackError without it."""
    code = (
        "import importlib.util as u; s = u.find_spec('pyflink');"
        "print(s.submodule_search_locations[0] if s else '')"
    )
    try:
        found = subprocess.run(
            [str(python), "-c", code], capture_output=True, text=True, check=True, timeout=60
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        raise StackError(
            f"{python} cannot be run ({error}): run `make setup`, or set flink.python"
        ) from None
    if not found:
        raise StackError(f"{python} has no apache-flink: run `make setup`, or set flink.python")
    return Path(found)


def write_configuration(settings: Settings, package: Path, home: Path) -> None:
    """Configuration, links to the jars and an empty temporary folder under ``home``."""
    jars = sorted(settings.flink_jars.glob("*.jar"))
    if not jars:
        raise StackError(
            f"{settings.flink_jars} holds no connector jars: run `make setup`, or set flink.jars"
        )
    conf, lib = home / "conf", home / "lib"
    for folder in (conf, home / "log", home / "pid", home / "tmp"):
        folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(lib, ignore_errors=True)
    lib.mkdir()
    for jar in [*sorted((package / "lib").glob("*.jar")), *jars]:
        (lib / jar.name).symlink_to(jar)
    text = yaml.safe_dump(cluster_options(settings, package, home), width=10_000)
    (conf / "config.yaml").write_text(text, encoding="utf-8")
    (conf / "log4j-console.properties").write_text(LOGGING, encoding="utf-8")


def cluster_options(settings: Settings, package: Path, home: Path) -> dict[str, Any]:
    """Flink's options of this cluster; ``flink.options`` of the settings win over ours."""
    python = str(settings.flink_python)
    ours: dict[str, Any] = {
        # Java 17 keeps Flink out of its internals without the package's list of openings.
        "env.java.opts.all": _java_options(package),
        "env.java.home": str(Path(java()).resolve().parent.parent),
        "env.java.opts.jobmanager": "-XX:+UseSerialGC",
        "env.java.opts.taskmanager": "-XX:+UseSerialGC",
        "jobmanager.rpc.address": ports.HOST,
        "jobmanager.rpc.port": settings.local.flink_jobmanager_rpc_port,
        "jobmanager.bind-host": ports.HOST,
        "jobmanager.memory.process.size": "1024m",
        "taskmanager.host": ports.HOST,
        "taskmanager.bind-host": ports.HOST,
        # One name for all its lives: the JobManager drops the slots of the dead one at once.
        "taskmanager.resource-id": TASKMANAGER,
        "taskmanager.numberOfTaskSlots": settings.flink.task_slots,
        "taskmanager.memory.process.size": "2048m",
        # State is on the heap and Python's memory is its own: little is left to manage.
        "taskmanager.memory.managed.size": "256m",
        "rest.address": ports.HOST,
        "rest.bind-address": ports.HOST,
        "rest.port": settings.flink.rest_port,
        "web.submit.enable": False,
        # The list of jobs would keep ten checkpoints, and waiting for one could miss it.
        "web.checkpoints.history": 200,
        # A dead TaskManager is noticed in seconds; busy machines pause for less than this.
        "heartbeat.interval": "2 s",
        "heartbeat.timeout": "20 s",
        "io.tmp.dirs": str(home / "tmp"),
        "python.executable": python,
        "python.client.executable": python,
        "parallelism.default": settings.flink.parallelism,
    }
    return {**ours, **settings.flink.options}


def _java_options(package: Path) -> str:
    shipped = yaml.safe_load((package / "conf" / "config.yaml").read_text(encoding="utf-8"))
    return str(shipped["env"]["java"]["opts"]["all"])


def _environment(package: Path, home: Path) -> Mapping[str, str]:
    return {
        "FLINK_HOME": str(package),
        "FLINK_CONF_DIR": str(home / "conf"),
        "FLINK_LIB_DIR": str(home / "lib"),
        "FLINK_LOG_DIR": str(home / "log"),
        "FLINK_PID_DIR": str(home / "pid"),
        # The Python workers find the stages in the checkout.
        "PYTHONPATH": str(CHECKOUT),
    }
