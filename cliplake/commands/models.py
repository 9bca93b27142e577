"""`cliplake models`: what a recipe's models are, fetching them, and comparing them again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from cliplake.console import Bars, CommandError, err, out, plural, print_json
from cliplake.context import context_of, recipe_of
from processors.errors import FetchError
from schemas.recipe import Recipe
from schemas.settings import Settings

if TYPE_CHECKING:
    from processors.models.checkpoint import ModelNeed
    from processors.models.fetching import Fetched

_RecipeFile = Annotated[
    Path | None,
    typer.Argument(metavar="[RECIPE]", help="Recipe file; else the settings' own."),
]
_AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]
_LOOK_EVERY_S = 0.5
_MB = 1_000_000


def register(app: typer.Typer) -> None:
    models = typer.Typer(no_args_is_help=True, help="Look at models, fetch and verify them.")
    app.add_typer(models, name="models")

    @models.callback()
    def group() -> None:
        """Look at models, fetch and verify them."""

    @models.command("list")
    def list_(context: typer.Context, recipe: _RecipeFile = None, as_json: _AsJson = False) -> None:
        """The models that a recipe needs: revision, size, licence, where they are, their state.

        No hub is asked.
        """
        settings, chosen = _chosen(context, recipe)
        from cliplake.models import model_rows, models_document, models_table

        rows = model_rows(chosen, settings.recipe_file, settings)
        if as_json:
            print_json(models_document(chosen, rows))
        elif rows:
            out.print(models_table(rows))
        else:
            out.print(f"recipe {chosen.name} needs no model", markup=False)

    @models.command()
    def fetch(context: typer.Context, recipe: _RecipeFile = None) -> None:
        """Fetch what is missing or damaged, convert pickled weights, and record all hashes.

        What is here is kept, so it can be run again at any time. A model that is built in comes
        with `make setup`.
        """
        settings, chosen = _chosen(context, recipe)
        from cliplake.downloads import say_downloads
        from cliplake.models import built_in_problem, checkpoints_of, has_built_in

        needs = checkpoints_of(chosen, settings.recipe_file)
        say_downloads(chosen)
        failed = []
        for need in _once_each(needs):
            try:
                _print_fetched(_fetch(need))
            except FetchError as error:
                failed.append(f"{need.name}: {error}")
        if has_built_in(chosen) and (problem := built_in_problem(settings)):
            failed.append(problem)
        if not (needs or failed):
            err.print(f"recipe {chosen.name} needs no model of a hub", markup=False)
        if failed:
            raise CommandError("\n".join(failed))

    @models.command()
    def verify(
        context: typer.Context, recipe: _RecipeFile = None, as_json: _AsJson = False
    ) -> None:
        """Compare the hashes of all files with those that were recorded; exit code 1 if any differ,
        or if a model is not here.

        No hub is asked.
        """
        settings, chosen = _chosen(context, recipe)
        from cliplake.models import differences

        found = differences(chosen, settings)
        if as_json:
            print_json({"recipe": chosen.name, "differences": found})
        else:
            for name, lines in found.items():
                out.print(Text(f"{name}: {'not as recorded' if lines else 'as recorded'}"))
        wrong = [f"{name}: {line}" for name, lines in found.items() for line in lines]
        if wrong:
            raise CommandError("\n".join(wrong))


def _chosen(context: typer.Context, recipe: Path | None) -> tuple[Settings, Recipe]:
    settings = context_of(context).settings()
    if recipe is not None:
        settings = settings.model_copy(update={"recipe": str(recipe)})
    return settings, recipe_of(settings)


def _once_each(needs: list[ModelNeed]) -> list[ModelNeed]:
    """One for each name; the one that needs most of it."""
    return list({need.name: need for need in sorted(needs, key=lambda n: n.tokenizer)}.values())


def _fetch(need: ModelNeed) -> Fetched:
    from processors.models import hub
    from processors.models.checkpoint import download_bytes
    from processors.models.fetching import fetch_folder, fetch_repository

    doing = [""]

    def say(what: str) -> None:
        doing[0] = f"{need.name}: {what}"

    if folder := need.folder:
        with _progress(need.name, 0, doing):
            return fetch_folder(folder, tokenizer=need.tokenizer, say=say)
    if not hub.is_repository(need.name):
        raise FetchError("it is no folder here, and no name of a hub's repository (owner/name)")
    with _progress(need.name, download_bytes(need), doing):
        return fetch_repository(need.name, tokenizer=need.tokenizer, say=say, quiet=True)


@contextmanager
def _progress(name: str, size: int, doing: list[str]) -> Iterator[None]:
    """Megabytes that have come, by what is on the disk: it holds for every way of the client's."""
    from processors.models import hub

    before, done = hub.bytes_in_cache(name), Event()
    with Bars(["MB"], totals={"MB": size // _MB}) as bars:

        def look() -> None:
            while not done.wait(_LOOK_EVERY_S):
                come = max(0, min(size, hub.bytes_in_cache(name) - before))
                bars.update({"MB": come // _MB}, note=doing[0])

        thread = Thread(target=look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def _print_fetched(fetched: Fetched) -> None:
    record = fetched.record
    made = f", {plural(len(record.converted), 'file')} of safetensors made" * bool(record.converted)
    err.print(
        f"{record.model}: {record.commit}, {plural(len(record.files), 'file')}{made}, "
        f"{record.size / 1e9:.2f} GB, licence {record.licence or 'not stated'}, in "
        f"{fetched.folder}",
        markup=False,
        soft_wrap=True,
    )
