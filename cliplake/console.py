"""How the command line talks: results to stdout, everything else to stderr, errors in a line.

Not here: what any command does. A command raises; what that looks like is decided here.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)
from typer.core import TyperGroup

from processors.errors import DependencyFault, MediaError, StageStartError
from schemas.message import MessageRejected
from schemas.problems import ConfigError
from schemas.text import printable

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

LINE_EVERY_S = 5.0
"""Where stderr is no terminal, progress is a line this often instead of a bar."""


class Exit(IntEnum):
    """What an exit code means; the same for every command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    POSITION_LOST = 3
    ALREADY_RUNNING = 4
    COMMIT_FAILED = 5
    UNREACHABLE = 6
    INTERRUPTED = 130


class CommandError(Exception):
    """A command cannot do what it was asked to; the text is for the person."""

    exit_code: int = Exit.FAILED


_EXPECTED: tuple[tuple[type[Exception], Exit], ...] = (
    (ConfigError, Exit.USAGE),
    (StageStartError, Exit.USAGE),
    (MessageRejected, Exit.USAGE),
    (MediaError, Exit.FAILED),
    (DependencyFault, Exit.UNREACHABLE),
)


def exit_code(error: Exception) -> int | None:
    """The exit code of an error that is meant for the person; None for one that is a bug."""
    own = getattr(error, "exit_code", None)
    if isinstance(own, int):
        return own
    return next((code for kind, code in _EXPECTED if isinstance(error, kind)), None)


def report(error: Exception, *, debug: bool) -> int:
    """Print an error to stderr, in red and without a traceback unless asked; its exit code."""
    if debug:
        trace = printable_lines("".join(traceback.format_exception(error)))
        err.print(escape(trace), style="dim")
    code = exit_code(error)
    if code is None:
        text = f"{type(error).__name__}: {error}"
        hint = "" if debug else " (`cliplake --debug …` shows where)"
        err.print(
            f"[bold red]unexpected error[/]: {escape(printable_lines(text))}{hint}", soft_wrap=True
        )
        return Exit.FAILED
    err.print(f"[bold red]error[/]: {escape(printable_lines(str(error)))}", soft_wrap=True)
    return code


def printable_lines(text: str) -> str:
    """`printable`, but for line breaks."""
    return "\n".join(map(printable, text.split("\n")))


def print_json(document: Any, **options: Any) -> None:
    """Print a document to stdout for programs and people: the same values, but no character in
    it can drive a terminal. ``options`` are `json.dumps`'s."""
    text = json.dumps(document, ensure_ascii=False, indent=1, **options)
    if not text.replace("\n", "").isprintable():
        text = "".join(c if c == "\n" or c.isprintable() else json.dumps(c)[1:-1] for c in text)
    sys.stdout.write(f"{text}\n")


def agreed(question: str, to_what: str) -> bool:
    """Whether the person says yes; `ConfigError` where nobody can be asked."""
    if not sys.stdin.isatty():
        raise ConfigError(f"nobody can be asked here: say --yes to {to_what}")
    return typer.confirm(question, err=True)


class Commands(TyperGroup):
    """A group of commands whose errors become a line on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        debug = bool(ctx.params.get("debug"))
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort):
            raise
        except KeyboardInterrupt:
            err.print("interrupted", style="yellow")
            ctx.exit(Exit.INTERRUPTED)
        except BrokenPipeError:
            # The reader of a pipe (`| head`) has gone: nothing is wrong.
            sys.stderr.close()
            ctx.exit(Exit.OK)
        except Exception as error:
            if type(error).__module__.startswith("typer."):
                # A usage error: typer prints it beside the command's usage, exit code 2.
                raise
            ctx.exit(report(error, debug=debug))


def plural(count: int, noun: str) -> str:
    """``1 video``, ``2 videos``, ``3 repeats``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


class Bars:
    """Named counters that grow: bars on a terminal, a line a while elsewhere."""

    def __init__(self, names: list[str], *, totals: dict[str, int] | None = None) -> None:
        self._values = dict.fromkeys(names, 0)
        self._totals: dict[str, int | None] = {name: (totals or {}).get(name) for name in names}
        self._note = ""
        self._said = ""
        self._said_at = time.monotonic()
        self._progress: Progress | None = None
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Bars:
        if err.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description:>10}"),
                BarColumn(bar_width=40),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("[dim]{task.fields[note]}"),
                console=err,
                transient=True,
            )
            self._tasks = {
                name: self._progress.add_task(name, total=self._totals[name], note="")
                for name in self._values
            }
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def update(
        self, values: dict[str, int], totals: dict[str, int] | None = None, note: str = ""
    ) -> None:
        """Show new values; a total may become known later. Cheap to call often."""
        self._values.update(values)
        # A total of nothing is one that is not known yet: an empty bar, not a full one.
        self._totals.update({name: total or None for name, total in (totals or {}).items()})
        self._note = note
        if self._progress is not None:
            for name, task in self._tasks.items():
                last = name == list(self._tasks)[-1]
                self._progress.update(
                    task,
                    completed=self._values[name],
                    total=self._totals[name],
                    note=note if last else "",
                )
            return
        line = ", ".join(
            f"{name} {value:,}" + (f"/{total:,}" if (total := self._totals[name]) else "")
            for name, value in self._values.items()
        )
        now = time.monotonic()
        if line != self._said and now - self._said_at >= LINE_EVERY_S:
            err.print(f"{line}  {note}".rstrip(), markup=False)
            self._said, self._said_at = line, now


@contextmanager
def saying(what: str) -> Iterator[None]:
    """Say what takes a while: a spinner on a terminal, a line elsewhere."""
    if err.is_terminal:
        with err.status(what):
            yield
    else:
        err.print(what, markup=False)
        yield
