"""Commits that no other process can undo: a snapshot's file is made once, by one of those who try.

On a local file system pypaimon looks whether the file is there and then renames over it, under a
lock of its own process: of two processes that do so at once, both are told that their commit
succeeded, and one of them is gone. `with_atomic_commits` puts a hard link in the rename's place,
which the file system refuses if the name is taken. `require_atomic_commits` tries that out at the
start, and refuses catalogs whose commits cannot be made so.
"""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pypaimon.catalog.catalog_environment import CatalogEnvironment
from pypaimon.common.file_io import create_temp_path
from pypaimon.filesystem.local_file_io import LocalFileIO
from pypaimon.snapshot.snapshot_manager import SnapshotManager

from schemas.problems import ConfigError

_WAY_OUT = (
    "use a REST catalog (catalog.options: metastore, uri), or set catalog.single_writer if no "
    "other process ever writes to a table than the one that docs/tables.md names"
)


class LinkingFileIO(LocalFileIO):  # type: ignore[misc]  # pypaimon has no types
    """pypaimon's local files, with a write that fails if somebody else was first."""

    def try_to_write_atomic(self, path: str, content: str) -> bool:
        """Make a file with its whole content, or leave the one that has the name; which of both.

        `OSError` where that cannot be told, such as on a file system without hard links.
        """
        file: Path = self._to_file(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        part = Path(create_temp_path(str(file)))
        try:
            part.write_text(content, encoding="utf-8")
            os.link(part, file)
        except FileExistsError:
            return False
        finally:
            with suppress(FileNotFoundError):
                part.unlink()
        return True


def with_atomic_commits(catalog: Any) -> Any:
    """The catalog, with `LinkingFileIO` for its tables if its warehouse is a folder.

    This is the one place where pypaimon is made to behave otherwise than it comes. Its tables
    commit through the ``file_io`` of the catalog that they were got from.
    """
    found: Any = getattr(catalog, "file_io", None)
    if type(found) is LocalFileIO:
        catalog.file_io = LinkingFileIO(found.path, found.properties)
    return catalog


def require_atomic_commits(catalog: Any, *, single_writer: bool) -> None:
    """`ConfigError` if two processes that commit to one table could lose a commit of either.

    ``single_writer``: the operator sees to it that there are no two. Leaves nothing behind.
    """
    if catalog.supports_version_management() or single_writer:
        return
    warehouse = str(catalog.warehouse)
    if urlsplit(warehouse).scheme not in ("", "file"):
        raise ConfigError(
            f"commits to {warehouse} are not atomic: a snapshot there can be written over by "
            f"another process's, and is lost without an error; {_WAY_OUT}"
        )
    _require_ours(catalog)
    _try_out(catalog.file_io, warehouse)


def _require_ours(catalog: Any) -> None:
    """That a commit goes through the class above: another pypaimon may have moved it."""
    manager = SnapshotManager(catalog.file_io, str(catalog.warehouse))
    commit = CatalogEnvironment.empty().snapshot_commit(manager)
    if not isinstance(getattr(commit, "file_io", None), LinkingFileIO):
        raise ConfigError(
            f"commits to {catalog.warehouse} would not be atomic: this pypaimon does not write "
            "snapshots through the catalog's file_io, or a cache is in between (local-cache.* in "
            "catalog.options); install the version of requirements/workers.txt and leave out "
            "the cache"
        )


def _try_out(file_io: Any, warehouse: str) -> None:
    """Make a snapshot's file twice, on the file system that the lake is on."""
    folder = f"{warehouse.rstrip('/')}/.cliplake/self-test-{uuid.uuid4().hex}"
    path = SnapshotManager(file_io, folder).get_snapshot_path(1)
    try:
        won = [file_io.try_to_write_atomic(path, content) for content in ("first", "second")]
        if won != [True, False] or file_io.read_file_utf8(path) != "first":
            raise ConfigError(
                f"commits to {warehouse} are not atomic: its file system lets a file that is "
                f"there be made again; use another one, or {_WAY_OUT}"
            )
    except OSError as error:
        raise ConfigError(
            f"commits to {warehouse} cannot be made atomic: {error}; use a file system that can "
            f"be written to and has hard links, or {_WAY_OUT}"
        ) from error
    finally:
        file_io.delete_directory_quietly(folder)
