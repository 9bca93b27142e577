"""What several test files share: waiting, a chat model, and the one real stack of a session."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.local.marked import find
from deploy.local.stack import Stack
from deploy.local.state import StateFolder
from processors.failpoints import VARIABLE
from processors.models import chat_server
from processors.pool.cluster import prepare_environment, ray_session
from schemas.settings import Settings
from tests.chat_model import ChatModel
from tests.free_ports import free_port_settings
from tests.media import SAMPLES

# Read when the hub's client is imported: no test reaches for a network.
os.environ["HF_HUB_OFFLINE"] = "1"
# Read when Ray is imported, which collecting the tests does.
prepare_environment(Settings())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with tests of the whole stack come last, since it takes CPU from all others while it is
    up; and of those, tests that kill its parts after those that look at how they were started."""

    def turn(item: pytest.Item) -> tuple[bool, bool, bool]:
        fixtures = item.fixturenames if isinstance(item, pytest.Function) else ()
        marked = item.get_closest_marker("e2e") is not None
        return uses_stack(item.path), marked, "chaos" in fixtures

    items.sort(key=turn)


@functools.cache
def uses_stack(file: Path) -> bool:
    """Whether a test file has tests of the whole stack."""
    return "pytest.mark.e2e" in file.read_text(encoding="utf-8")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where several processes share the tests, a file's are one's, and so are all of the stack."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file: str = nodeid.partition("::")[0]
            return "the stack" if uses_stack(config.rootpath / file) else file

    return ByFile(config, log)


def wait_until(condition: Callable[[], object], timeout: float = 30.0) -> None:
    """Return once the condition holds; AssertionError if it does not within ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not so within {timeout} s"
        time.sleep(0.05)


def local_settings(folder: Path, **sections: dict[str, object]) -> Settings:
    """Settings of a stack in ``folder`` on free ports, that may read ``folder`` and the samples."""
    ours: dict[str, dict[str, object]] = {
        "flink": {"parallelism": 2, "checkpoint_interval_s": 1.0},
        "fetch": {"file_roots": [str(folder), str(SAMPLES)]},
    }
    return free_port_settings(folder, ours, sections)


def stack_settings(folder: Path) -> Settings:
    """Settings of a stack of which parts are killed again and again: two TaskManagers."""
    return local_settings(
        folder,
        flink={"task_managers": 2, "task_slots": 3},
        local={"max_restarts": 1000, "max_restart_delay_s": 2.0},
        kafka={"dead_letter_topic": "dead-letters"},
        # A clip meets many faults, and none of them is its own.
        pool={"attempts": 100},
        # A server of the test's own, and a folder of a file server's that may go away.
        fetch={
            "file_roots": [str(folder), str(SAMPLES), str(file_server(folder))],
            "https_hosts": ["127.0.0.1"],
            "allow_http": True,
            "allow_private_addresses": True,
            # Longer than any of them hangs.
            "read_timeout_s": 200.0,
        },
        # A video of some seconds has more segments than are passed on in one call.
        decode={"segment_s": 0.9},
    )


def file_server(folder: Path) -> Path:
    """Where a stack in ``folder`` may read videos as well, if it is there."""
    return folder.with_name(f"{folder.name}-server")


def failpoint_folder(folder: Path) -> Path:
    """Where failpoints are armed for the processes of a stack in ``folder``."""
    points = folder / "failpoints"
    points.mkdir()
    return points


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatModel]:
    """A model for a chat server; who asks it waits shortly, and has asked nothing wrong."""
    monkeypatch.setattr(chat_server, "_FIRST_WAIT_S", 0.01)
    model = ChatModel()
    yield model
    assert model.wrong == []


@pytest.fixture(scope="session")
def ray_address() -> Iterator[str]:
    """Address of one Ray for all tests of the pool alone, as the driver itself starts one."""
    with ray_session(Settings(pool={"min_actors": 2})):
        import ray

        yield ray.get_runtime_context().gcs_address


@pytest.fixture(scope="session")
def told() -> list[str]:
    """What the session's stack says of its parts."""
    return []


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, told: list[str]) -> Iterator[Stack]:
    """Broker, Flink with two TaskManagers and both jobs, Ray and the pool, started once for all
    tests that ask for it.

    Nothing watches it between calls: a test that waits for rows, or kills a part, does so by
    ``stack.watch(until=…)``.
    """
    folder = tmp_path_factory.mktemp("stack")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(failpoint_folder(folder)))
        with Stack(stack_settings(folder), log=told.append) as running:
            yield running
    left = find(StateFolder(running.settings.state_dir).mark())
    assert left == [], f"left behind: {left}"
