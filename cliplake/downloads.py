"""What a recipe's models have to fetch first, said before anything starts."""

from __future__ import annotations

from cliplake.console import err
from schemas.recipe import Recipe


def say_downloads(recipe: Recipe) -> None:
    """A line on stderr for each checkpoint that is not on this machine, with its size."""
    names = [o.checkpoint for o in recipe.operators if o.checkpoint is not None]
    if not names:
        return
    try:
        from processors.models.checkpoint import download_bytes
    except ImportError:
        return  # The stages' start says what is missing.
    for name in names:
        if size := download_bytes(name):
            err.print(f"{name}: {size / 1e9:.2f} GB to download, once", markup=False)
