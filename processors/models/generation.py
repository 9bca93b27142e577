"""How captions are generated: a recipe's parameters as those of transformers' ``generate``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from schemas.operators import CaptionFromVideo


@dataclass(frozen=True)
class Caption:
    """What was generated for one clip."""

    text: str
    tokens: int
    """New tokens, special ones not counted."""


def generation_arguments(
    operator: CaptionFromVideo, max_new_tokens: int | None = None
) -> dict[str, Any]:
    """Greedy unless the recipe says otherwise; seeds torch if it samples with a seed."""
    arguments: dict[str, Any] = {
        "max_new_tokens": max_new_tokens or operator.max_new_tokens,
        "num_beams": operator.num_beams,
        "do_sample": operator.do_sample,
        "repetition_penalty": operator.repetition_penalty,
    }
    if operator.do_sample:
        arguments |= {"temperature": operator.temperature, "top_p": operator.top_p}
        if operator.seed is not None:
            torch.manual_seed(operator.seed)
    return arguments
