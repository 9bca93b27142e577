"""Paimon's own maintenance of a table, by its Java classes in this process's JVM.

Flink's procedures call the same classes. Going through Flink costs a table environment and, for a
compaction, a cluster of its own: several times what the work itself takes, while a driver waits.
The `flink` interpreter runs this. Whoever calls it sees to it that nobody else commits.
"""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from typing import Any

from py4j.protocol import Py4JJavaError
from pyflink.java_gateway import get_gateway

from ingest.compaction import runs_to_merge
from schemas.problems import ConfigError
from schemas.settings import Settings

SNAPSHOTS_KEPT = 10
"""At least so many stay, however old: the newest of them holds the pool's position."""
_ALL = str(2**31 - 1)
_LEVELS = 100
"""A sorted run takes up one: more than there will ever be in a bucket."""


class LakeMaintenance:
    """Runs one procedure after the other over the settings' lake."""

    def __init__(self, settings: Settings) -> None:
        """`ConfigError` if the catalog cannot be opened."""
        self._database = settings.catalog.database
        self._kept = settings.maintenance
        self._jvm: Any = get_gateway().jvm
        self._paimon = self._jvm.org.apache.paimon
        try:
            options = self._paimon.options.Options()
            for key, value in settings.catalog_options.items():
                options.set(key, value)
            context = self._paimon.catalog.CatalogContext.create(options)
            self._catalog = self._paimon.catalog.CatalogFactory.createCatalog(context)
        except Py4JJavaError as error:
            raise ConfigError(f"the lake's catalog cannot be opened: {cause(error)}") from error

    def run(self, table: str, procedure: str) -> str:
        """Do it, and say what was done; `ConfigError` if it fails."""
        steps = {
            "expire_snapshots": self._expire_snapshots,
            "compact": self._compact,
            "compact_manifest": self._compact_manifest,
            "remove_orphan_files": self._remove_orphan_files,
        }
        try:
            return steps[procedure](table)
        except Py4JJavaError as error:
            raise ConfigError(f"{procedure} of table {table} failed: {cause(error)}") from error

    def _table(self, name: str) -> Any:
        """The table as it is now, which no commit of ours expires anything of too early."""
        identifier = self._paimon.catalog.Identifier.create(self._database, name)
        options = self._jvm.java.util.HashMap()
        options.put("snapshot.num-retained.min", str(SNAPSHOTS_KEPT))
        options.put("snapshot.num-retained.max", _ALL)
        options.put("snapshot.time-retained", f"{round(3.6e6 * self._kept.keep_snapshots_h)} ms")
        # The default is 50 at a time; a driver makes more between two maintenances.
        options.put("snapshot.expire.limit", _ALL)
        return self._catalog.getTable(identifier).copy(options)

    def _builder(self, table: Any) -> Any:
        # py4j finds no methods that only an interface has, such as newBatchWriteBuilder.
        return self._paimon.table.sink.BatchWriteBuilderImpl(table)

    def _expire_snapshots(self, name: str) -> str:
        table = self._table(name)
        config = table.coreOptions().expireConfig()
        return f"{table.newExpireSnapshots().config(config).expire()} snapshots expired"

    def _compact(self, name: str) -> str:
        """Merge what has become many small files; never the whole table."""
        table = self._table(name)
        keyed = not table.primaryKeys().isEmpty()
        with tempfile.TemporaryDirectory(prefix="cliplake-compact-") as spill:
            messages = self._compact_keyed(table, spill) if keyed else self._compact_appended(table)
        commit = self._builder(table).newCommit()
        try:
            commit.commit(messages)
        finally:
            commit.close()
        return f"{messages.size()} buckets or groups of files compacted"

    def _compact_keyed(self, table: Any, spill: str) -> Any:
        messages = self._jvm.java.util.ArrayList()
        for bucket, (rows, fresh) in self._sorted_runs(table).items():
            if (count := runs_to_merge(rows, fresh)) < 2:
                continue
            write = self._builder(table.copy(self._merging(count, len(rows)))).newWrite()
            try:
                write.withIOManager(self._paimon.disk.IOManager.create(spill))
                write.compact(self._paimon.data.BinaryRow.EMPTY_ROW, bucket, False)
                messages.addAll(write.prepareCommit())
            finally:
                write.close()
        return messages

    def _sorted_runs(self, table: Any) -> dict[int, tuple[list[int], int]]:
        """For each bucket the rows of its sorted runs, the newest first, and how many of them are
        not merged yet."""
        fresh: dict[int, list[int]] = defaultdict(list)
        merged: dict[int, Counter[int]] = defaultdict(Counter)
        for split in table.newSnapshotReader().read().dataSplits():
            bucket = split.bucket()
            for file in split.dataFiles():
                if level := file.level():
                    merged[bucket][level] += file.rowCount()
                else:
                    fresh[bucket].append(file.rowCount())
        return {
            bucket: (
                [*fresh[bucket], *(merged[bucket][level] for level in sorted(merged[bucket]))],
                len(fresh[bucket]),
            )
            for bucket in sorted({*fresh, *merged})
        }

    def _merging(self, count: int, runs: int) -> Any:
        """Options with which Paimon merges the newest ``count`` of so many runs.

        Nothing but their number makes it do so, and it merges as many as it takes to be left with
        the trigger's number. What it makes of them lies one level nearer to 0 than the next run.
        """
        options = self._jvm.java.util.HashMap()
        options.put("num-sorted-run.compaction-trigger", str(runs - count + 1))
        options.put("num-levels", str(_LEVELS))
        options.put("compaction.size-ratio", "-100")
        options.put("compaction.max-size-amplification-percent", _ALL)
        return options

    def _compact_appended(self, table: Any) -> Any:
        messages = self._jvm.java.util.ArrayList()
        coordinator = self._paimon.append.AppendCompactCoordinator(table, False)
        write = table.store().newWrite("cliplake-maintenance")
        try:
            while (tasks := self._next_tasks(coordinator)) is not None:
                for task in tasks:
                    messages.add(task.doCompact(table, write))
        finally:
            write.close()
        return messages

    def _next_tasks(self, coordinator: Any) -> Any:
        """Groups of files to be made one; None once all of the table's files were looked at."""
        try:
            return coordinator.run()
        except Py4JJavaError as error:
            if error.java_exception.getClass().getSimpleName() == "EndOfScanException":
                return None
            raise

    def _compact_manifest(self, name: str) -> str:
        commit = self._builder(self._table(name)).newCommit()
        try:
            commit.compactManifests()
        finally:
            commit.close()
        return "success"

    def _remove_orphan_files(self, name: str) -> str:
        now_ms = self._jvm.java.lang.System.currentTimeMillis()
        older_than_ms = now_ms - round(3.6e6 * self._kept.keep_orphans_h)
        result = self._paimon.operation.LocalOrphanFilesClean.executeDatabaseOrphanFiles(
            self._catalog, self._database, name, older_than_ms, None, False
        )
        files, size = result.getDeletedFileCount(), result.getDeletedFileTotalLenInBytes()
        return f"{files} files of {size} bytes removed"


def cause(error: BaseException) -> str:
    """What an error came of, in its own words; one of the JVM has what lies behind it."""
    java = getattr(error, "java_exception", None)
    text = str(error) if java is None else str(java.toString())
    while java is not None and java.getCause() is not None:
        java = java.getCause()
        text = str(java.toString())
    return text
