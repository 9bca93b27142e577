"""Results that the driver makes itself, of clips that no chain could give one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

from schemas.reasons import ClipStatus, MediaReason
from schemas.recipe import Recipe
from schemas.tables import CLIP_COLUMN_NAMES, KAFKA_COLUMN_NAMES

STAGE = "pool"
"""What stands as the stage of a clip whose worker died: which stage it was in, nobody saw."""


class Result(Protocol):
    """What a chain returns of one clip; `processors.chain.ClipResult`."""

    clip_id: str
    status: ClipStatus
    enriched: dict[str, Any]
    frames: dict[str, Any] | None
    failure: dict[str, Any] | None


@dataclass
class PoolResult:
    """A `Result` of the driver's own."""

    clip_id: str
    status: ClipStatus
    enriched: dict[str, Any]
    frames: dict[str, Any] | None = None
    failure: dict[str, Any] | None = None


def failed_result(
    clip: Mapping[str, Any], recipe: Recipe, reason: MediaReason, error: str, attempts: int
) -> PoolResult:
    """The rows of a clip that was given up: one of enriched_clips, one of failed_clips."""
    now = datetime.now(UTC)
    kafka = {name: clip.get(name) for name in KAFKA_COLUMN_NAMES}
    return PoolResult(
        clip_id=clip["clip_id"],
        status=ClipStatus.FAILED,
        enriched={
            **{name: clip.get(name) for name in CLIP_COLUMN_NAMES},
            **kafka,
            "status": ClipStatus.FAILED.value,
            "kept": False,
            "reject_reason": reason.value,
            "recipe": recipe.name,
            "scores_fingerprint": recipe.scores_fingerprint,
            "gates_fingerprint": recipe.gates_fingerprint,
            "attempts": attempts,
            "enriched_at": now,
        },
        failure={
            **kafka,
            "clip_id": clip["clip_id"],
            "video_key": clip["video_key"],
            "uri": _without_query(clip["uri"]),
            "stage": STAGE,
            "reason": reason.value,
            "error": error,
            "retryable": True,
            "attempts": attempts,
            "failed_at": now,
        },
    )


def _without_query(uri: str) -> str:
    """A URI without user, password, query and fragment: signatures and tokens stand there."""
    parts = urlsplit(uri)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
