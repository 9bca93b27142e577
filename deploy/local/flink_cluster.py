"""A standalone Flink cluster, a JobManager and its TaskManagers, from the pip package's files."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from deploy.local import ports
from deploy.local.errors import StackError
from deploy.local.java import java
from deploy.local.parts import Part
from deploy.local.private_files import write_private
from deploy.local.processes import last_lines
from schemas.settings import CHECKOUT, Settings

JOBMANAGER, TASKMANAGER = "jobmanager", "taskmanager"

JOBMANAGER_MAIN = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
TASKMANAGER_MAIN = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"

# Compiled once and simply: the JobManager does little, and starts sooner.
JOBMANAGER_JVM = (
    "-Xmx448m",
    "-XX:MaxMetaspaceSize=256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
)
TASKMANAGER_JVM = (
    "-Xmx896m",  # framework.heap + task.heap below
    "-XX:MaxDirectMemorySize=320m",  # framework.off-heap + task.off-heap + network
    "-XX:MaxMetaspaceSize=256m",
    "-XX:+UseSerialGC",
)
TASKMANAGER_MEMORY = {
    "framework.heap.size": "128m",
    "task.heap.size": "768m",
    "framework.off-heap.size": "128m",
    "task.off-heap.size": "64m",
    "network.min": "128m",
    "network.max": "128m",
    # The keys of arrivals are on disk, and Python's memory is its own: little is left to manage.
    "managed.size": "256m",
    "jvm-metaspace.size": "256m",
    "jvm-overhead.min": "192m",
    "jvm-overhead.max": "192m",
}
"""About 2 GB in all for one; a TaskManager refuses to start unless each of them is given."""

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
    """JobManager and TaskManagers; a TaskManager is ready when its slots are registered.

    They are started as Flink's own scripts do it, without the two JVMs that those run before.
    """
    home = settings.state_dir / "flink"
    package = package_dir(settings.flink_python)
    options = _java_options(package)

    def part(
        name: str, jvm: tuple[str, ...], main: str, ready: Callable[[], bool], *more: str
    ) -> Part:
        log = settings.state_dir / "logs" / f"{name}.log"
        logging = f"-Dlog4j2.configurationFile={home / 'conf' / 'log4j.properties'}"
        # Shown on the web page; our redirection writes it. As the JVM's property log.file it would
        # also say where RocksDB logs: in files there that are named by its folder's whole path,
        # which a restore with other tasks makes too long for a name.
        shown = (f"-Dweb.log.path={log}", f"-Dtaskmanager.log.path={log}")
        classpath = ["-cp", f"{home / 'lib'}/*", main, "--configDir", str(home / "conf"), *shown]
        return Part(
            name=name,
            command=[java(), *jvm, *options, logging, *classpath, *more],
            environment=_environment(package, home),
            log=log,
            cwd=home,
            prepare=lambda: write_configuration(settings, package, home),
            is_ready=ready,
            stop_grace_s=8.0,
        )

    def slots_are_there(name: str) -> bool:
        # The JobManager counts a dead TaskManager's slots for a while: ask the new one too.
        registered = "Successful registration at resource manager" in last_lines(
            settings.state_dir / "logs" / f"{name}.log", 100_000, at_most=2**20
        )
        overview = ask_rest(settings, "/overview") if registered else None
        return bool(overview and overview.get("slots-total", 0) >= settings.flink.task_slots)

    def taskmanager(name: str) -> Part:
        # One name for all its lives: the JobManager drops the slots of the dead one at once.
        named = f"-Dtaskmanager.resource-id={name}"
        ready = functools.partial(slots_are_there, name)
        return part(name, TASKMANAGER_JVM, TASKMANAGER_MAIN, ready, named)

    return [
        part(JOBMANAGER, JOBMANAGER_JVM, JOBMANAGER_MAIN, lambda: is_serving(settings)),
        *(taskmanager(name) for name in taskmanagers(settings)),
    ]


def taskmanagers(settings: Settings) -> list[str]:
    """Names of the TaskManagers' parts."""
    further = range(2, settings.flink.task_managers + 1)
    return [TASKMANAGER, *(f"{TASKMANAGER}-{number}" for number in further)]


def is_serving(settings: Settings) -> bool:
    """Whether the JobManager answers."""
    return ask_rest(settings, "/overview") is not None


def ask_rest(settings: Settings, path: str) -> Any:
    """The JSON that the JobManager answers, or None while it does not."""
    url = f"http://{settings.flink.rest_address}:{settings.flink.rest_port}{path}"
    try:
        with urllib.request.urlopen(url, timeout=2.0) as answer:
            return json.load(answer)
    except (OSError, ValueError):
        return None


def remove_temporary(settings: Settings) -> None:
    """Remove what killed Flink processes left in their temporary folder."""
    shutil.rmtree(settings.state_dir / "flink" / "tmp", ignore_errors=True)


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
    """Configuration and links to the jars under ``home``; StackError without the jars."""
    jars = sorted(settings.flink_jars.glob("*.jar"))
    if not jars:
        raise StackError(
            f"{settings.flink_jars} holds no connector jars: run `make setup`, or set flink.jars"
        )
    conf, lib = home / "conf", home / "lib"
    for folder in (conf, home / "log", home / "tmp"):
        folder.mkdir(parents=True, exist_ok=True)
    # The pip package keeps what runs Python apart, among the optional jars.
    python = (package / "opt").glob("flink-python-*.jar")
    _link([*(package / "lib").glob("*.jar"), *python, *jars], lib)
    write_private(
        conf / "config.yaml", yaml.safe_dump(cluster_options(settings, home), width=10_000)
    )
    write_private(conf / "log4j.properties", LOGGING)


def cluster_options(settings: Settings, home: Path) -> dict[str, Any]:
    """Flink's options of this cluster; ``flink.options`` of the settings win over ours."""
    python = str(settings.flink_python)
    ours: dict[str, Any] = {
        "jobmanager.rpc.address": ports.HOST,
        "jobmanager.rpc.port": settings.local.flink_jobmanager_rpc_port,
        "jobmanager.bind-host": ports.HOST,
        "jobmanager.memory.process.size": "1024m",
        "taskmanager.host": ports.HOST,
        "taskmanager.bind-host": ports.HOST,
        # Otherwise the first one's slots are filled before another's are used.
        "taskmanager.load-balance.mode": "SLOTS",
        "taskmanager.numberOfTaskSlots": settings.flink.task_slots,
        **{f"taskmanager.memory.{key}": size for key, size in TASKMANAGER_MEMORY.items()},
        "taskmanager.cpu.cores": float(settings.flink.task_slots),
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


def _link(files: list[Path], folder: Path) -> None:
    """Make the folder hold links to these files alone; what is right stays as it is.

    The other of the two processes may be reading it.
    """
    folder.mkdir(exist_ok=True)
    wanted = {file.name: file for file in files}
    for link in folder.iterdir():
        if link.resolve() != wanted.get(link.name, Path()).resolve():
            link.unlink()
    for name, file in wanted.items():
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(file)


def _java_options(package: Path) -> list[str]:
    """What the package opens of Java's internals; Flink fails on Java 17 without."""
    shipped = yaml.safe_load((package / "conf" / "config.yaml").read_text(encoding="utf-8"))
    return str(shipped["env"]["java"]["opts"]["all"]).split()


def _environment(package: Path, home: Path) -> Mapping[str, str]:
    return {
        "FLINK_HOME": str(package),
        "FLINK_CONF_DIR": str(home / "conf"),
        "FLINK_LIB_DIR": str(home / "lib"),
        "FLINK_LOG_DIR": str(home / "log"),
        # The Python workers find the stages in the checkout.
        "PYTHONPATH": str(CHECKOUT),
    }
