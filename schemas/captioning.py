"""The operator that captions a clip: VideoBLIP as in DataJuicer, and two other engines of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from schemas.operator import LooksAtFrames

Engine = Literal["video_blip", "image_text", "openai"]

_ONE_ENGINE_S: dict[str, tuple[Engine, ...]] = {
    "hf_video_blip": ("video_blip",),
    "hf_model": ("image_text",),
    "base_url": ("openai",),
    "model": ("openai",),
    "api_key_env": ("openai",),
    "max_concurrency": ("openai",),
    "timeout_s": ("openai",),
    "attempts": ("openai",),
    "num_beams": ("video_blip", "image_text"),
    "repetition_penalty": ("video_blip", "image_text"),
}
"""Parameters that not every engine has."""
KEY_PREFIX = "CLIPLAKE_KEY_"
_SAMPLING = ("temperature", "top_p", "seed")
"""Parameters that say how tokens are drawn."""


class CaptionFromVideo(LooksAtFrames):
    """Write a caption of a clip.

    Greedy by default, where DataJuicer's operator samples: num_beams 4, do_sample true,
    temperature 0.7, top_p 0.9 and repetition_penalty 1.5, which can all be asked for.
    """

    op = "video_captioning_from_video_mapper"
    stage = "caption"
    columns = ("caption", "caption_tokens")
    running_parameters = frozenset(
        {
            *("base_url", "api_key_env", "max_concurrency", "timeout_s", "attempts"),
            # Of candidates that are drawn alike, any one is made, and no other.
            *("caption_num", "keep_candidate_mode"),
        }
    )
    without_effect: ClassVar[Mapping[str, str]] = {
        "keep_original_sample": "a clip has one row, with its caption in a column",
        "text_update_strategy": "the caption is written to the column caption",
        "caption_field": "the caption is written to the column caption",
        "legacy_split_by_text_token": "a clip has no text with special tokens",
    }
    refused: ClassVar[Mapping[str, str]] = {
        "prompt_key": "a clip has no field with a prompt of its own; give one with prompt",
    }

    engine: Engine = "video_blip"
    """``image_text``: a model of transformers for images; ``openai``: a server that speaks the
    OpenAI chat protocol. Both ours, not DataJuicer's."""
    hf_video_blip: str = "kpyu/video-blip-opt-2.7b-ego4d"
    hf_model: str | None = None
    """The model of engine image_text: a repository of the hub, or a folder."""
    trust_remote_code: Literal[False] = False

    caption_num: Annotated[int, Field(ge=1, le=16)] = 1
    """Candidates, of which one is kept."""
    keep_candidate_mode: Literal["random_any"] = "random_any"
    prompt: str | None = None
    horizontal_flip: bool = False
    vertical_flip: bool = False

    num_beams: Annotated[int, Field(ge=1, le=32)] = 1
    do_sample: bool = False
    temperature: Annotated[float, Field(gt=0, le=100)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] = 1.0
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] = 128
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    """Null: sampled captions differ from run to run."""

    base_url: str | None = None
    """Where the server's API is, like ``http://host:8000/v1``."""
    model: str | None = None
    """The model's name on that server."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the server's key; begins with `KEY_PREFIX`."""
    max_concurrency: Annotated[int, Field(ge=1, le=1024)] = 8
    """Requests at a time, for each actor."""
    timeout_s: Annotated[float, Field(gt=0)] = 60.0
    attempts: Annotated[int, Field(ge=1, le=20)] = 3

    @model_validator(mode="after")
    def _parameters_are_the_engine_s(self) -> CaptionFromVideo:
        changed = self.changed()
        for name, engines in _ONE_ENGINE_S.items():
            if name in changed and self.engine not in engines:
                raise ValueError(f"{name} is for engine {' and '.join(engines)}")
        if self.engine == "image_text" and not self.hf_model:
            raise ValueError("engine image_text needs hf_model")
        if self.engine == "openai":
            if not self.base_url or not self.model:
                raise ValueError("engine openai needs base_url and model")
            _check_base_url(self.base_url)
            if self.api_key_env and not self.api_key_env.startswith(KEY_PREFIX):
                raise ValueError(
                    f"api_key_env should begin with {KEY_PREFIX}: a recipe may send no other of "
                    "the workers' variables to a server"
                )
        if not self.do_sample and (drawn := [name for name in _SAMPLING if name in changed]):
            raise ValueError(f"{', '.join(drawn)} would change nothing without do_sample: true")
        return self

    @property
    def checkpoint(self) -> str | None:
        return {"video_blip": self.hf_video_blip, "image_text": self.hf_model}.get(self.engine)

    def remarks(self) -> list[str]:
        if self.do_sample and self.seed is None:
            return ["do_sample without seed: a clip that is scored again gets another caption"]
        if not self.do_sample and self.caption_num > 1:
            return [
                f"caption_num {self.caption_num} without do_sample: the candidates are all the "
                "same, and one is made"
            ]
        return []


def _check_base_url(base_url: str) -> None:
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("base_url should be like http://host:8000/v1")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(
            "base_url should hold no user, password or key: name the variable that holds the key "
            "with api_key_env"
        )
