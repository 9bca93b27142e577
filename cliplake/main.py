"""The command `cliplake`: global options, and one module a command under `cliplake.commands`.

What is heavy (Ray, Paimon, OpenCV) is imported by the command that needs it, so that
`cliplake --help` answers at once.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from cliplake.commands import (
    cluster,
    dead_letters,
    demo,
    forget,
    ingest,
    maintain,
    models,
    process,
    recipe,
    regate,
    size,
    sql,
    status,
    submit,
    try_,
)
from cliplake.console import Commands
from cliplake.context import Context

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="markdown",
    help="Turns a stream of video uploads into a table of clean, scored clips.",
    epilog=(
        "Exit codes: 0 done · 1 failed · 2 wrong usage, settings or recipe, or a stage that cannot "
        "start · 3 a position in the lake was lost (`process --rescan`) · 4 already running · "
        "5 the lake refuses commits · 6 something cannot be reached · 130 interrupted"
    ),
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cliplake {version('cliplake')}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    settings: Annotated[
        Path | None,
        typer.Option(
            "--settings",
            metavar="FILE",
            help="Settings file; else $CLIPLAKE_SETTINGS, else ./cliplake.yaml if it is there.",
        ),
    ] = None,
    settings_json: Annotated[Path | None, typer.Option("--settings-json", hidden=True)] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    _version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version."),
    ] = False,
) -> None:
    """Options that stand before the command."""
    context.obj = Context(settings_file=settings, settings_json=settings_json, debug=debug)


for command in (
    cluster,
    submit,
    ingest,
    process,
    status,
    demo,
    sql,
    dead_letters,
    try_,
    recipe,
    models,
    regate,
    forget,
    maintain,
    size,
):
    command.register(app)


if __name__ == "__main__":
    app()
