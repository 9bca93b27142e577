"""`regate` in a process of its own that kills itself with -9 at a named point.

``python -m tests.pool_regate_main SETTINGS_JSON RECIPE ROWS_A_COMMIT POINT NTH``
"""

from __future__ import annotations

import sys

from processors.pool import regate
from schemas.recipe import load_recipe
from schemas.settings import load_settings_json
from tests.pool_driver_main import kill_at


def main() -> None:
    settings, recipe, rows, point, nth = sys.argv[1:]
    regate.ROWS_A_COMMIT = int(rows)
    kill_at(point, int(nth))
    regate.regate(load_settings_json(settings), load_recipe(recipe))


if __name__ == "__main__":
    main()
