"""What the tests of DataJuicer's operators share: its interpreter, operators, clips' files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from processors.datajuicer.hosts import DataJuicerHost
from processors.datajuicer.stage import DataJuicerStage
from schemas.datajuicer import signatures
from schemas.operators import DataJuicerOperator
from schemas.settings import CHECKOUT, Settings, load_settings

PYTHON = CHECKOUT / ".venv-datajuicer" / "bin" / "python"


def need_datajuicer() -> None:
    """Fail, rather than skip, where the environment is missing."""
    if not PYTHON.exists():
        pytest.fail(f"{PYTHON} is missing: run make setup-datajuicer")


def settings_in(folder: Path, **pool: Any) -> Settings:
    """Settings that may read the samples and ``folder``, with their scratch files there."""
    return load_settings(
        fetch={"file_roots": (str(CHECKOUT / ".cache" / "samples"), str(folder))},
        local={"state_dir": str(folder / "state")},
        pool=pool,
    )


def operator(name: str, parameters: dict[str, Any] | None = None) -> DataJuicerOperator:
    kind, version = name.rpartition("_")[2], signatures().version
    return DataJuicerOperator(name=name, kind=kind, parameters=parameters or {}, version=version)


def stage_on(
    host: DataJuicerHost,
    settings: Settings,
    name: str,
    parameters: dict[str, Any] | None = None,
) -> DataJuicerStage:
    """A stage of one operator that ``host`` has, set up."""
    stage = DataJuicerStage(operator(name, parameters), host, settings)
    stage.setup()
    return stage
