"""SQL over the lake, read-only, in this process: DataFusion over Paimon's own reader.

The engine merges the versions of a key as every other Paimon reader does. Nothing here can
change the lake: a statement that is not a query is refused before it runs.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from cliplake.console import CommandError, Exit
from schemas.problems import ConfigError, Unreachable
from schemas.settings import Settings
from schemas.tables import TABLES

if TYPE_CHECKING:
    import pyarrow as pa

_CATALOG = "paimon"
_MEMORY_BYTES = 2 * 2**30
"""Most that one query may hold: a careless join ends in an error, not in a swapping machine."""
_QUERIES = ("select", "with", "values", "(")
_LISTINGS = ("show columns", "describe ", "desc ")
_SHOW_TABLES = re.compile(r"show\s+tables", re.IGNORECASE)
_NO_FIELD = re.compile(r"No field named ([^.]+(?:\.\w+)?)\.(?:.*Valid fields are (.*))?")
_COMMENT = re.compile(r"--[^\n]*(\n|$)|/\*.*?\*/", re.DOTALL)


class QueryError(CommandError):
    """A statement that cannot be run; says which tables or columns there are."""

    exit_code = Exit.USAGE


class LakeSql:
    """Queries against one database of one Paimon catalog."""

    def __init__(self, settings: Settings) -> None:
        from pypaimon_rust.datafusion import SQLContext

        from processors.pool.lake_store import require_answer

        self.database = settings.catalog.database
        options = dict(settings.catalog_options)
        self._where = options["warehouse"]
        require_answer(options)
        self._context = SQLContext(memory_pool_type="fair", memory_pool_bytes=_MEMORY_BYTES)
        try:
            self._context.register_catalog(_CATALOG, options, "")
            self._context.set_current_catalog(_CATALOG)
            self._context.set_current_database(self.database)
        except Exception as error:
            # The engine raises ValueError for whatever went wrong below it.
            raise ConfigError(f"the lake at {self._where} cannot be opened: {error}") from None
        if not self.query("SHOW TABLES").num_rows:
            self._say_why_empty(settings)

    def query(self, statement: str, limit: int | None = None) -> pa.Table:
        """The result of one query; `QueryError` if it is none, or cannot be run.

        With ``limit``, at most that many rows and one more, which says that there are more.
        """
        import pyarrow as pa

        statement = statement.strip().rstrip(";").strip()
        if _SHOW_TABLES.fullmatch(statement):
            statement = (
                "SELECT table_name FROM information_schema.tables "
                f"WHERE table_schema = '{self.database}' ORDER BY table_name"
            )
        explained = self._check_read_only(statement)
        if limit is not None and explained:
            statement = self._limited(statement, limit + 1)
        batches = self._run(statement)
        if not batches and explained:
            # A result without rows comes without its columns: have one row of nulls made.
            batches = self._run(
                f"SELECT q.* FROM (VALUES (1)) AS one LEFT JOIN (\n{statement}\n) AS q ON false"
            )
            return pa.Table.from_batches(batches).slice(0, 0)
        return pa.Table.from_batches(batches) if batches else pa.table({})

    def numbers(self, statement: str) -> dict[str, int]:
        """The one row of a query of ours, as integers by column; null is 0."""
        (row,) = self.query(statement).to_pylist()
        return {name: int(value or 0) for name, value in row.items()}

    def _limited(self, statement: str, limit: int) -> str:
        limited = f"{statement}\nLIMIT {limit}"
        try:
            self._context.sql(f"EXPLAIN {limited}")
        except Exception:
            # It has a limit of its own: that one holds.
            return statement
        return limited

    def _say_why_empty(self, settings: Settings) -> None:
        """Raise what keeps the tables from being there; the engine takes all for "not found"."""
        from processors.pool.lake import Lake, LakeNotReady

        try:
            Lake(settings).table(TABLES[0].name)
        except LakeNotReady:
            raise ConfigError(
                f"there is no lake with a database {self.database!r} at {self._where}; "
                "`cliplake up` or `cliplake demo` makes one, and the settings say where it is "
                "(catalog.options, local.state_dir)"
            ) from None
        except ConfigError:
            raise
        except Exception as error:
            raise Unreachable(f"the lake at {self._where} cannot be read: {error}") from None

    def _run(self, statement: str) -> list[pa.RecordBatch]:
        try:
            found: list[pa.RecordBatch] = self._context.sql(statement)
        except Exception as error:
            raise self._explain(str(error)) from None
        return found

    def _check_read_only(self, statement: str) -> bool:
        """Refuse what is no query; whether it is a plain one, that may stand in brackets."""
        bare = _COMMENT.sub(" ", statement).strip().lower()
        if not bare:
            raise QueryError("no query was given")
        if re.sub(r"\s+", " ", bare).startswith(_LISTINGS):
            return False
        plain = not bare.startswith("explain")
        if not plain:
            bare = re.sub(r"^explain\s+(analyze\s+|verbose\s+)*", "", bare)
            statement = re.sub(
                r"^\s*explain\s+((analyze|verbose)\s+)*", "", statement, flags=re.IGNORECASE
            )
        if not bare.startswith(_QUERIES):
            raise QueryError(
                f"only queries are run here, and this begins with {bare.split()[0].upper()}: "
                "the lake's tables are written by the pipeline alone"
            )
        # Planned inside brackets, where SQL's grammar has room for a query and nothing else.
        self._run(f"EXPLAIN SELECT * FROM (\n{statement}\n) AS checked")
        return plain

    def _explain(self, problem: str) -> Exception:
        problem = problem.removeprefix("Error during planning: ").removeprefix("Schema error: ")
        if found := re.search(r"table '([^']+)' not found", problem):
            known = [table.name for table in TABLES]
            return QueryError(_no_such("table", found[1].split(".")[-1], known))
        if (found := _NO_FIELD.search(problem)) and found[2]:
            known = [field.split(".")[-1] for field in found[2].rstrip(".").split(", ")]
            return QueryError(_no_such("column", found[1].split(".")[-1].strip('"'), known))
        if re.search(r"connection|timed out|dns error|IoUnexpected", problem, re.IGNORECASE):
            return Unreachable(f"the lake at {self._where} cannot be read: {problem}")
        return QueryError(problem)


def _no_such(kind: str, name: str, known: list[str]) -> str:
    near = [k for k in known if k.startswith(name)] or difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"there is no {kind} {name}; {hint}{kind}s: {', '.join(known)}"
