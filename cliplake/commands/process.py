"""`cliplake process`: the pool's driver in the foreground."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from cliplake.context import context_of, recipe_of
from cliplake.downloads import say_downloads


def register(app: typer.Typer) -> None:
    @app.command()
    def process(
        context: typer.Context,
        rescan: Annotated[
            bool,
            typer.Option(
                "--rescan",
                help="Read the whole table of clips once, then follow it; what has a result of "
                "this recipe keeps it. The way on after a position in the lake was lost.",
            ),
        ] = False,
        any_split: Annotated[
            bool,
            typer.Option(
                "--any-split",
                help="Take clips that were cut by another split than the recipe's too; without "
                "it they are an error.",
            ),
        ] = False,
    ) -> None:
        """Score clips as they arrive, until it is told to stop (SIGTERM or Ctrl-C)."""
        from processors.pool.driver import Driver

        settings = context_of(context).running_settings()
        logging.basicConfig(
            level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
        )
        recipe = recipe_of(settings)
        say_downloads(recipe)
        Driver(settings, recipe).run(rescan=rescan, any_split=any_split)
