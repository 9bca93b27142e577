"""The captioner that asks a chat server, for tests, and what it is given and says."""

from __future__ import annotations

import numpy as np
import pytest

from processors.errors import DependencyFault, MediaError
from processors.frames import FrameSampling
from processors.models.openai_caption import OpenAiCaptionStage
from processors.stage import Sample
from schemas.operators import CaptionFromVideo
from schemas.reasons import MediaReason
from tests.chat_model import MODEL, Asked, ChatModel, Reply, describe
from tests.servers import Answer


def stage_for(url: str, **parameters: object) -> OpenAiCaptionStage:
    values: dict[str, object] = {
        "engine": "openai",
        "base_url": url,
        "model": MODEL,
        "attempts": 2,
        "timeout_s": 20,
    }
    operator = CaptionFromVideo.model_validate(values | parameters)
    return OpenAiCaptionStage(operator, FrameSampling("uniform", 3), "upright")


def started(model: ChatModel, url: str, **parameters: object) -> OpenAiCaptionStage:
    """A stage that has found the server in order, whatever the model answers after that."""
    stage = stage_for(url, **parameters)
    reply, model.reply = model.reply, describe
    before = len(model.asked)
    stage.setup()
    model.reply = reply
    del model.asked[before:]
    return stage


def clip(grey: int, frames: int = 2) -> Sample:
    return {"caption_frames": np.full((frames, 24, 32, 3), grey, np.uint8)}


def captions(stage: OpenAiCaptionStage, *greys: int) -> list[str]:
    results = stage.run([clip(grey) for grey in greys])
    assert not [result for result in results if isinstance(result, MediaError)]
    return [result["caption"] for result in results]


def blamed(stage: OpenAiCaptionStage, grey: int = 50) -> MediaError:
    (error,) = stage.run([clip(grey)])
    assert isinstance(error, MediaError)
    assert error.reason is MediaReason.STAGE_ERROR
    assert error.stage == "caption"
    return error


def fault(stage: OpenAiCaptionStage, *greys: int) -> str:
    with pytest.raises(DependencyFault) as caught:
        captions(stage, *(greys or (50,)))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def to_clips(reply: Reply) -> Reply:
    """A reply to clips alone: probes are answered."""
    return lambda asked: describe(asked) if asked.is_probe else reply(asked)


def failing_first(times: int, failure: Answer) -> object:
    left = [times]

    def reply(asked: Asked) -> object:
        left[0] -= 1
        return failure if left[0] >= 0 else describe(asked)

    return reply
