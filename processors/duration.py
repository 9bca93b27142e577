"""The duration filter: which scenes are long enough, and short enough, to be worth scoring."""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas.reasons import RejectReason

if TYPE_CHECKING:
    from schemas.operators import DurationFilter


def duration_verdict(duration_s: float, duration: DurationFilter) -> RejectReason | None:
    """None if a clip of ``duration_s`` seconds passes; both bounds are included.

    The rule is DataJuicer's ``video_duration_filter``.
    """
    if duration_s < duration.min_duration:
        return RejectReason.TOO_SHORT
    if duration_s > duration.max_duration:
        return RejectReason.TOO_LONG
    return None
