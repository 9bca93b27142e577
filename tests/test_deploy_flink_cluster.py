"""The local Flink cluster's configuration: loopback only, the user's options last, links kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from deploy.local.errors import StackError
from deploy.local.flink_cluster import package_dir, write_configuration
from schemas.settings import Settings
from tests.conftest import local_settings


@pytest.fixture
def package() -> Path:
    return package_dir(Settings().flink_python)


def test_everything_listens_on_loopback_and_options_of_the_settings_win(
    tmp_path: Path, package: Path
) -> None:
    settings = local_settings(tmp_path, flink={"options": {"heartbeat.interval": "7 s"}})
    write_configuration(settings, package, tmp_path)
    options = yaml.safe_load((tmp_path / "conf" / "config.yaml").read_text())
    assert options["heartbeat.interval"] == "7 s"
    hosts = {key: value for key, value in options.items() if key.endswith(("host", "address"))}
    assert set(hosts) >= {"rest.bind-address", "jobmanager.bind-host", "taskmanager.bind-host"}
    assert set(hosts.values()) == {"127.0.0.1"}


def test_links_follow_the_jars_and_stay_while_they_are_right(tmp_path: Path, package: Path) -> None:
    jars = tmp_path / "jars"
    jars.mkdir()
    for name in ("one.jar", "two.jar"):
        (jars / name).touch()
    settings = local_settings(tmp_path, flink={"jars": str(jars)})
    write_configuration(settings, package, tmp_path)
    link = tmp_path / "lib" / "one.jar"
    before = link.lstat()
    (jars / "two.jar").rename(jars / "three.jar")
    write_configuration(settings, package, tmp_path)
    # The other Flink process may be reading it at this moment.
    assert link.lstat().st_ino == before.st_ino
    assert {file.name for file in (tmp_path / "lib").iterdir()} >= {"one.jar", "three.jar"}
    assert not (tmp_path / "lib" / "two.jar").is_symlink()
    assert any(file.name.startswith("flink-dist") for file in (tmp_path / "lib").iterdir())


def test_no_jars_and_no_environment_are_told_with_the_way_out(
    tmp_path: Path, package: Path
) -> None:
    settings = local_settings(tmp_path, flink={"jars": str(tmp_path)})
    with pytest.raises(StackError, match=r"make setup.*flink\.jars"):
        write_configuration(settings, package, tmp_path)
    with pytest.raises(StackError, match=r"make setup.*flink\.python"):
        package_dir(tmp_path / "python")
