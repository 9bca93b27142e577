"""The lake through pypaimon: catalog, tables as `schemas.tables` names them, and reads.

Commits are made by the one writer of a table and are not here (`processors.pool.commits`).
Nothing here compacts, expires or deletes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from pypaimon import CatalogFactory, Schema
from pypaimon.catalog.catalog_exception import (
    DatabaseNotExistException,
    TableAlreadyExistException,
    TableNotExistException,
)

from processors.pool.atomic import require_atomic_commits, with_atomic_commits
from schemas.problems import ConfigError
from schemas.settings import Settings
from schemas.tables import TABLES, Table

# pypaimon keeps the footers of 4,096 files that were read. Each of ours is read once, and its
# estimate of their size is far too low: a driver grew by 160 KiB with each snapshot of ``clips``.
_PYPAIMON_ONLY = {"file-format.metadata-cache.max-size": "0 b"}


class LakeMismatch(ConfigError):
    """Existing tables that are not what this version reads and writes; every difference a line."""


class LakeNotReady(ConfigError):
    """The database or a table is not there yet."""


class Lake:
    """One database of one Paimon catalog. Cheap to build; handles are cached by name."""

    def __init__(self, settings: Settings) -> None:
        self.database = settings.catalog.database
        self.options = settings.catalog_options
        self._single_writer = settings.catalog.single_writer
        self._catalog: Any = None
        self._tables: dict[str, Any] = {}

    @property
    def catalog(self) -> Any:
        """The pypaimon catalog; `ConfigError` if its options make none."""
        if self._catalog is None:
            try:
                self._catalog = with_atomic_commits(
                    CatalogFactory.create({**_PYPAIMON_ONLY, **self.options})
                )
            except (ValueError, OSError) as error:
                raise ConfigError(
                    f"the catalog cannot be opened: {error}; see catalog.options in the settings"
                ) from error
        return self._catalog

    def require_atomic_commits(self) -> None:
        """`ConfigError` if a commit to this lake could be lost to another process's; tried out."""
        require_atomic_commits(self.catalog, single_writer=self._single_writer)

    def ensure_tables(self) -> None:
        """Create the database and every table that is missing, and compare those that exist.

        `LakeMismatch` lists what differs in all tables together; then nothing was changed.
        `ConfigError` if its commits could be lost.
        """
        self.require_atomic_commits()
        self.catalog.create_database(self.database, True)
        missing, problems = [], []
        for table in TABLES:
            try:
                found = self.catalog.get_table(self._identifier(table.name))
            except (TableNotExistException, DatabaseNotExistException):
                missing.append(table)
                continue
            problems += [f"table {table.name}: {p}" for p in _differences(table, found)]
        if problems:
            raise LakeMismatch(
                "the lake's tables are not what this version writes:\n  "
                + "\n  ".join(problems)
                + "\nalter them, or name another database in the settings (catalog.database)"
            )
        for table in missing:
            self._create(table)

    def table(self, name: str) -> Any:
        """The pypaimon table of that name; `LakeNotReady` if it does not exist."""
        if name not in self._tables:
            try:
                self._tables[name] = self.catalog.get_table(self._identifier(name))
            except (TableNotExistException, DatabaseNotExistException):
                raise LakeNotReady(
                    f"table {self.database}.{name} is not in the lake at "
                    f"{self.options['warehouse']}; `cliplake up` makes it, or name another lake "
                    "in the settings (catalog.options, local.state_dir)"
                ) from None
        return self._tables[name]

    def read(self, name: str, columns: Sequence[str] | None = None, filter: Any = None) -> pa.Table:
        """The current rows of a table, versions of a key merged.

        ``filter`` is a pypaimon predicate, from `predicates`. An empty table gives no rows.
        """
        builder = self.table(name).new_read_builder()
        if columns is not None:
            builder = builder.with_projection(list(columns))
        if filter is not None:
            builder = builder.with_filter(filter)
        splits = builder.new_scan().plan().splits()
        return builder.new_read().to_arrow(splits)

    def predicates(self, name: str) -> Any:
        """pypaimon's predicate builder over all columns of a table."""
        return self.table(name).new_read_builder().new_predicate_builder()

    def latest_snapshot_id(self, name: str) -> int | None:
        """Number of the table's newest snapshot; None if nothing was ever committed."""
        snapshot = self.table(name).snapshot_manager().get_latest_snapshot()
        return None if snapshot is None else int(snapshot.id)

    def identity(self, name: str) -> str:
        """What tells a table from another one of the same name: uuid, or time of its creation.

        Read anew from the store every time, since its use is to notice that a table was dropped
        and made again. `LakeNotReady` if it is not there.
        """
        try:
            table = self.catalog.get_table(self._identifier(name))
        except (TableNotExistException, DatabaseNotExistException):
            raise LakeNotReady(f"table {self.database}.{name} is not there") from None
        if table.catalog_environment.uuid:
            return str(table.catalog_environment.uuid)
        return f"created-{table.schema_manager.get_schema(0).time_millis}"

    def _identifier(self, name: str) -> str:
        return f"{self.database}.{name}"

    def _create(self, table: Table) -> None:
        schema = Schema.from_pyarrow_schema(
            table.arrow_schema(),
            partition_keys=list(table.partition_keys),
            primary_keys=list(table.primary_key),
            options=dict(table.options),
            comment=table.doc,
        )
        try:
            self.catalog.create_table(self._identifier(table.name), schema, False)
        except TableAlreadyExistException:
            # Somebody made it in the same moment: compare, as with any that exists.
            found = self.catalog.get_table(self._identifier(table.name))
            if problems := _differences(table, found):
                raise LakeMismatch(f"table {table.name}: " + "; ".join(problems)) from None


def _differences(table: Table, found: Any) -> list[str]:
    schema = found.table_schema
    return table.differences(
        [(f.name, str(f.type), bool(f.type.nullable)) for f in schema.fields],
        schema.primary_keys,
        schema.partition_keys,
        schema.options,
    )
