"""What every operator of a recipe is: checked parameters, and what its results depend on.

The operators themselves are in `schemas.operators`; what runs them is in ``processors``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

FrameSampling = Literal["all_keyframes", "uniform"]


class Operator(BaseModel):
    """One entry of a recipe's ``process``, with its parameters checked."""

    # Defaults validated too: 2 and 2.0 are one value, and have to have one fingerprint.
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    gate_parameters: ClassVar[frozenset[str]] = frozenset()
    """Parameters that change verdicts and no score."""
    running_parameters: ClassVar[frozenset[str]] = frozenset()
    """Parameters that change how it runs, and neither scores nor verdicts."""
    columns: ClassVar[tuple[str, ...]] = ()
    """What it gives of a clip that operators after it may look at."""

    @property
    def op(self) -> str:
        """The operator's name, one of its kind in a recipe."""
        raise NotImplementedError

    @property
    def stage(self) -> str:
        """The stage that runs it: a part of column names, and of what dead letters say."""
        raise NotImplementedError

    @field_validator("*")
    @classmethod
    def _is_a_number(cls, value: object) -> object:
        if isinstance(value, float) and math.isnan(value):
            # Every comparison with it is false: a gate would let everything pass.
            raise ValueError("is not a number")
        return value

    @property
    def checkpoint(self) -> str | None:
        """The model that it loads, of a hub or from a folder; None if it loads none."""
        return None

    def unread(self) -> frozenset[str]:
        """Parameters that nothing looks at, the others being as they are."""
        return frozenset()

    def entry(self) -> dict[str, Any]:
        """The operator as an entry of ``process``, of which an equal one is read again."""
        return {self.op: self.model_dump(mode="json")}

    def score_parameters(self) -> dict[str, Any]:
        """What the operator's scores depend on."""
        others = set(self.gate_parameters | self.running_parameters | self.unread())
        return {"op": self.op, **self.model_dump(mode="json", exclude=others)}

    def gates(self) -> dict[str, Any]:
        """What the operator's verdict depends on, beside its scores."""
        return {"op": self.op, **self.model_dump(mode="json", include=set(self.gate_parameters))}

    def changed(self) -> dict[str, Any]:
        """The parameters that differ from their defaults."""
        defaults = {name: field.default for name, field in type(self).model_fields.items()}
        return {
            name: value
            for name, value in self.model_dump(mode="json").items()
            if value != defaults[name]
        }

    def remarks(self) -> list[str]:
        """What a person should know who wrote it so, a sentence each."""
        return []


class BuiltIn(Operator):
    """An operator whose name and stage are those of its class."""

    op: ClassVar[str]
    stage: ClassVar[str]
    without_effect: ClassVar[Mapping[str, str]] = {}
    """Parameters of DataJuicer that are read and mean nothing here, each with the reason."""
    refused: ClassVar[Mapping[str, str]] = {}
    """Parameters of DataJuicer that may only have their default, each with the reason."""


class LooksAtFrames(BuiltIn):
    """An operator whose model looks at some frames of a clip."""

    frame_field: str | None = None
    """Look at the frames that video_extract_frames_mapper took, at most ``frame_num`` of them."""
    frame_sampling_method: FrameSampling = "all_keyframes"
    frame_num: Annotated[int, Field(ge=1)] = 3

    def unread(self) -> frozenset[str]:
        if self.frame_field is not None:
            return frozenset({"frame_sampling_method"})
        return unread_of_sampling(self.frame_sampling_method)

    def score_parameters(self) -> dict[str, Any]:
        # A recipe has those frames once, so what it calls them changes nothing.
        return {**super().score_parameters(), "frame_field": self.frame_field is not None}


def unread_of_sampling(method: FrameSampling) -> frozenset[str]:
    """The parameters that a method of sampling does not look at."""
    return frozenset({"frame_num"} if method == "all_keyframes" else ())
