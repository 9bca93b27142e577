"""Captions by a server that speaks the OpenAI chat protocol with images, such as vLLM.

What is asked of the server is said here; how it is asked, and whose fault a failure is, in
`processors.models.chat_server`. Nothing here needs torch.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from processors.errors import DependencyFault, MediaError, StageStartError
from processors.frames import FrameRequest, FrameSampling, Pixels, encode_jpeg
from processors.models.chat_server import (
    PROBE_ATTEMPTS,
    ChatServer,
    InputRefused,
    ServedModel,
)
from processors.models.refusals import Refusals
from processors.resize import Fitted
from processors.stage import ModelIdentity, Outcome, Sample, Stage
from schemas.operators import CaptionFromVideo
from schemas.problems import nearest
from schemas.reasons import MediaReason

FRAMES_COLUMN = "caption_frames"
DEFAULT_PROMPT = (
    "These pictures are frames of one video clip, in order of time. "
    "Describe in one sentence what the clip shows."
)
"""A chat model has to be asked something, where VideoBLIP goes on from nothing."""
LONGEST_EDGE = 768
"""Pixels: what a picture costs the server grows with its area."""

_ROUNDS = 4
"""Clips of a batch for each request that may be under way: slow answers then overlap, and not
every few clips wait for the slowest of them."""
_BYTES_BESIDE_TEXT = 1 << 16
_BYTES_A_TOKEN = 64
_PROBE_EDGE = 64

Frames = NDArray[np.uint8]


class OpenAiCaptionStage(Stage):
    """A caption a clip, by one request each; several requests at a time."""

    name = "caption"

    def __init__(self, operator: CaptionFromVideo, sampling: FrameSampling, pixels: Pixels) -> None:
        if operator.base_url is None or operator.model is None:
            raise ValueError("engine openai has base_url and model")
        self._operator = operator
        self._base_url, self._model = operator.base_url, operator.model
        self._request = FrameRequest(FRAMES_COLUMN, sampling, Fitted(LONGEST_EDGE), pixels)
        self.batch_size = _ROUNDS * operator.max_concurrency
        self._max_bytes = _BYTES_BESIDE_TEXT + _BYTES_A_TOKEN * operator.max_new_tokens
        self._probe = self._chat(np.zeros((1, _PROBE_EDGE, _PROBE_EDGE, 3), np.uint8), 1)
        self._server: ChatServer | None = None
        self._identity: ModelIdentity | None = None

    def inputs(self) -> tuple[str, ...]:
        return (FRAMES_COLUMN,)

    def outputs(self) -> tuple[str, ...]:
        return ("caption", "caption_tokens")

    def frames(self) -> FrameRequest:
        return self._request

    def weight(self, sample: Sample) -> int:
        return 1  # A clip, whatever its number of frames.

    def longest_s(self) -> float:
        server = self._asked()
        # Test pictures as well, two at most, before a batch with refusals is believed.
        return server.longest_s(self._operator.attempts) + 2 * server.longest_s(PROBE_ATTEMPTS)

    @property
    def model(self) -> ModelIdentity | None:
        """The name that was asked for. The protocol knows no revision: where it is served stands
        for it, and the checkpoint (``root``) if the server's list of models names one."""
        return self._identity

    def setup(self) -> None:
        operator = self._operator
        self._server = ChatServer(
            self._base_url,
            self._key(),
            timeout_s=operator.timeout_s,
            attempts=operator.attempts,
            connections=operator.max_concurrency,
        )
        try:
            served = self._served()
        except DependencyFault as fault:
            raise StageStartError(
                f"stage {self.name}: model {self._model} is not to be had: {fault}"
            ) from None
        try:
            self._try_out()
        except DependencyFault as fault:
            raise StageStartError(
                f"stage {self.name}: model {self._model} does not caption a test picture: {fault}"
            ) from None
        root = f", checkpoint {served.root}" if served.root else ""
        self._identity = ModelIdentity(self._model, f"served by {self._base_url}{root}")

    def ping(self) -> None:
        self._served()

    def process(self, batch: Sequence[Sample]) -> list[Outcome]:
        """``caption`` and ``caption_tokens`` of each sample; None for a server that counts none.

        A clip that has no frame, that the server refuses or of which it says nothing is a
        `MediaError` in its place: those beside it are not asked for, and paid for, again.
        Raises `DependencyFault` if the server does not answer, or refuses a test picture as well.
        """
        refusals = Refusals(self._try_out)
        with ThreadPoolExecutor(self._operator.max_concurrency, "caption") as threads:
            asked = [
                threads.submit(self._caption, sample[FRAMES_COLUMN], refusals) for sample in batch
            ]
            for future in as_completed(asked):
                fault = future.exception()
                if isinstance(fault, DependencyFault):
                    # A server that is out is not asked for the rest of the batch.
                    threads.shutdown(wait=False, cancel_futures=True)
                    raise fault
        refusals.settle()
        # In the order of the clips, in whatever order they were answered.
        return [future.result() for future in asked]

    def _caption(self, clip: Frames, refusals: Refusals) -> Outcome:
        if len(clip) == 0:
            return MediaError(
                MediaReason.NO_FRAMES, "the clip has no frame to describe", stage=self.name
            )
        request = self._chat(clip, self._operator.max_new_tokens)
        try:
            answer = self._asked().complete(request, max_bytes=self._max_bytes)
        except InputRefused as refusal:
            refusals.add(refusal)
            others = ", while it answers others" if refusal.perhaps_any else ""
            return MediaError(
                MediaReason.STAGE_ERROR, f"{self._base_url}: {refusal}{others}", stage=self.name
            )
        return {"caption": answer.text, "caption_tokens": answer.tokens}

    def _chat(self, clip: Frames, max_tokens: int) -> dict[str, Any]:
        """The body of the request: the prompt, then the pictures in order of time."""
        operator = self._operator
        content: list[dict[str, Any]] = [
            {"type": "text", "text": operator.prompt or DEFAULT_PROMPT},
            *({"type": "image_url", "image_url": {"url": self._data_url(f)}} for f in clip),
        ]
        request: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": "user", "content": content}],
            # Its newer name, max_completion_tokens, is unknown to most servers but OpenAI's own.
            "max_tokens": max_tokens,
            "temperature": 0,
        }
        if operator.do_sample:
            # One of several candidates, drawn at random, is as good as a single one.
            request |= {"temperature": operator.temperature, "top_p": operator.top_p}
            if operator.seed is not None:
                request["seed"] = operator.seed
        return request

    def _data_url(self, rgb: Frames) -> str:
        if self._operator.horizontal_flip:
            rgb = rgb[:, ::-1]
        if self._operator.vertical_flip:
            rgb = rgb[::-1]
        jpeg = encode_jpeg(cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2BGR))
        return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"

    def _asked(self) -> ChatServer:
        if self._server is None:
            raise RuntimeError("setup has not been called")
        return self._server

    def _try_out(self) -> None:
        """Have the server caption a small black picture; `DependencyFault` if it does not."""
        self._asked().try_out(self._probe, max_bytes=self._max_bytes)

    def _served(self) -> ServedModel:
        """The model's entry in the server's list; `DependencyFault` if it is not there."""
        models = {model.id: model for model in self._asked().models()}
        if self._model not in models:
            raise DependencyFault(
                f"{self._base_url}: it does not serve {self._model!r}{nearest(self._model, models)}"
            )
        return models[self._model]

    def _key(self) -> str | None:
        name = self._operator.api_key_env
        if name is None:
            return None
        key = os.environ.get(name, "").strip()
        # What no header can carry would be quoted in an error.
        if not key or not (key.isascii() and key.isprintable()):
            raise StageStartError(
                f"stage {self.name}: api_key_env names the variable {name}, which "
                f"{'is not set' if not key else 'holds no key'} in the worker's environment"
            )
        return key
