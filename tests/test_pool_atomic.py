"""Commits to one table by several processes: all are there, or the catalog is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pypaimon import CatalogFactory

from processors.pool.atomic import LinkingFileIO, require_atomic_commits, with_atomic_commits
from processors.pool.driver import Driver
from processors.pool.lake import Lake
from schemas.problems import ConfigError
from schemas.settings import CHECKOUT, Settings, dump_settings
from tests import pool_lake

COMMITS = 500
"""Of each of two processes."""


def test_two_processes_that_race_lose_no_commit(tmp_path: Path) -> None:
    settings = pool_lake.settings(tmp_path)
    lake = pool_lake.new_lake(settings)
    file = tmp_path / "settings.json"
    file.write_text(dump_settings(settings))
    racers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.pool_commit_racer", str(file), name, str(COMMITS)],
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("first", "second")
    ]
    try:
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("\n")
            racer.stdin.flush()
        told = [int(racer.communicate(timeout=300)[0]) for racer in racers]
    finally:
        for racer in racers:
            racer.kill()
            racer.wait()
    assert told == [COMMITS, COMMITS]
    there = [(s.commit_user, s.commit_identifier) for s in pool_lake.snapshots(lake, "clips")]
    assert len(there) == 2 * COMMITS
    assert set(there) == {
        (name, number) for name in ("first", "second") for number in range(1, COMMITS + 1)
    }


def test_a_file_is_made_once_and_kept_as_it_was(tmp_path: Path) -> None:
    files = LinkingFileIO(str(tmp_path))
    path = (tmp_path / "sub folder" / "snapshot-1").as_uri()
    assert files.try_to_write_atomic(path, "first")
    assert not files.try_to_write_atomic(path, "second")
    assert files.read_file_utf8(path) == "first"
    assert [f.name for f in (tmp_path / "sub folder").iterdir()] == ["snapshot-1"]


def test_the_self_test_passes_on_a_disk_and_leaves_nothing(tmp_path: Path) -> None:
    lake = Lake(pool_lake.settings(tmp_path))
    lake.require_atomic_commits()
    assert not list((tmp_path / "lake" / ".cliplake").iterdir())


class Overwriting(LinkingFileIO):
    """As on a file system where a name that is taken can be given again."""

    def try_to_write_atomic(self, path: str, content: str) -> bool:
        self.overwrite_file_utf8(path, content)
        return True


class WithoutLinks(LinkingFileIO):
    """As on a file system that has no hard links."""

    def try_to_write_atomic(self, path: str, content: str) -> bool:
        raise PermissionError(1, "Operation not permitted", path)


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        (Overwriting, "are not atomic: its file system lets a file that is there be made again"),
        (WithoutLinks, "cannot be made atomic: .*Operation not permitted.*has hard links"),
    ],
)
def test_files_that_cannot_be_made_once_are_refused(
    tmp_path: Path, files: type[LinkingFileIO], problem: str
) -> None:
    catalog = Lake(pool_lake.settings(tmp_path)).catalog
    catalog.file_io = files(str(tmp_path))
    with pytest.raises(ConfigError, match=problem):
        require_atomic_commits(catalog, single_writer=False)


def test_a_catalog_that_does_not_commit_through_ours_is_refused(tmp_path: Path) -> None:
    plain = CatalogFactory.create({"warehouse": tmp_path.as_uri()})
    with pytest.raises(ConfigError, match=r"install the version of requirements/workers\.txt"):
        require_atomic_commits(plain, single_writer=False)
    require_atomic_commits(with_atomic_commits(plain), single_writer=False)


def s3_settings(tmp_path: Path, **catalog: Any) -> Settings:
    options = {"warehouse": "s3://lake/warehouse", "s3.endpoint": "http://127.0.0.1:9"}
    return Settings(local={"state_dir": str(tmp_path)}, catalog={"options": options, **catalog})


def test_a_store_of_objects_is_refused_with_the_ways_out(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"s3://lake/warehouse are not atomic.*REST catalog.*catalog\.single_writer",
    ):
        Driver(s3_settings(tmp_path), pool_lake.recipe()).run()


def test_a_store_of_objects_is_taken_if_there_is_one_writer(tmp_path: Path) -> None:
    Lake(s3_settings(tmp_path, single_writer=True)).require_atomic_commits()
