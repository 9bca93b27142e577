"""A clip's verdict anew, from the scores in its row: what a change of gates alone asks for.

The row was scored by the same operators, so the verdict is the one that scoring it again would
give. Where a score that the new verdict needs was never measured, because an earlier gate had
stopped the clip, there is no verdict here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from processors.custom_host import HostedStage
from processors.duration import duration_verdict
from processors.errors import MediaError
from processors.gates import gate_of, may_store_frames, reject_reasons
from processors.results import DURATION_REASONS
from schemas.datajuicer import signatures
from schemas.operators import (
    CaptionFromVideo,
    CustomStage,
    DataJuicerOperator,
    ExtractFrames,
    Operator,
)
from schemas.reasons import ClipStatus
from schemas.recipe import Recipe


class Undecided(Enum):
    """Why a row cannot be judged from what it holds."""

    NEEDS_SCORING = "needs scoring"
    FAILED = "failed"
    """It has no verdict to change: it could not be scored."""


@dataclass(frozen=True)
class Verdict:
    """The new verdict on a clip."""

    reason: str | None
    """Why it is rejected; None if it is kept."""


def verdict_of(
    row: Mapping[str, Any], recipe: Recipe, custom: Mapping[str, HostedStage]
) -> Verdict | Undecided:
    """Judge a row of ``enriched_clips`` by the recipe's gates.

    ``row`` has the recipe's ``scores_fingerprint``; its maps are dicts. ``custom`` are the
    recipe's stages of the user's own by operator (`processors.planning.custom_stages`), of which
    only the gates are asked.
    """
    if row["status"] == ClipStatus.FAILED.value:
        return Undecided.FAILED
    reason: str | None = duration_verdict(row["duration_s"], recipe.duration)
    if reason is not None:
        return Verdict(str(reason))
    # As a clip has it that is scored: the row's own is of the recipe that judged it last.
    row = {**row, "duration_ok": True}
    scored = _scored(row, recipe)
    # Frames are counted whenever a clip is decoded, and one that is kept was decoded well.
    complete = scored > 0 or row["frame_count"] is not None
    for place, operator in enumerate(recipe.operators):
        measured = place < scored or _is_measured(operator, row)
        if not reject_reasons(operator) and not _has_own_gate(operator, custom):
            complete = complete and measured
            continue
        # What it looked at is not in the row any more.
        told = measured and not _was_rewritten(recipe.operators[place:], row, custom)
        verdict = _judge(operator, row, custom) if told else Undecided.NEEDS_SCORING
        if verdict != Verdict(None):
            return verdict
    if not complete or _lacks_frames(row, recipe):
        return Undecided.NEEDS_SCORING
    return Verdict(None)


def regated(row: Mapping[str, Any], verdict: Verdict, recipe: Recipe) -> dict[str, Any]:
    """The row with its new verdict; ``enriched_at`` and ``enrich_seq`` are whoever writes it's."""
    status = ClipStatus.KEPT if verdict.reason is None else ClipStatus.REJECTED
    return {
        **row,
        "duration_ok": verdict.reason not in DURATION_REASONS,
        "status": status.value,
        "kept": status is ClipStatus.KEPT,
        "reject_reason": verdict.reason,
        # Frames of unsafe clips are not to be found; the table's files keep them until it expires.
        "frames_seq": row["frames_seq"] if may_store_frames(recipe, row) else None,
        "recipe": recipe.name,
        "gates_fingerprint": recipe.gates_fingerprint,
    }


def _scored(row: Mapping[str, Any], recipe: Recipe) -> int:
    """How many of the recipe's operators, from the first on, must have scored the clip."""
    reason = row["reject_reason"]
    if row["status"] == ClipStatus.KEPT.value:
        return len(recipe.operators)
    if reason in DURATION_REASONS:
        return 0
    if recipe.score_rejected:
        return len(recipe.operators)
    places = [i for i, o in enumerate(recipe.operators) if reason in reject_reasons(o)]
    return places[0] + 1 if places else 0


def _is_measured(operator: Operator, row: Mapping[str, Any]) -> bool:
    """Whether the row shows that the operator has scored it."""
    gate = gate_of(operator)
    if gate is not None:
        return all(row[column] is not None for column in gate.columns)
    if isinstance(operator, CaptionFromVideo):
        return row["caption"] is not None
    if isinstance(operator, ExtractFrames):
        return row["frame_count"] is not None
    if isinstance(operator, DataJuicerOperator | CustomStage):
        return operator.op in (row["operator_versions"] or {})
    return False


def _has_own_gate(operator: Operator, custom: Mapping[str, HostedStage]) -> bool:
    return operator.op in custom and custom[operator.op].has_gate


def _was_rewritten(
    operators: Sequence[Operator], row: Mapping[str, Any], custom: Mapping[str, HostedStage]
) -> bool:
    """Whether the first operator's gate looked at a caption in whose place a later mapper of
    DataJuicer's may have put another one: which of them do is known only where they run."""
    gate, *later = operators
    if gate.op not in custom or "caption" not in custom[gate.op].judges_by:
        return False
    ran = row["operator_versions"] or {}
    return any(
        isinstance(o, DataJuicerOperator) and o.kind == "mapper" and o.op in ran for o in later
    )


def _judge(
    operator: Operator, row: Mapping[str, Any], custom: Mapping[str, HostedStage]
) -> Verdict | Undecided:
    """The verdict of one operator that has scored the clip."""
    try:
        if operator.op in custom:
            return Verdict(custom[operator.op].verdict(row))
        if isinstance(operator, DataJuicerOperator):
            passes = _in_ranges(operator, row["operator_stats"] or {})
            return Verdict(None if passes else operator.op)
        gate = gate_of(operator)
        reason = None if gate is None else gate.verdict(row)
        return Verdict(None if reason is None else str(reason))
    except (MediaError, ValueError):
        return Undecided.NEEDS_SCORING


def _in_ranges(operator: DataJuicerOperator, stats: Mapping[str, float | None]) -> bool:
    """The verdict of DataJuicer's filter, where it is that statistics lie in ranges.

    As ``Filter.get_keep_boolean`` has it: a reversed range is the complement of the range with
    its bounds' closedness swapped. `ValueError` if it cannot be told from the statistics.
    """
    signature = signatures().operators[operator.name]
    # Of several pictures the row has the mean alone, and the filter has judged each of them.
    of_many = "any_or_all" in signature.parameters and not operator.name.startswith("video_")
    if of_many or not signature.bounds:
        raise ValueError(f"the verdict of {operator.name} is more than a range")

    def parameter(name: str) -> Any:
        return operator.parameters.get(name, signature.parameters[name].default)

    reverse = parameter("reversed_range")
    closed = [parameter(f"{side}_closed_interval") is not reverse for side in ("min", "max")]
    passes = True
    for statistic, lower, upper in signature.bounds:
        # Under its operator's name where another operator had taken the plain one.
        value = stats.get(f"{operator.name}.{statistic}", stats.get(statistic))
        if value is None or math.isnan(value):
            raise ValueError(f"{statistic} is {value}")
        low, high = (None if name is None else parameter(name) for name in (lower, upper))
        if isinstance(low, str) or isinstance(high, str):
            # A ratio as text, which only the operator itself knows how to read.
            raise ValueError(f"{lower} and {upper} are {low} and {high}")
        inside = (low is None or low < value or (closed[0] and low == value)) and (
            high is None or value < high or (closed[1] and value == high)
        )
        passes = passes and inside is not reverse
    return passes


def _lacks_frames(row: Mapping[str, Any], recipe: Recipe) -> bool:
    """Whether a clip would now be kept without the frames that kept clips have."""
    wanted = recipe.store_frames and any(isinstance(o, ExtractFrames) for o in recipe.operators)
    return wanted and row["frames_seq"] is None and row["status"] != ClipStatus.KEPT.value
