"""What an operator of DataJuicer reads, and which ones cannot run on clips.

By the rule of DataJuicer's own lists of operators: an operator reads a medium if its name begins
with it or its class asks for that medium's key. Needs nothing but Python.
"""

from __future__ import annotations

import inspect
import re
from enum import StrEnum


class Modality(StrEnum):
    """A part of a clip that an operator can be given."""

    VIDEO = "video"
    """An exact cut of the clip."""
    FRAMES = "frames"
    """Its sampled frames, as images."""
    TEXT = "text"
    """Its caption."""


_KEYS = {"video": Modality.VIDEO, "image": Modality.FRAMES, "text": Modality.TEXT}
_KINDS = ("Filter", "Mapper")
_WRITES = re.compile(r"\[self\.(video|image)_key\](?:\[[^\]]*\])*\s*=[^=]")
"""A class that puts other videos or images in place of those it was given."""
_NEW_MEDIA = {"video": "new videos", "image": "new images"}


def reads_of(kind: type) -> set[Modality]:
    """The media that an operator's class reads."""
    source, name = inspect.getsource(kind), _name_of(kind)
    return {
        modality
        for key, modality in _KEYS.items()
        if f"self.{key}_key" in source or name.startswith(f"{key}_")
    }


def refusal_of(kind: type) -> str | None:
    """Why an operator cannot run on clips, or None if it can."""
    if not any(base.__name__ in _KINDS for base in kind.__mro__):
        return "only filters and mappers look at one clip at a time; others need a whole data set"
    source, name = inspect.getsource(kind), _name_of(kind)
    if "self.audio_key" in source or name.startswith("audio_"):
        return "it reads audio, and clips are decoded without it"
    writes = _WRITES.search(source)
    if writes is not None:
        return (
            f"it writes {_NEW_MEDIA[writes[1]]}, and clips are ranges of their video: nothing is "
            "re-encoded, and no later stage would see what it wrote"
        )
    if not reads_of(kind):
        return "it reads none of video, images and text, which is what a clip has"
    return None


def _name_of(kind: type) -> str:
    """The operator's name in a recipe, as the registry notes it in the class."""
    return str(getattr(kind, "_name", ""))
