"""What a recipe's models have to fetch first, said before anything starts."""

from __future__ import annotations

from cliplake.console import CommandError, err
from schemas.recipe import Recipe


def say_downloads(recipe: Recipe) -> None:
    """A line on stderr for each checkpoint that is not on this machine, with its size."""
    if all(operator.checkpoint is None for operator in recipe.operators):
        return
    from cliplake.models import checkpoints_of

    try:
        needs = checkpoints_of(recipe)
    except CommandError:
        return  # The stages' start says what is missing.
    from processors.models.checkpoint import download_bytes

    for name, need in {need.name: need for need in needs}.items():
        if size := download_bytes(need):
            err.print(f"{name}: {size / 1e9:.2f} GB to download, once", markup=False)
