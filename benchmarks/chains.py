"""Chains whose stages do nothing: what the pool costs by itself."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import clips
from processors.results import ClipResult, passed
from schemas.recipe import Recipe
from schemas.settings import Settings
from tests.pool_chains import NoStages

FRAME_BYTES = 20_000
"""About what a 360p frame takes as a JPEG."""
NOISE_BYTES = 1 << 25


class Kept(NoStages):
    """Keeps every clip with a full row of scores."""

    def run(self, rows: Sequence[Mapping[str, Any]]) -> list[ClipResult]:
        return [passed(clip, self._recipe, clips.SCORES) for clip in rows]


class KeptWithFrames(Kept):
    """The same, and stores eight frames of each clip; their bytes are random, as a JPEG's are."""

    def __init__(self, recipe: Recipe, settings: Settings) -> None:
        super().__init__(recipe, settings)
        self._noise = random.Random(1).randbytes(NOISE_BYTES)
        self._places = random.Random()

    def run(self, rows: Sequence[Mapping[str, Any]]) -> list[ClipResult]:
        results = super().run(rows)
        for clip, result in zip(rows, results, strict=True):
            result.frames = {
                "clip_id": clip["clip_id"],
                "video_frames": [self._jpeg() for _ in range(clips.FRAMES)],
                "frame_times_s": [clip["start_s"] + 0.25 * n for n in range(clips.FRAMES)],
                "frame_sharpness": [60.0] * clips.FRAMES,
                "frame_brightness": [110.0] * clips.FRAMES,
                "frame_black_fraction": [0.0] * clips.FRAMES,
                "frame_overexposed": [0.0] * clips.FRAMES,
            }
        return results

    def _jpeg(self) -> bytes:
        # From anywhere in them, so that compression finds no frame twice.
        start = self._places.randrange(NOISE_BYTES - FRAME_BYTES)
        return self._noise[start : start + FRAME_BYTES]
