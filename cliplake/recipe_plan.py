"""What a recipe would do: each stage, where it runs, how it judges, and what it writes.

Made of the recipe alone; nothing is run and no model is loaded. Of a stage of the user's own the
file is imported, because its declarations are in its class.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from processors.custom_host import HostedStage
from processors.gates import reject_reasons
from processors.planning import custom_stages
from schemas.datajuicer import Modality
from schemas.operators import (
    AestheticsFilter,
    CaptionFromVideo,
    CustomStage,
    DataJuicerOperator,
    DurationFilter,
    ExtractFrames,
    FrameQualityFilter,
    MotionScoreFilter,
    NsfwFilter,
    Operator,
    SplitByScene,
)
from schemas.recipe import Recipe
from schemas.tables import CLIP_FRAMES, CLIPS

FLINK = "Flink"
CPU = "CPU worker"
GPU = "GPU worker, else CPU worker"
ADAPTER = "DataJuicer adapter"

_NO_BOUND = (sys.maxsize, float(sys.maxsize), sys.float_info.max)
"""Upper bounds that every score meets: DataJuicer's defaults."""
_QUALITY = ("sharpness", "brightness", "black_fraction", "overexposed_fraction")


@dataclass(frozen=True)
class Step:
    """One stage of a recipe."""

    stage: str
    operator: str
    runs_on: str
    model: str | None
    parameters: dict[str, Any]
    """Those that differ from their defaults."""
    gate: dict[str, Any] | None
    """The parameters of its verdict, those at their default included; None if it judges nothing."""
    reject_reasons: tuple[str, ...]
    writes: tuple[str, ...]
    """Columns of ``enriched_clips``, or tables."""


def steps_of(recipe: Recipe) -> list[Step]:
    """The stages of a recipe in order.

    `ConfigError` if the declaration of a stage of the user's own is wrong.
    """
    custom = custom_stages(recipe)
    return [_step(o, custom.get(o.op)) for o in (recipe.split, recipe.duration, *recipe.operators)]


def plan_document(recipe: Recipe, steps: Sequence[Step]) -> dict[str, Any]:
    """The plan as JSON."""
    return {
        "recipe": recipe.name,
        "compat": recipe.compat,
        "score_rejected": recipe.score_rejected,
        "store_frames": recipe.store_frames,
        "store_unsafe_frames": recipe.store_unsafe_frames,
        "stages": [asdict(step) for step in steps],
        "fingerprints": fingerprints(recipe),
        "warnings": list(recipe.warnings),
    }


def fingerprints(recipe: Recipe) -> dict[str, str]:
    """The recipe's three fingerprints, as they stand in the tables."""
    return {
        "split": recipe.split_fingerprint,
        "scores": recipe.scores_fingerprint,
        "gates": recipe.gates_fingerprint,
    }


def plan_table(steps: Sequence[Step]) -> Table:
    """The stages as a table for a terminal, one row a stage."""
    table = Table(show_edge=False, header_style="bold", show_lines=True)
    table.add_column("stage", max_width=16, overflow="fold")
    table.add_column("runs on", max_width=20)
    table.add_column("what it does", overflow="fold")
    for step in steps:
        # As Text: what a recipe says is no markup.
        table.add_row(Text(step.stage), Text(step.runs_on), Text(_details(step)))
    return table


def _details(step: Step) -> str:
    gate = step.gate or {}
    others = {
        name: value
        for name, value in step.parameters.items()
        if name not in gate and value != step.model
    }
    bounds = {
        name: value
        for name, value in gate.items()
        if value not in _NO_BOUND
        and (name in step.parameters or not (value is None or isinstance(value, bool)))
    }
    lines = {
        "": step.operator,
        "model": step.model,
        "with": _pairs(others),
        "gate": f"{_pairs(bounds)} → {', '.join(step.reject_reasons)}".strip()
        if step.reject_reasons
        else None,
        "writes": ", ".join(step.writes),
    }
    return "\n".join(f"{name} {value}".strip() for name, value in lines.items() if value)


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _step(operator: Operator, custom: HostedStage | None) -> Step:
    reasons = reject_reasons(operator)
    if custom is not None and custom.has_gate:
        reasons = ("a reason of its own",)
    judged = {k: v for k, v in _gate(operator).items() if k != "any_or_all"}
    return Step(
        stage=operator.stage,
        operator=operator.op,
        runs_on=_runs_on(operator) if custom is None else _declared_place(custom),
        model=_model(operator),
        parameters=operator.changed(),
        gate=judged if reasons else None,
        reject_reasons=reasons,
        writes=_writes(operator),
    )


def _gate(operator: Operator) -> dict[str, Any]:
    if isinstance(operator, DataJuicerOperator):
        declared = operator.signature.parameters
        return {
            name: operator.parameters.get(name, parameter.default)
            for name, parameter in declared.items()
            if parameter.gate and (name in operator.parameters or parameter.has_default)
        }
    return {name: value for name, value in operator.gates().items() if name != "op"}


def _runs_on(operator: Operator) -> str:
    match operator:
        case SplitByScene() | DurationFilter():
            return FLINK
        case DataJuicerOperator():
            return ADAPTER
        case CaptionFromVideo(engine="openai"):
            return f"{CPU}, asking {operator.base_url}"
        case NsfwFilter(engine="transformers") | AestheticsFilter() | CaptionFromVideo():
            return GPU
    return CPU


def _declared_place(stage: HostedStage) -> str:
    """What the class says that it occupies."""
    worker = "GPU worker" if stage.resources.gpus > 0 else CPU
    return f"{worker}, your own stage (batches of {stage.batch_size})"


def _model(operator: Operator) -> str | None:
    match operator:
        case NsfwFilter(engine="open_nsfw_onnx"):
            return "Open NSFW (ONNX)"
        case MotionScoreFilter():
            return "Farneback's optical flow"
        case CaptionFromVideo(engine="openai"):
            return operator.model
        case DataJuicerOperator():
            return f"DataJuicer {operator.version}"
        case CustomStage():
            return str(operator.file)
    return operator.checkpoint


def _writes(operator: Operator) -> tuple[str, ...]:
    models = (f"{operator.stage}_model", f"{operator.stage}_model_revision")
    match operator:
        case SplitByScene():
            return (f"table {CLIPS.name}",)
        case DurationFilter():
            return ("duration_ok",)
        case ExtractFrames():
            return (f"table {CLIP_FRAMES.name}", "frame_count", *_QUALITY)
        case FrameQualityFilter():
            return _QUALITY
        case NsfwFilter():
            return ("nsfw_score", *models)
        case MotionScoreFilter():
            return ("motion_score", *models)
        case AestheticsFilter():
            return ("aesthetics_score", *models)
        case CaptionFromVideo():
            return ("caption", "caption_tokens", *models)
        case DataJuicerOperator(kind="mapper"):
            text = ("caption",) if Modality.TEXT in operator.signature.writes else ()
            return (*text, "operator_outputs", "operator_versions")
    return ("operator_stats", "operator_outputs", "operator_versions")
