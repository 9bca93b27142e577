"""`cliplake regate`: verdicts anew from stored scores, after a change of gates."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from cliplake.console import Bars, out, plural
from cliplake.context import context_of, recipe_of
from schemas.recipe import load_recipe

if TYPE_CHECKING:
    from processors.pool.regate import Regated


def register(app: typer.Typer) -> None:
    @app.command()
    def regate(
        context: typer.Context,
        recipe: Annotated[
            Path | None,
            typer.Option("--recipe", metavar="FILE", help="Recipe; else the settings' own."),
        ] = None,
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Only count; write nothing.")
        ] = False,
    ) -> None:
        """Decide clips anew by a recipe's gates, from their stored scores and without a model.

        For clips that were scored as the recipe says and judged by other thresholds. The pool's
        driver must not run meanwhile, except for --dry-run.
        """
        from processors.pool.regate import regate as regate_rows

        settings = context_of(context).running_settings()
        logging.basicConfig(level=logging.WARNING)
        chosen = load_recipe(recipe) if recipe is not None else recipe_of(settings)
        with Bars(["clips"]) as bars:
            found = regate_rows(
                settings,
                chosen,
                dry_run=dry_run,
                progress=lambda so_far: bars.update({"clips": so_far.decided}),
            )
        _print(found, dry_run)
        own = chosen if recipe is None else recipe_of(settings)
        if own.gates_fingerprint != chosen.gates_fingerprint:
            out.print(
                f"clips to come are judged by {escape(settings.recipe)}, the settings' recipe, "
                "whose gates are others",
                style="yellow",
                soft_wrap=True,
            )


def _print(found: Regated, dry_run: bool) -> None:
    from processors.pool.regate import KEPT
    from processors.regating import Undecided

    if count := found.other_scores:
        out.print(
            f"{plural(count, 'clip')} left as they are: they were scored by other stages or "
            "parameters; `cliplake process --rescan` scores them as the recipe says",
            soft_wrap=True,
        )
    if not found.decided and not found.undecided:
        out.print("no clip has these scores and other gates: there is nothing to decide")
        return
    would = "would be " if dry_run else ""
    out.print(f"{plural(found.decided, 'clip')} {would}decided anew:")
    kinds: dict[str, Counter[str]] = {"rejected": Counter(), "kept": Counter(), "other": Counter()}
    for (before, after), count in found.changed.items():
        if before == KEPT:
            kinds["rejected"][after] += count
        elif after == KEPT:
            kinds["kept"][before] += count
        else:
            kinds["other"][f"{before} → {after}"] += count
    for kind, words in (
        ("rejected", "kept → rejected"),
        ("kept", "rejected → kept"),
        ("other", "rejected for another reason"),
    ):
        by = ", ".join(f"{reason} {count:,}" for reason, count in sorted(kinds[kind].items()))
        out.print(
            f"  {words}: {kinds[kind].total():,}" + (f" ({by})" if by else ""), soft_wrap=True
        )
    out.print(f"  unchanged: {found.unchanged:,}")
    if count := found.undecided[Undecided.NEEDS_SCORING]:
        out.print(
            f"{plural(count, 'clip')} left as they are: the gates ask for scores that were never "
            "measured; `cliplake process --rescan` measures them",
            soft_wrap=True,
        )
    if count := found.undecided[Undecided.FAILED]:
        out.print(f"{plural(count, 'clip')} left as they are: they could not be scored")
