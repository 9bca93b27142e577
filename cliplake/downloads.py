"""What a recipe's models have to fetch first, said before anything starts."""

from __future__ import annotations

from cliplake.console import err
from schemas.recipe import Recipe


def say_downloads(recipe: Recipe) -> None:
    """A line on stderr for each checkpoint that is not on this machine, with its size."""
    # Imported here: it takes a second, and most commands never need it.
    from processors.planning import checkpoints_of

    names = checkpoints_of(recipe)
    if not names:
        return
    try:
        from processors.models.checkpoint import download_bytes
    except ImportError:
        return  # The stages' start says what is missing.
    for name in names:
        if size := download_bytes(name):
            err.print(f"{name}: {size / 1e9:.2f} GB to download, once", markup=False)
