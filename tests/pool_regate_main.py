"""`regate` as a process: `python -m tests.pool_regate_main SETTINGS_JSON RECIPE ROWS_A_COMMIT`."""

from __future__ import annotations

import sys

from processors.pool import regate
from schemas.recipe import load_recipe
from schemas.settings import load_settings_json


def main() -> None:
    settings, recipe, rows = sys.argv[1:]
    regate.ROWS_A_COMMIT = int(rows)
    regate.regate(load_settings_json(settings), load_recipe(recipe))


if __name__ == "__main__":
    main()
