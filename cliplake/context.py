"""What the options before a command say, for the command to use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from schemas.problems import ConfigError
from schemas.recipe import Recipe, load_recipe
from schemas.settings import Settings, load_settings, load_settings_json


@dataclass(frozen=True)
class Context:
    """Where the settings are, and whether tracebacks are wanted."""

    settings_file: Path | None
    settings_json: Path | None
    debug: bool

    def settings(self, **overrides: Any) -> Settings:
        """The settings that this call runs with; ``overrides`` as in `load_settings`."""
        if self.settings_json is not None:
            if self.settings_file is not None:
                raise ConfigError("--settings and --settings-json exclude each other")
            return load_settings_json(self.settings_json)
        return load_settings(self.settings_file, **overrides)

    def running_settings(self) -> Settings:
        """The settings of the stack that runs in their state folder, with the ports it chose.

        Without one: just the settings.
        """
        from deploy.local.state import StateFolder

        settings = self.settings()
        if self.settings_json is not None:
            return settings
        return StateFolder(settings.state_dir).running_settings() or settings


def context_of(context: typer.Context) -> Context:
    """The `Context` that the global options made."""
    found = context.obj
    assert isinstance(found, Context)
    return found


def recipe_of(settings: Settings) -> Recipe:
    """The recipe that the settings name."""
    return load_recipe(settings.recipe_file)
