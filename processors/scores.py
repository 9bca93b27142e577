"""One score of a clip from those of its frames."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from schemas.operators import Reduce


def reduce_scores(scores: NDArray[np.float64], mode: Reduce) -> float:
    """The clip's score from ``[n]`` scores of its frames, at least one."""
    if mode == "avg":
        return float(scores.mean())
    return float(scores.max() if mode == "max" else scores.min())
