"""A driver in a process of its own: ``python -m tests.pool_driver_main SETTINGS RECIPE CHAIN``."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from processors.pool.cluster import prepare_environment
from processors.pool.driver import Driver
from schemas.recipe import parse_recipe
from schemas.settings import load_settings_json


def main() -> None:
    logging.basicConfig(level=logging.INFO)
    settings = load_settings_json(sys.argv[1])
    recipe = parse_recipe(Path(sys.argv[2]).read_text(), where="test", default_name="test")
    prepare_environment(settings)
    Driver(settings, recipe, chain=sys.argv[3]).run()


if __name__ == "__main__":
    main()
