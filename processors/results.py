"""What the enrichment says about a clip: its rows of enriched_clips, clip_frames, failed_clips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from processors.duration import duration_verdict
from processors.errors import MediaError
from schemas.reasons import ClipStatus, RejectReason
from schemas.recipe import Recipe
from schemas.tables import (
    CLIP_COLUMN_NAMES,
    ENRICHED_CLIPS,
    FAILED_CLIPS,
    KAFKA_COLUMN_NAMES,
)

DURATION_REASONS = (RejectReason.TOO_SHORT, RejectReason.TOO_LONG)
SEQUENCE_COLUMN = "enrich_seq"
"""Set by whoever writes the rows."""
_EMPTY: dict[str, Any] = dict.fromkeys(
    name for name in ENRICHED_CLIPS.column_names if name != SEQUENCE_COLUMN
)
_OF_THE_CLIP = (*CLIP_COLUMN_NAMES, *KAFKA_COLUMN_NAMES)


@dataclass
class ClipResult:
    """A clip's verdict, as rows that lack only ``enrich_seq``."""

    clip_id: str
    status: ClipStatus
    enriched: dict[str, Any]
    """Of ``enriched_clips``; always there."""
    frames: dict[str, Any] | None = None
    """Of ``clip_frames``; None if no frames are stored."""
    failure: dict[str, Any] | None = None
    """Of ``failed_clips``; None unless it failed."""
    held: str | None = None
    """Why it had better be tried again than be failed: the store of its video is out."""


def passed(clip: Mapping[str, Any], recipe: Recipe, scores: Mapping[str, Any]) -> ClipResult:
    """The result of a clip that met every gate. ``scores``: the columns that were measured."""
    return _result(clip, recipe, ClipStatus.KEPT, None, scores)


def rejected(
    clip: Mapping[str, Any], recipe: Recipe, reason: str, scores: Mapping[str, Any]
) -> ClipResult:
    """The result of a clip that a gate rejected.

    ``reason``: a `RejectReason`, or a further operator's name.
    """
    return _result(clip, recipe, ClipStatus.REJECTED, str(reason), scores)


def failed(
    clip: Mapping[str, Any],
    recipe: Recipe,
    error: MediaError,
    scores: Mapping[str, Any] | None = None,
    attempts: int = 1,
) -> ClipResult:
    """The result of a clip that could not be scored; what was measured until then is kept."""
    measured = {**(scores or {}), "attempts": attempts}
    result = _result(clip, recipe, ClipStatus.FAILED, error.reason.value, measured)
    result.failure = {
        **{name: None for name in FAILED_CLIPS.column_names if name != SEQUENCE_COLUMN},
        **{name: clip.get(name) for name in KAFKA_COLUMN_NAMES},
        "clip_id": clip["clip_id"],
        "video_key": clip["video_key"],
        "uri": without_credentials(clip["uri"]),
        "stage": error.stage,
        "reason": error.reason.value,
        "error": error.error,
        "retryable": error.retryable,
        "attempts": attempts,
        "failed_at": result.enriched["enriched_at"],
    }
    return result


def duration_rejected(clip: Mapping[str, Any], recipe: Recipe) -> ClipResult:
    """The result of a clip that the recipe's duration filter drops; it is never decoded.

    Raises `ValueError` if the filter lets it pass.
    """
    reason = duration_verdict(clip["duration_s"], recipe.duration)
    if reason is None:
        raise ValueError(f"clip {clip['clip_id']} passes the duration filter")
    return rejected(clip, recipe, reason, {})


def without_credentials(uri: str) -> str:
    """A URI without user, password, query and fragment: signatures and tokens stand there."""
    parts = urlsplit(uri)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _result(
    clip: Mapping[str, Any],
    recipe: Recipe,
    status: ClipStatus,
    reason: str | None,
    scores: Mapping[str, Any],
) -> ClipResult:
    unknown = scores.keys() - _EMPTY.keys()
    if unknown:
        raise ValueError(f"enriched_clips has no column {', '.join(sorted(unknown))}")
    row = {**_EMPTY, **{name: clip.get(name) for name in _OF_THE_CLIP}}
    row.update(
        # The split judged by the recipe that it had; this row's verdict is of this recipe.
        duration_ok=reason not in DURATION_REASONS,
        status=status.value,
        kept=status is ClipStatus.KEPT,
        reject_reason=reason,
        recipe=recipe.name,
        scores_fingerprint=recipe.scores_fingerprint,
        gates_fingerprint=recipe.gates_fingerprint,
        gpu_s=0.0,
        cpu_s=0.0,
        stage_seconds={},
        operator_stats={},
        operator_outputs={},
        operator_versions={},
        attempts=1,
        enriched_at=datetime.now(UTC),
    )
    row.update(scores)
    return ClipResult(clip["clip_id"], status, row)
