"""`cliplake recipe check`: what a recipe would do, without doing any of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from cliplake.console import out, plural, print_json
from schemas.recipe import load_recipe


def register(app: typer.Typer) -> None:
    recipes = typer.Typer(no_args_is_help=True, help="Look at recipes.")
    app.add_typer(recipes, name="recipe")

    @recipes.callback()
    def group() -> None:
        """Look at recipes."""

    @recipes.command()
    def check(
        file: Annotated[Path, typer.Argument(metavar="FILE", help="Recipe file.")],
        as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
    ) -> None:
        """Print what a recipe would do: stages, places, models, gates, and what is written.

        Nothing is run and no model is loaded. An operator or parameter that is wrong, or that
        cannot run on a stream, is an error with exit code 2.
        """
        from cliplake.recipe_plan import fingerprints, plan_document, plan_table, steps_of

        recipe = load_recipe(file)
        steps = steps_of(recipe)
        if as_json:
            print_json(plan_document(recipe, steps))
            return
        out.print(Text(f"recipe {recipe.name}, compat {recipe.compat}\n"))
        out.print(plan_table(steps))
        rejected = (
            "scored by every stage all the same"
            if recipe.score_rejected
            else "not scored by those that follow (motion and quality come with decoding)"
        )
        out.print(f"\nGates judge in this order; a clip that one of them rejects is {rejected}.")
        prints = ", ".join(f"{name} {value}" for name, value in fingerprints(recipe).items())
        out.print(f"Fingerprints: {prints}")
        if recipe.warnings:
            out.print(f"\n{plural(len(recipe.warnings), 'warning')}:", style="yellow")
            for warning in recipe.warnings:
                out.print(Text(f"- {warning}"), soft_wrap=True)
