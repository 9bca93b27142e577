"""VideoBLIP where a batch of clips does not fit the memory: it is halved, frames and all."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clip_media import texture
from tiny_models import make_video_blip

from processors.errors import DependencyFault, MediaError
from processors.frames import FrameSampling
from processors.models.video_blip import VideoBlipStage
from schemas.operators import CaptionFromVideo
from schemas.settings import load_settings

CLIPS, FRAMES = 8, 3


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video_blip(tmp_path_factory.mktemp("video_blip"))


@pytest.fixture
def stage(checkpoint: Path) -> VideoBlipStage:
    operator = CaptionFromVideo(hf_video_blip=str(checkpoint), max_new_tokens=6)
    settings = load_settings(models={"device": "cpu"})
    made = VideoBlipStage(operator, FrameSampling("uniform", FRAMES), "upright", settings)
    made.setup()
    return made


class Memory:
    """A vision model's, which holds the patches of a few frames and says as torch does that it
    holds no more."""

    def __init__(self, stage: VideoBlipStage, holds: int) -> None:
        self.holds = holds
        self.held = 0
        self.tried: list[int] = []
        self._patches = stage._patches
        stage._patches = self.patches  # type: ignore[method-assign]

    def patches(self, frames: Sequence[Any]) -> list[torch.Tensor]:
        self.tried.append(len(frames))
        if self.held + len(frames) > self.holds:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        found = self._patches(frames)
        for patches in found:
            self.held += 1
            weakref.finalize(patches, self._let_go)
        return found

    def _let_go(self) -> None:
        self.held -= 1


def captions(stage: VideoBlipStage, clips: int = CLIPS) -> list[str]:
    resize = stage.frames().resize
    samples = [
        {"caption_frames": np.stack([resize(texture(90, 160, seed=n + f)) for f in range(FRAMES)])}
        for n in range(clips)
    ]
    results = stage.run(samples)
    assert not any(isinstance(result, MediaError) for result in results)
    return [result["caption"] for result in results]  # type: ignore[call-overload]


def test_clips_whose_frames_do_not_fit_together_are_captioned_fewer_at_a_time(
    stage: VideoBlipStage,
) -> None:
    expected = captions(stage)
    memory = Memory(stage, holds=7)
    assert captions(stage) == expected
    # Two clips fit, and their frames go through together again.
    assert memory.tried[-4:] == [2 * FRAMES] * 4
    assert memory.held == 0


def test_frames_go_through_together_again_after_memory_was_short(stage: VideoBlipStage) -> None:
    memory = Memory(stage, holds=0)
    with pytest.raises(DependencyFault, match="the device's memory does not hold one clip"):
        captions(stage)
    memory.holds, memory.tried = 1000, []
    captions(stage)
    assert memory.tried == [CLIPS * FRAMES]


def test_what_the_language_model_does_not_hold_halves_the_clips_and_not_the_frames(
    stage: VideoBlipStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = captions(stage)
    memory = Memory(stage, holds=2 * FRAMES * CLIPS)
    generate = stage._model.language_model.generate

    def limited(inputs_embeds: torch.Tensor, **how: Any) -> Any:
        if len(inputs_embeds) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return generate(inputs_embeds=inputs_embeds, **how)

    monkeypatch.setattr(stage._model.language_model, "generate", limited)
    assert captions(stage) == expected
    assert memory.tried == [FRAMES * n for n in (8, 4, 2, 2, 2, 2)]
