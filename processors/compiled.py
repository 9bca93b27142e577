"""How loops of ours are compiled: by numba, when their module is imported.

Compiling takes seconds unless numba's cache has the result: in ``NUMBA_CACHE_DIR``, else in
``__pycache__`` beside the code or the user's cache folder; ``make setup`` fills it. Import modules
with such loops only where they are used: numba adds half a second and 65 MB.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

_F = TypeVar("_F", bound=Callable[..., Any])

_OPTIONS = {"nogil": True, "error_model": "numpy"}


def compiled(signature: str) -> Callable[[_F], _F]:
    """Compile a function now, for arguments of these types; the result is kept for later."""

    def compile_now(function: _F) -> _F:
        try:
            return cast(_F, njit(signature, cache=True, **_OPTIONS)(function))
        except Exception:
            # No folder that can be written to, a full disk, a broken file: what is wrong with the
            # cache only costs time. What is wrong with the function is raised below.
            return cast(_F, njit(signature, **_OPTIONS)(function))

    return compile_now


def part_of_compiled(function: _F) -> _F:
    """A function that only compiled ones call, and that is compiled along with them."""
    return cast(_F, njit(**_OPTIONS)(function))
