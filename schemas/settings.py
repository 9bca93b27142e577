"""Settings of a deployment: one YAML file, then ``CLIPLAKE__SECTION__KEY`` variables over it.

A recipe says *what* is made of a video; the settings say *where* it runs and how much it may
take. Secrets are read from the environment or from files named here, never from this file.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from schemas.problems import ConfigError, explain, nearest, read_yaml
from schemas.sections import (
    CatalogSettings,
    DecodeSettings,
    FetchSettings,
    FlinkSettings,
    KafkaSettings,
    LocalSettings,
    MaintenanceSettings,
    MetricsSettings,
    ModelSettings,
    PoolSettings,
)

__all__ = [
    "CHECKOUT",
    "CatalogSettings",
    "DecodeSettings",
    "FetchSettings",
    "FlinkSettings",
    "KafkaSettings",
    "LocalSettings",
    "MaintenanceSettings",
    "MetricsSettings",
    "ModelSettings",
    "PoolSettings",
    "Settings",
    "dump_settings",
    "load_settings",
    "load_settings_json",
    "parse_settings_json",
]

DEFAULT_FILE = "cliplake.yaml"
FILE_VARIABLE = "CLIPLAKE_SETTINGS"
ENV_PREFIX = "CLIPLAKE__"


class Settings(BaseSettings):
    """All settings. Build it with `load_settings`, which explains what is wrong in a file."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True)

    recipe: str = "recipes/laptop.yaml"
    """Recipe's file, from the working folder or else the checkout."""
    kafka: KafkaSettings = KafkaSettings()
    catalog: CatalogSettings = CatalogSettings()
    flink: FlinkSettings = FlinkSettings()
    fetch: FetchSettings = FetchSettings()
    decode: DecodeSettings = DecodeSettings()
    pool: PoolSettings = PoolSettings()
    maintenance: MaintenanceSettings = MaintenanceSettings()
    metrics: MetricsSettings = MetricsSettings()
    models: ModelSettings = ModelSettings()
    local: LocalSettings = LocalSettings()
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Of what the pool's driver logs."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        environment = EnvSettingsSource(
            settings_cls, env_prefix=ENV_PREFIX, env_nested_delimiter="__", case_sensitive=False
        )
        # A variable wins over the file: the file is given as the initial values.
        return environment, init_settings

    # Derived places: one rule each, so that no two parts disagree about where a thing is.

    @property
    def state_dir(self) -> Path:
        """Folder of everything that ``up`` keeps on this machine, absolute."""
        return Path(self.local.state_dir).expanduser().resolve()

    def anchored(self) -> Settings:
        """The same settings with every relative path made absolute, from the working folder."""
        changed: dict[str, Any] = {"recipe": str(self.recipe_file)}
        for section, keys in _PATHS.items():
            values = getattr(self, section)
            changed[section] = values.model_copy(
                update={key: _absolute(getattr(values, key)) for key in keys}
            )
        return self.model_copy(update=changed)

    @property
    def recipe_file(self) -> Path:
        """The recipe's file, absolute: from the working folder, else from the checkout."""
        named = Path(self.recipe).expanduser()
        return named.resolve() if named.exists() else CHECKOUT / named

    @property
    def catalog_options(self) -> dict[str, str]:
        """Options for a Paimon catalog, the default warehouse filled in."""
        options = dict(self.catalog.options)
        if "warehouse" not in options:
            options["warehouse"] = (self.state_dir / "lake").as_uri()
        return options

    @property
    def checkpoint_dir(self) -> str:
        """URI of the folder that holds one folder of checkpoints a job."""
        return self.flink.checkpoint_dir or (self.state_dir / "checkpoints").as_uri()

    @property
    def scratch_dir(self) -> Path:
        """Folder for fetched bytes and temporary files, absolute."""
        if self.fetch.scratch_dir:
            return Path(self.fetch.scratch_dir).expanduser().resolve()
        return self.state_dir / "scratch"

    @property
    def model_dir(self) -> Path:
        """Folder of model files, absolute."""
        if self.models.dir:
            return Path(self.models.dir).expanduser().resolve()
        return CHECKOUT / ".cache" / "models"

    @property
    def flink_python(self) -> Path:
        """Interpreter of the ``flink`` environment, absolute."""
        return Path(self.flink.python) if self.flink.python else CHECKOUT / ".venv-flink/bin/python"

    @property
    def datajuicer_python(self) -> Path:
        """Interpreter of the ``datajuicer`` environment, absolute."""
        named = self.pool.datajuicer_python
        return Path(named) if named else CHECKOUT / ".venv-datajuicer/bin/python"

    @property
    def flink_jars(self) -> Path:
        """Folder with the connector jars of the Flink jobs, absolute."""
        return Path(self.flink.jars) if self.flink.jars else CHECKOUT / ".cache" / "jars" / "flink"


CHECKOUT = Path(__file__).resolve().parent.parent
"""The folder this application runs from: a checkout or the image's copy of one."""


_PATHS = {
    "flink": ("python", "jars"),
    "fetch": ("file_roots", "scratch_dir"),
    "models": ("dir",),
    "pool": ("datajuicer_python",),
    "local": ("state_dir",),
}
"""Settings that are paths on this machine; empty ones stand for their default."""


_OF_A_NODE = (("fetch", "scratch_dir"), ("models", "dir"), ("pool", "datajuicer_python"))
"""Places that may differ between the machines of a cluster. What decides over rows, or what may
be read, is the driver's alone."""


def on_this_node(settings: Settings) -> Settings:
    """A driver's settings with the places that this machine's own ``CLIPLAKE__`` variables name."""
    for section, key in _OF_A_NODE:
        place = os.environ.get(f"{ENV_PREFIX}{section}__{key}".upper())
        if place:
            values = getattr(settings, section).model_copy(update={key: str(_absolute(place))})
            settings = settings.model_copy(update={section: values})
    return settings


def _absolute(value: str | tuple[str, ...]) -> str | tuple[str, ...]:
    if isinstance(value, tuple):
        return tuple(str(Path(item).expanduser().absolute()) for item in value)
    return str(Path(value).expanduser().absolute()) if value else value


def load_settings(path: str | Path | None = None, **overrides: Any) -> Settings:
    """Settings from a YAML file and the environment; `ConfigError` says what is wrong and where.

    Without ``path``: the file named by ``CLIPLAKE_SETTINGS``, else ``cliplake.yaml`` in the
    working folder if it is there, else the defaults. ``overrides`` are sections as dicts, and
    win over the file but not over the environment.
    """
    found = _find_file(path)
    values: dict[str, Any] = _read_yaml(found) if found else {}
    for section, section_values in overrides.items():
        in_file = values.get(section) or {}
        if isinstance(section_values, dict) and isinstance(in_file, dict):
            values[section] = {**in_file, **section_values}
        else:
            values[section] = section_values
    where = str(found) if found else "settings"
    _check_environment()
    try:
        return Settings(**values)
    except ValidationError as error:
        raise explain(error, Settings, f"{where} or a {ENV_PREFIX}* variable") from None
    except SettingsError as error:
        # A variable that holds a list or a mapping has to be JSON; this names the variable's field.
        raise ConfigError(
            f"a {ENV_PREFIX}* variable: {error}; lists and mappings are written as JSON, "
            """like CLIPLAKE__FETCH__FILE_ROOTS='["/videos"]'"""
        ) from None


def dump_settings(settings: Settings) -> str:
    """Settings as JSON, for a process that must have exactly these: see `load_settings_json`.

    Its working folder may be another one, so paths come out absolute.
    """
    return settings.anchored().model_dump_json()


def load_settings_json(path: str | Path) -> Settings:
    """Settings as `dump_settings` wrote them; neither a YAML file nor a variable changes them."""
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(f"settings file {file} cannot be read: {error}") from None
    return parse_settings_json(text, where=str(file))


def parse_settings_json(text: str, *, where: str) -> Settings:
    """As `load_settings_json`, from its text; ``where`` stands in the errors."""
    try:
        return _Exactly(**json.loads(text))
    except ValidationError as error:
        raise explain(error, Settings, where) from None
    except (ValueError, TypeError) as error:
        raise ConfigError(f"settings in {where} cannot be read: {error}") from None


class _Exactly(Settings):
    """Settings without the environment: the parent process has already applied it."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


def _find_file(path: str | Path | None) -> Path | None:
    named = path or os.environ.get(FILE_VARIABLE)
    if named:
        file = Path(named).expanduser()
        if not file.is_file():
            raise ConfigError(f"settings file {file} is not there")
        return file
    default = Path(DEFAULT_FILE)
    return default if default.is_file() else None


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"settings file {file} cannot be read: {error}") from None
    values = read_yaml(text, f"settings file {file}")
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(
            f"settings file {file} should hold sections, like 'kafka:', and holds none"
        )
    return values


def _check_environment() -> None:
    """Refuse ``CLIPLAKE__`` variables that set nothing: a typo would be silent otherwise."""
    for name in os.environ:
        if not name.upper().startswith(ENV_PREFIX):
            continue
        first, *rest = name[len(ENV_PREFIX) :].lower().split("__")
        info = Settings.model_fields.get(first)
        if info is None:
            raise ConfigError(
                f"variable {name}: unknown section {first!r}"
                + nearest(first, Settings.model_fields)
            )
        annotation = info.annotation
        if not (rest and isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            continue
        if rest[0] not in annotation.model_fields:
            raise ConfigError(
                f"variable {name}: unknown key {rest[0]!r} in {first}"
                + nearest(rest[0], annotation.model_fields)
            )
