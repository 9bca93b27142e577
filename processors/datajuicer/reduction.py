"""What an operator of DataJuicer gave, as columns: numbers by name, the rest as JSON by name.

Imported by both environments, so it needs nothing but Python.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

MAX_JSON_CHARACTERS = 2**20
"""Of one output. Flow fields and depth maps of a clip are larger, and belong in no table."""


def sort_out(stats: Mapping[str, Any]) -> tuple[dict[str, float | None], dict[str, Any]]:
    """Statistics of one clip, split into numbers and others.

    DataJuicer keeps a list with a value a video, or a picture. One value stands for itself;
    several, those of the sampled frames, for their mean. Not finite: None. What is no number,
    and a list that is empty or has anything else in it, is left as it is.
    """
    numbers: dict[str, float | None] = {}
    others: dict[str, Any] = {}
    for name, given in stats.items():
        value = plain(given)
        values = value if isinstance(value, list) else [value]
        if values and all(_is_number(item) for item in values):
            mean = float(values[0]) if len(values) == 1 else math.fsum(values) / len(values)
            numbers[name] = mean if math.isfinite(mean) else None
        else:
            others[name] = value
    return numbers, others


def as_json(name: str, value: Any) -> str:
    """An output as JSON text; NaN and infinities become null.

    `ValueError` if it is longer than `MAX_JSON_CHARACTERS`.
    """
    text = json.dumps(_finite(plain(value)), ensure_ascii=False, sort_keys=True, allow_nan=False)
    if len(text) > MAX_JSON_CHARACTERS:
        raise ValueError(
            f"its output {name} has {len(text)} characters as JSON, and a column takes "
            f"{MAX_JSON_CHARACTERS}"
        )
    return text


def plain(value: Any) -> Any:
    """A value of Python's own types: arrays and tensors as lists, tuples and sets as well.

    `TypeError` names a type that has no such form: bytes, pictures, open files.
    """
    if value is None or isinstance(value, str | bool | int | float):
        # NumPy's floats are floats by inheritance.
        return float(value) if isinstance(value, float) else value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(plain(item) for item in value)
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    raise TypeError(f"it gave a value of type {type(value).__name__}, which fits in no column")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value
