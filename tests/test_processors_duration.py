from __future__ import annotations

import pytest

from processors.duration import duration_verdict
from schemas.operators import DurationFilter
from schemas.reasons import RejectReason


@pytest.mark.parametrize(
    ("seconds", "verdict"),
    [
        (1.999, RejectReason.TOO_SHORT),
        (2.0, None),
        (30.0, None),
        (60.0, None),
        (60.001, RejectReason.TOO_LONG),
    ],
)
def test_both_bounds_belong_to_what_passes(seconds: float, verdict: RejectReason | None) -> None:
    assert duration_verdict(seconds, DurationFilter(min_duration=2, max_duration=60)) == verdict


def test_without_bounds_everything_passes() -> None:
    assert duration_verdict(0.0, DurationFilter()) is None
    assert duration_verdict(1e9, DurationFilter()) is None
