"""`cliplake sql`: a query over the lake, answered on this machine."""

from __future__ import annotations

import csv
import json
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cliplake.console import CommandError, Exit, err, out, print_json
from cliplake.context import context_of
from cliplake.plain import plain, plain_rows
from schemas.text import printable

if TYPE_CHECKING:
    import pyarrow as pa

_SHOWN_ROWS = 50
_SHOWN_BYTES = 12


def register(app: typer.Typer) -> None:
    @app.command()
    def sql(
        context: typer.Context,
        query: Annotated[str, typer.Argument(help="A query; `-` reads it from standard input.")],
        as_json: Annotated[bool, typer.Option("--json", help="A JSON array of rows.")] = False,
        as_csv: Annotated[bool, typer.Option("--csv", help="CSV with a header.")] = False,
        limit: Annotated[
            int | None,
            typer.Option(
                min=1, help=f"Most rows; without it {_SHOWN_ROWS} in a table, all otherwise."
            ),
        ] = None,
    ) -> None:
        """Query the lake: tables `videos`, `clips`, `enriched_clips` and more (`show tables`)."""
        from cliplake.query import LakeSql

        if as_json and as_csv:
            raise _Usage("--json and --csv exclude each other")
        most = limit if limit or as_json or as_csv else _SHOWN_ROWS
        statement = sys.stdin.read() if query == "-" else query
        found = LakeSql(context_of(context).running_settings()).query(statement, most)
        rows = found if most is None else found.slice(0, most)
        if as_json:
            print_json(plain_rows(rows))
        elif as_csv:
            _write_csv(rows)
        else:
            _print_table(rows)
            more = "; there are more (--limit N, --csv)" if found.num_rows > rows.num_rows else ""
            err.print(f"{rows.num_rows} row{'' if rows.num_rows == 1 else 's'}{more}", style="dim")


class _Usage(CommandError):
    exit_code = Exit.USAGE


def _write_csv(table: pa.Table) -> None:
    """The values as they are; on a terminal as they can be shown."""
    shown = printable if sys.stdout.isatty() else str
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(map(shown, table.column_names))
    for row in plain_rows(table):
        cells = (
            json.dumps(v, ensure_ascii=False) if isinstance(v, list | dict) else v
            for v in row.values()
        )
        writer.writerow(shown(cell) if isinstance(cell, str) else cell for cell in cells)


def _print_table(table: pa.Table) -> None:
    """A table on the terminal; with more columns than fit, one record under the other."""
    from rich.table import Table
    from rich.text import Text

    texts = [
        [_shown(value) for value in table.column(i).to_pylist()] for i in range(table.num_columns)
    ]
    widths = [
        max([len(name), *(len(t) for t in column)])
        for name, column in zip(table.column_names, texts, strict=True)
    ]
    if sum(widths) + 3 * len(widths) > out.width and len(widths) > 6:
        for row in range(table.num_rows):
            out.rule(f"row {row + 1}", align="left", style="dim")
            for name, column in zip(table.column_names, texts, strict=True):
                out.print(
                    Text(f"{printable(name):>26}  ", style="dim").append(
                        column[row], style="default"
                    )
                )
        return
    shown = Table(show_edge=False, header_style="bold")
    for name, kind in zip(table.column_names, table.schema.types, strict=True):
        number = str(kind).startswith(("int", "uint", "double", "float", "decimal"))
        shown.add_column(
            Text(printable(name)), justify="right" if number else "left", overflow="fold"
        )
    for cells in zip(*texts, strict=True):
        shown.add_row(*(Text(cell) for cell in cells))
    out.print(shown)


def _shown(value: Any) -> str:
    if value is None:
        return "·"
    if isinstance(value, bytes):
        text = value[:_SHOWN_BYTES].decode("utf-8", "backslashreplace")
        return printable(text) + (f"… ({len(value):,} bytes)" if len(value) > _SHOWN_BYTES else "")
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, float):
        return f"{value:.6g}"
    shown = plain(value)
    if isinstance(shown, list | dict):
        text = json.dumps(shown, ensure_ascii=False)
        return printable(text if len(text) <= 80 else text[:77] + "…")
    return printable(str(shown))
