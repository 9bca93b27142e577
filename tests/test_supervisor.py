"""The supervisor restarts what dies, in bounds, and says why it gives up."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.local.errors import StackError
from deploy.local.marked import Mark, find, sweep
from deploy.local.parts import Part
from deploy.local.supervisor import Restarts, Supervisor
from schemas.sections import LocalSettings
from tests.conftest import wait_until


@pytest.fixture
def mark() -> Iterator[Mark]:
    mark = Mark(stack=f"test-{uuid.uuid4().hex}", run="1")
    yield mark
    sweep(mark, grace_s=0.0)


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def supervisor(mark: Mark, told: list[str]) -> Iterator[Supervisor]:
    supervisor = Supervisor(mark, LocalSettings(max_restarts=2), log=told.append)
    yield supervisor
    supervisor.stop(grace_s=0.0)


def part(tmp_path: Path, script: str, name: str = "part", **more: object) -> Part:
    values: dict[str, object] = {
        "name": name,
        "command": ["/bin/sh", "-c", script],
        "log": tmp_path / "logs" / f"{name}.log",
        "cwd": tmp_path,
        "is_ready": lambda: True,
        **more,
    }
    return Part(**values)  # type: ignore[arg-type]


def tick_until(supervisor: Supervisor, condition: Callable[[], bool]) -> None:
    def tick_and_ask() -> bool:
        supervisor.tick()
        return condition()

    wait_until(tick_and_ask, timeout=30)


def test_a_part_is_ready_only_when_it_says_so(supervisor: Supervisor, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    supervisor.add(part(tmp_path, f"sleep 0.3; touch {flag}; sleep 300", is_ready=flag.exists))
    supervisor.tick()
    assert not supervisor.is_ready("part")
    tick_until(supervisor, lambda: supervisor.is_ready("part"))
    assert flag.exists()


def test_a_part_that_dies_is_started_again_without_its_orphans(
    supervisor: Supervisor, mark: Mark, tmp_path: Path, told: list[str]
) -> None:
    supervisor.add(part(tmp_path, "sleep 301 & sleep 300"))
    tick_until(supervisor, lambda: len(find(mark)) == 3)
    first = supervisor.pid("part")
    orphans = {process.pid for process in find(mark)} - {first}
    assert first is not None
    os.kill(first, signal.SIGKILL)
    tick_until(supervisor, lambda: supervisor.pid("part") not in (None, first))
    wait_until(lambda: len(find(mark)) == 3)
    assert not orphans & {process.pid for process in find(mark)}
    assert any("SIGKILL" in line for line in told)


def test_it_gives_up_after_the_bound_with_the_end_of_the_log(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    supervisor.add(part(tmp_path, f"echo x >> {tmp_path}/starts; echo no disk left; exit 3"))
    with pytest.raises(StackError) as given_up:
        tick_until(supervisor, lambda: False)
    assert "exit code 3" in str(given_up.value)
    assert "no disk left" in str(given_up.value)
    assert (tmp_path / "starts").read_text().count("x") == 3


def test_an_exit_that_would_repeat_is_final_at_once(supervisor: Supervisor, tmp_path: Path) -> None:
    script = f"echo x >> {tmp_path}/starts; echo model is missing; exit 2"
    supervisor.add(part(tmp_path, script, final_exit_codes=frozenset({2})))
    with pytest.raises(StackError, match="model is missing"):
        tick_until(supervisor, lambda: False)
    assert (tmp_path / "starts").read_text().count("x") == 1


def test_a_part_that_never_serves_is_given_up(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.add(part(tmp_path, "sleep 300", is_ready=lambda: False, ready_timeout_s=0.2))
    with pytest.raises(StackError, match="not ready within"):
        tick_until(supervisor, lambda: False)


def test_a_part_runs_only_while_what_it_needs_is_ready(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    supervisor.add(part(tmp_path, "sleep 300", "above", needs=("below",)))
    supervisor.add(part(tmp_path, "sleep 300", "below", is_ready=base.exists))
    for _ in range(3):
        supervisor.tick()
    assert supervisor.pid("above") is None
    base.touch()
    tick_until(supervisor, lambda: supervisor.is_ready("above", "below"))
    first, below = supervisor.pid("above"), supervisor.pid("below")
    base.unlink()
    assert below is not None
    os.kill(below, signal.SIGKILL)
    tick_until(supervisor, lambda: supervisor.pid("above") is None)
    base.touch()
    tick_until(supervisor, lambda: supervisor.is_ready("above", "below"))
    assert supervisor.pid("above") != first


def test_stop_gives_the_grace_and_then_kills(
    supervisor: Supervisor, mark: Mark, tmp_path: Path
) -> None:
    set_up = {name: tmp_path / f"{name}-set-up" for name in ("polite", "stubborn")}
    loop = "while true; do sleep 0.1; done"
    polite = f"trap 'touch {tmp_path}/drained; exit 0' TERM; touch {set_up['polite']}; {loop}"
    supervisor.add(part(tmp_path, polite, "polite", is_ready=set_up["polite"].exists))
    stubborn = f"trap '' TERM; touch {set_up['stubborn']}; {loop}"
    supervisor.add(
        part(tmp_path, stubborn, "stubborn", is_ready=set_up["stubborn"].exists, stop_grace_s=0.5)
    )
    tick_until(supervisor, lambda: supervisor.is_ready("polite", "stubborn"))
    supervisor.stop()
    assert (tmp_path / "drained").exists()
    assert find(mark) == []


def test_a_command_that_is_not_there_is_told(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.add(part(tmp_path, "", command=["/no/such/program"]))
    with pytest.raises(StackError, match="/no/such/program cannot be run"):
        tick_until(supervisor, lambda: False)


def test_delays_grow_to_a_bound_and_old_restarts_are_forgotten() -> None:
    restarts = Restarts(LocalSettings(max_restarts=8))
    delays = [restarts.next_delay(now) for now in range(8)]
    assert delays == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert restarts.next_delay(9.0) is None
    assert restarts.next_delay(10_000.0) == 0.5
