"""A driver in a process of its own, for the tests of the pool."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from processors.failpoints import VARIABLE
from schemas.recipe import Recipe, dump_recipe
from schemas.settings import CHECKOUT, Settings, dump_settings
from tests import pool_lake


class Process:
    """Runs `tests.pool_driver_main` over the settings' lake; its output is in ``log``."""

    def __init__(
        self,
        settings: Settings,
        *,
        chain: str = "tests.pool_chains:Scripted",
        recipe: Recipe | None = None,
        failpoints: Path | None = None,
    ) -> None:
        """``failpoints``: the folder in which they are armed (`processors.failpoints`)."""
        folder = settings.state_dir
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "settings.json").write_text(dump_settings(settings))
        (folder / "recipe.json").write_text(dump_recipe(recipe or pool_lake.recipe()))
        self.log: Path = folder / "driver.log"
        files = (str(folder / "settings.json"), str(folder / "recipe.json"))
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.pool_driver_main", *files, chain],
                cwd=CHECKOUT,
                env={**os.environ, VARIABLE: str(failpoints or "")},
                stdout=log,
                stderr=log,
            )

    def wait(self) -> int:
        try:
            return self.process.wait(timeout=90)
        finally:
            self.kill()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
