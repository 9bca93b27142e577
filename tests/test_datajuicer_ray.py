"""In the pool the operators' process is a Ray actor: on its node, with the other interpreter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from conftest import wait_until
from datajuicer_cases import need_datajuicer, settings_in, stage_on

from processors.datajuicer.hosts import DataJuicerHost, HostGone, RayProcess
from processors.errors import MediaError, StageStartError
from processors.pool.cluster import prepare_environment, ray_session
from schemas.settings import Settings

pytestmark = pytest.mark.datajuicer

TEXT = "a caption of the clip"
OPERATORS = [("text_length_filter", {"min_len": 30})]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need_datajuicer()
    return tmp_path_factory.mktemp("ray")


@pytest.fixture(scope="module")
def settings(folder: Path) -> Iterator[Settings]:
    settings = settings_in(folder)
    prepare_environment(settings)
    with ray_session(settings):
        yield settings


@pytest.fixture(scope="module")
def host(settings: Settings) -> Iterator[DataJuicerHost]:
    host = DataJuicerHost(settings, OPERATORS)
    host.start()
    yield host
    host.close()


def actor_of(host: DataJuicerHost) -> RayProcess:
    process = host._process
    assert isinstance(process, RayProcess)
    return process


def answers(process: RayProcess) -> bool:
    try:
        return bool(process.call("ping", deadline_s=30))
    except HostGone:
        return False


def test_operators_run_in_an_actor_that_occupies_no_cpu_of_the_pool(
    host: DataJuicerHost, settings: Settings
) -> None:
    stage = stage_on(host, settings, *OPERATORS[0])
    short, long = stage.run([{"caption": TEXT}, {"caption": TEXT * 2}])
    assert not isinstance(short, MediaError)
    assert not isinstance(long, MediaError)
    assert [r["operator_stats"]["text_len"] for r in (short, long)] == [21, 42]
    assert [stage.rejects(r) for r in (short, long)] == ["text_length_filter", None]
    assert ray.available_resources()["CPU"] == ray.cluster_resources()["CPU"]


def test_an_actor_that_dies_comes_back(host: DataJuicerHost, settings: Settings) -> None:
    stage = stage_on(host, settings, *OPERATORS[0])
    before = actor_of(host)
    before.end()
    # Ray kills while others go on: until it has, the next call may still be answered.
    wait_until(lambda: not answers(before))
    (result,) = stage.run([{"caption": TEXT}])
    assert not isinstance(result, MediaError)
    assert result["operator_stats"] == {"text_len": 21}
    assert actor_of(host) is not before


def test_an_actor_that_does_not_answer_in_time_is_ended(
    host: DataJuicerHost, settings: Settings
) -> None:
    with pytest.raises(HostGone, match="gave no answer within 0 s"):
        host.run("text_length_filter", {"text": TEXT}, deadline_s=0)
    assert host._process is None


def test_an_interpreter_that_is_none_is_seen_before_ray_waits_for_it(
    settings: Settings, folder: Path
) -> None:
    wrong = settings_in(folder, datajuicer_python="/nowhere/bin/python")
    with pytest.raises(StageStartError, match="make setup-datajuicer"):
        DataJuicerHost(wrong, OPERATORS).start()


def test_an_interpreter_that_never_answers_is_given_up(settings: Settings, folder: Path) -> None:
    # A program that starts and is no Python: Ray waits for its actor without an error.
    idle = folder / "idle"
    idle.write_text("#!/bin/sh\nexec sleep 60\n")
    idle.chmod(0o755)
    wrong = settings_in(folder, datajuicer_python=str(idle), actor_start_timeout_s=4.0)
    with pytest.raises(StageStartError, match="gave no answer within 3 s while it started"):
        DataJuicerHost(wrong, OPERATORS).start()
