"""Gates: which thresholds of the recipe a clip meets, judged in the recipe's order.

A gate looks at columns and at nothing else, so a clip can be judged again from its row. Bounds
are DataJuicer's: a score passes from ``min_score`` to ``max_score``, both included.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from schemas.operators import (
    AestheticsFilter,
    DataJuicerOperator,
    DurationFilter,
    FrameQualityFilter,
    MotionScoreFilter,
    NsfwFilter,
    Operator,
)
from schemas.reasons import RejectReason
from schemas.recipe import Recipe


@dataclass(frozen=True)
class Gate:
    """The verdict of one operator of a recipe."""

    stage: str
    columns: tuple[str, ...]
    """What it looks at."""
    judge: Callable[[Mapping[str, Any]], RejectReason | None]

    def verdict(self, scores: Mapping[str, Any]) -> RejectReason | None:
        """Why the clip is rejected, or None if it passes.

        Raises `ValueError` if a score is not there or is not a number: nothing passes unjudged.
        """
        for column in self.columns:
            value = scores.get(column)
            if value is None or math.isnan(value):
                raise ValueError(f"gate {self.stage}: {column} is {value}, and has to be a number")
        return self.judge(scores)


def gate_of(operator: Operator) -> Gate | None:
    """The gate of an operator; None if it judges nothing."""
    match operator:
        case NsfwFilter():
            return _between(operator, "nsfw_score", RejectReason.UNSAFE, RejectReason.UNSAFE)
        case MotionScoreFilter():
            return _between(
                operator, "motion_score", RejectReason.LOW_MOTION, RejectReason.HIGH_MOTION
            )
        case AestheticsFilter():
            return _between(
                operator,
                "aesthetics_score",
                RejectReason.LOW_AESTHETICS,
                RejectReason.HIGH_AESTHETICS,
            )
        case FrameQualityFilter():
            return _quality(operator)
    return None


def reject_reasons(operator: Operator) -> tuple[str, ...]:
    """Every ``reject_reason`` that an operator of a recipe may give; none if it judges nothing."""
    reasons: tuple[RejectReason, ...] = ()
    match operator:
        case DurationFilter():
            reasons = (RejectReason.TOO_SHORT, RejectReason.TOO_LONG)
        case NsfwFilter():
            reasons = (RejectReason.UNSAFE,)
        case MotionScoreFilter():
            reasons = (RejectReason.LOW_MOTION, RejectReason.HIGH_MOTION)
        case AestheticsFilter():
            reasons = (RejectReason.LOW_AESTHETICS, RejectReason.HIGH_AESTHETICS)
        case FrameQualityFilter():
            reasons = (RejectReason.LOW_QUALITY,)
        case DataJuicerOperator(kind="filter"):
            return (operator.op,)
    return tuple(reason.value for reason in reasons)


def gates_of(recipe: Recipe) -> list[Gate]:
    """The gates of a recipe after the duration filter, in order."""
    gates = (gate_of(operator) for operator in recipe.operators)
    return [gate for gate in gates if gate is not None]


def may_store_frames(recipe: Recipe, scores: Mapping[str, Any]) -> bool:
    """Whether a clip's frames may be stored: not where safety rejects, or did not judge it."""
    safety = next((o for o in recipe.operators if isinstance(o, NsfwFilter)), None)
    gate = None if safety is None or recipe.store_unsafe_frames else gate_of(safety)
    if gate is None:
        return True
    try:
        return gate.verdict(scores) is None
    except ValueError:
        return False


def _between(
    operator: NsfwFilter | MotionScoreFilter | AestheticsFilter,
    column: str,
    below: RejectReason,
    above: RejectReason,
) -> Gate:
    lowest, highest = operator.min_score, operator.max_score

    def judge(scores: Mapping[str, Any]) -> RejectReason | None:
        if scores[column] < lowest:
            return below
        return above if scores[column] > highest else None

    return Gate(operator.stage, (column,), judge)


def _quality(operator: FrameQualityFilter) -> Gate:
    def judge(scores: Mapping[str, Any]) -> RejectReason | None:
        passes = (
            scores["sharpness"] >= operator.min_sharpness
            and scores["black_fraction"] <= operator.max_black_fraction
            and scores["overexposed_fraction"] <= operator.max_overexposed_fraction
        )
        return None if passes else RejectReason.LOW_QUALITY

    return Gate(operator.stage, ("sharpness", "black_fraction", "overexposed_fraction"), judge)
