"""`cliplake up` and `cliplake down`: the whole service on this machine."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from cliplake.console import CommandError, err, out, saying
from cliplake.context import context_of, recipe_of
from cliplake.downloads import say_downloads
from schemas.settings import CHECKOUT, Settings, dump_settings

_LOG_TAIL_LINES = 15


def register(app: typer.Typer) -> None:
    @app.command()
    def up(
        context: typer.Context,
        detach: Annotated[
            bool, typer.Option("--detach", "-d", help="Return once everything serves.")
        ] = False,
        new_state: Annotated[
            bool,
            typer.Option(
                "--new-state",
                help="Start the jobs without their kept checkpoints, as `ingest` does it.",
            ),
        ] = False,
        ready_file: Annotated[Path | None, typer.Option("--ready-file", hidden=True)] = None,
    ) -> None:
        """Start the broker, Flink with both jobs, Ray and the pool, and watch over them.

        What is already there is used instead: see `local.start_*` in the settings. Ctrl-C or
        `cliplake down` stops everything; topic, lake and checkpoints stay.
        """
        from processors.pool.lake_store import require_answer

        settings = context_of(context).settings()
        if settings.local.start_pool:
            say_downloads(recipe_of(settings))
        for root in settings.fetch.file_roots:
            if not Path(root).expanduser().is_dir():
                text = escape(f"{root}, which fetch.file_roots names, is no folder on this machine")
                err.print(f"[yellow]note[/]: {text}", soft_wrap=True)
        require_answer(settings.catalog_options)
        if detach:
            _detach(settings, new_state)
            return
        from deploy.local.stack import Stack

        with Stack(settings, log=say, new_state=new_state) as stack:
            _print_addresses(stack.settings)
            if ready_file is not None:
                ready_file.touch()
            try:
                stack.watch(lambda: False)
            except KeyboardInterrupt:
                say("stopping: the pool drains, checkpoints stay")

    @app.command()
    def down(context: typer.Context) -> None:
        """Stop what `cliplake up` started in this state folder, leftovers included."""
        from deploy.local.down import down as stop

        settings = context_of(context).settings()
        if not stop(settings, log=say):
            say(f"nothing runs in {settings.state_dir}")


def say(line: str) -> None:
    """One line about what the stack does, to stderr."""
    err.print(escape(line), style="dim", soft_wrap=True)


def _detach(settings: Settings, new_state: bool) -> None:
    """Start `up` in a session of its own and wait until it serves or ends."""
    from deploy.local.private_files import write_private
    from deploy.local.state import StateFolder

    state = settings.state_dir
    # Before anything that belongs to the one that runs is written over, its log above all.
    StateFolder(state).require_free()
    (state / "logs").mkdir(parents=True, exist_ok=True)
    settings_file, ready, log = state / "up.json", state / "up.ready", state / "logs" / "up.log"
    write_private(settings_file, dump_settings(settings))
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-m", "cliplake.main", "--settings-json", str(settings_file)]
    command += ["up", "--ready-file", str(ready), *(["--new-state"] if new_state else [])]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=CHECKOUT,
            start_new_session=True,
        )
    with saying("starting broker, Flink, Ray and the pool"):
        while not ready.exists():
            if process.poll() is not None:
                settings_file.unlink(missing_ok=True)
                tail = log.read_text(encoding="utf-8", errors="replace").splitlines()
                raise NotUp(
                    "\n".join(["it did not come up:", *tail[-_LOG_TAIL_LINES:], f"log: {log}"]),
                    process.returncode,
                )
            time.sleep(0.2)
    # It has been read, and passwords that came by variables are in it.
    settings_file.unlink(missing_ok=True)
    out.print(log.read_text(encoding="utf-8", errors="replace").rstrip(), markup=False)
    say(f"runs on as process {process.pid}, log {log}; `cliplake down` stops it")


class NotUp(CommandError):
    """The detached stack ended before it served; with its exit code."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


def _print_addresses(settings: Settings) -> None:
    rest = settings.flink
    for what, where in (
        ("Kafka", f"{settings.kafka.bootstrap_servers}, topic {settings.kafka.topic}"),
        ("Flink", f"http://{rest.rest_address}:{rest.rest_port}"),
        ("lake", f"{settings.catalog_options['warehouse']}, database {settings.catalog.database}"),
        ("logs", str(settings.state_dir / "logs")),
    ):
        out.print(f"{what:<6} {escape(where)}", soft_wrap=True)
    out.print('ready: `cliplake submit FILE…`, `cliplake status`, `cliplake sql "select …"`')
