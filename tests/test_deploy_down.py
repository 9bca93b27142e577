"""A state folder has one owner, and `down` ends its stack from another process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local.down import down
from deploy.local.errors import StackError
from deploy.local.marked import find, sweep
from deploy.local.state import RECORD, StateFolder
from schemas.settings import CHECKOUT, Settings, dump_settings, load_settings
from tests.conftest import wait_until

OWNER = """
import signal, sys, time
from pathlib import Path
from deploy.local.processes import ChildProcess
from deploy.local.state import StateFolder
state = StateFolder(Path(sys.argv[1]))
owner = state.own()
mark = state.mark(owner.run)
ChildProcess(["/bin/sleep", "300"], environment=mark.environment(),
             log=state.folder / "log", cwd=state.folder)
def stop(*_):
    (state.folder / "stopped").touch()
    state.release()
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
print("owned", flush=True)
time.sleep(300)
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(local={"state_dir": str(tmp_path / "state")})


@pytest.fixture
def owner(settings: Settings) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(settings.state_dir)],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "owned"
    yield process
    process.kill()
    process.communicate()
    sweep(StateFolder(settings.state_dir).mark(), grace_s=0.0)


def test_a_second_owner_is_refused_and_told_the_first(
    settings: Settings, owner: subprocess.Popen[str]
) -> None:
    with pytest.raises(StackError, match=f"pid {owner.pid}"):
        StateFolder(settings.state_dir).own()


def test_down_has_the_owner_stop_and_sweeps(
    settings: Settings, owner: subprocess.Popen[str]
) -> None:
    assert down(settings, log=lambda line: None)
    assert (settings.state_dir / "stopped").exists()
    assert owner.wait(5) == 0
    assert find(StateFolder(settings.state_dir).mark()) == []
    assert not (settings.state_dir / RECORD).exists()


def test_down_after_the_owner_was_killed_ends_what_it_left(
    settings: Settings, owner: subprocess.Popen[str], tmp_path: Path
) -> None:
    told: list[str] = []
    mark = StateFolder(settings.state_dir).mark()
    # A session of its own and no leash: as a worker whose parent was killed.
    orphan = subprocess.Popen(["/bin/sleep", "300"], env={**os.environ, **mark.environment()})
    owner.kill()
    owner.wait()
    wait_until(lambda: not StateFolder(settings.state_dir).is_owned())
    assert down(settings, log=told.append)
    assert orphan.wait(5) != 0
    assert any("died" in line for line in told)
    assert not (settings.state_dir / RECORD).exists()


def test_down_notices_that_the_machine_was_restarted(
    settings: Settings, owner: subprocess.Popen[str]
) -> None:
    record = settings.state_dir / RECORD
    values = json.loads(record.read_text())
    owner.kill()
    owner.wait()
    wait_until(lambda: find(StateFolder(settings.state_dir).mark()) == [])
    # The same pid, started at the same second, of another boot: somebody else's by now.
    record.write_text(json.dumps({**values, "pid": os.getpid(), "boot": "another"}))
    told: list[str] = []
    assert not down(settings, log=told.append)
    assert any("restarted" in line for line in told)
    assert not record.exists()


def test_down_without_a_stack_does_nothing(settings: Settings) -> None:
    assert not down(settings, log=lambda line: None)
    assert not settings.state_dir.exists()


def test_a_second_up_leaves_all_to_the_one_that_runs(settings: Settings, tmp_path: Path) -> None:
    first = StateFolder(settings.state_dir)
    first.own()
    log = settings.state_dir / "logs" / "up.log"
    log.parent.mkdir()
    log.write_text("broker: ready after 8.4 s\n")
    file = tmp_path / "settings.json"
    file.write_text(dump_settings(settings))
    for detached in ([], ["--detach"]):
        second = subprocess.run(
            [sys.executable, "-m", "cliplake.main", "--settings-json", str(file), "up", *detached],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert second.returncode == 4
        assert f"a stack is running already in {settings.state_dir}" in second.stderr
    assert log.read_text() == "broker: ready after 8.4 s\n"
    first.release()


def test_a_folder_given_back_can_be_owned_again(settings: Settings) -> None:
    first = StateFolder(settings.state_dir)
    first.own()
    assert StateFolder(settings.state_dir).is_owned()
    first.release()
    assert not StateFolder(settings.state_dir).is_owned()
    second = StateFolder(settings.state_dir)
    second.own()
    second.release()
