"""What each stage costs, as it was measured: read, checked and stored. No arithmetic here.

A machine's own measurements lie in its state folder; those that come with the package are of the
machine that they name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.ids import fingerprint
from schemas.operator import Operator
from schemas.problems import ConfigError, explain
from schemas.settings import Settings

SHIPPED = Path(__file__).with_name("costs.json")
OWN_NAME = "costs.json"
"""In the state folder."""

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StageCost(_Model):
    """One stage at one resolution."""

    seconds: Seconds
    """CPU or GPU seconds for each second of video."""
    unit: Literal["cpu", "gpu"] = "cpu"
    parameters: str = ""
    """Fingerprint of the operator's parameters; empty for what no operator's parameters change."""


class Origin(_Model):
    """When, where and with what something was measured."""

    date: str
    machine: str
    load: Seconds
    """Load average of the machine over the minute before the end."""
    versions: dict[str, str]
    inputs: str
    """What was measured on, or by which command."""


class ArrivalsCost(_Model):
    """The arrivals job, which only a broker and a Flink cluster can measure."""

    seconds: Seconds
    """CPU seconds of the TaskManager and its Python worker for each message."""
    origin: Origin


class Costs(_Model):
    """All that was measured on one machine."""

    origin: Origin
    clip_seconds: Seconds
    """Mean length of the clips that were measured."""
    resolutions: dict[str, dict[str, StageCost]]
    """By resolution (``720p``: the shorter side), then by stage."""
    arrivals: ArrivalsCost | None = None


def own_file(settings: Settings) -> Path:
    """Where this machine's own measurements are kept."""
    return settings.state_dir / OWN_NAME


def load_costs(settings: Settings) -> Costs:
    """This machine's own measurements if there are any, else the package's.

    What only the package has (arrivals) is taken from there. `ConfigError` if the file is broken.
    """
    shipped = read_costs(SHIPPED)
    file = own_file(settings)
    if not file.exists():
        return shipped
    own = read_costs(file)
    return own.model_copy(update={"arrivals": own.arrivals or shipped.arrivals})


def read_costs(file: Path) -> Costs:
    """Costs from a file; `ConfigError` says what is wrong in it."""
    try:
        return Costs.model_validate_json(file.read_text(encoding="utf-8"))
    except ValidationError as error:
        problem = explain(error, Costs, str(file))
    except (OSError, UnicodeDecodeError) as error:
        problem = ConfigError(f"{file} cannot be read: {error}")
    raise ConfigError(f"{problem}; `cliplake size --measure` writes it anew") from None


def write_costs(file: Path, costs: Costs) -> None:
    """Store costs, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(file.name + ".partial")
    text = json.dumps(costs.model_dump(mode="json"), indent=1)
    partial.write_text(f"{text}\n", encoding="utf-8")
    partial.replace(file)


def parameters_of(operator: Operator) -> str:
    """What `StageCost.parameters` holds for an operator: another model costs something else."""
    return fingerprint(operator.score_parameters())
