"""What the parameters of an operator may hold, at whatever depth a recipe puts it.

Types and bounds of single parameters are in the operators' own declarations
(`schemas.operators`, `schemas.datajuicer`).
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from schemas.datajuicer import SERVER_KEY
from schemas.problems import ConfigError

_DEEPEST, _MOST_VALUES = 32, 10_000
"""YAML's aliases make much of little, and a list may hold itself."""
_RUNS_CODE = re.compile(r"trust_?remote_?code|custom_generate|custom_pipeline|use_kernels")
_SECRET = re.compile(
    r"(?:.*_)?(?:api_?key|access_key(?:_id)?|secret(?:_key|_access_key)?|passw(?:or)?d|"
    r"(?:access|api|auth|bearer|hf|session|use_auth)_?token|authorization|credentials?|headers)"
    r"|token"
)
_PLAIN = (str, int, float, bool, type(None))


def check_plain(parameters: dict[Any, Any], where: str) -> None:
    """`ConfigError` unless they are made of what JSON has: they go to other processes, and into
    fingerprints."""
    for name in parameters:
        if not (isinstance(name, str) and name.isidentifier()):
            raise ConfigError(f"{where}: {name!r} cannot be the name of a parameter")
    for count, (path, value) in enumerate(_values(parameters)):
        name = path[0]
        if len(path) > _DEEPEST or count > _MOST_VALUES:
            raise ConfigError(
                f"{where}: {name} is nested more than {_DEEPEST} deep, or it all has more than "
                f"{_MOST_VALUES} values"
            )
        if isinstance(value, dict):
            if wrong := [key for key in value if not isinstance(key, str)]:
                raise ConfigError(
                    f"{where}: {name} has the key {wrong[0]!r}, and keys are texts: put it in "
                    "quotes"
                )
        elif not isinstance(value, (*_PLAIN, list)):
            raise ConfigError(
                f"{where}: {name} should be made of texts, numbers, booleans, lists and mappings"
            )
        elif isinstance(value, int) and abs(value) > sys.float_info.max:
            raise ConfigError(f"{where}: {name} should be a finite number")


def check_finite(parameters: dict[str, Any], where: str) -> None:
    """`ConfigError` if any number is none that JSON has."""
    for path, value in _values(parameters):
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{where}: {'.'.join(path)} should be a finite number")


def check_harmless(parameters: dict[str, Any], where: str) -> None:
    """`ConfigError` if they would run a model's own code, or hold a key or password."""
    for path, value in _values(parameters):
        name = path[-1].lower().replace("-", "_")
        # Whatever is true for the library that gets it: "yes", 1, "False".
        if _RUNS_CODE.fullmatch(name) and value is not None and value is not False:
            raise ConfigError(
                f"{where}: {'.'.join(path)}: {_shown(value)} is refused: a model's own code is "
                "never run"
            )
        if (_SECRET.fullmatch(name) and value is not None) or _has_password(value):
            raise ConfigError(
                f"{where}: {'.'.join(path)}: keys and passwords do not belong into a recipe; the "
                f"key for a server stands in the environment variable {SERVER_KEY}"
            )


def _values(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value with the names on the way to it, outer ones first; those of a list have its."""
    if path:
        yield path, value
    if len(path) > _DEEPEST:
        return
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _values(item, (*path, str(key)))
    elif isinstance(value, list):
        for item in value:
            # Deeper, though not by another name.
            yield from _values(item, (*path, path[-1]))


def _has_password(value: Any) -> bool:
    if not isinstance(value, str) or not value.lower().startswith(("http://", "https://")):
        return False
    try:
        return "@" in urlsplit(value).netloc
    except ValueError:
        return False


def _shown(value: Any) -> str:
    return "true" if value is True else repr(value)[:50]
