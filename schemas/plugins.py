"""Operators that are not built in: any other of DataJuicer's by name, and a class of the user's."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from schemas.datajuicer import Signature, signatures
from schemas.operator import Operator

_CUSTOM = re.compile(
    r"(?P<file>.+\.py):(?P<class_name>[A-Za-z_]\w*)(?:@(?P<sha256>[0-9a-f]{64}))?", re.ASCII
)
_NAMING = ("_field", "_key", "_name")
_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


class DataJuicerOperator(Operator):
    """An operator of DataJuicer that runs in DataJuicer's own environment, by its name."""

    name: str
    kind: str
    """``filter`` or ``mapper``."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """As DataJuicer's constructor takes them; those that have their default are left out."""
    gate_names: frozenset[str] = frozenset()
    """The parameters that change its verdict and none of its statistics."""
    version: str
    """DataJuicer's, since the defaults that are left out are those of one version."""

    @property
    def op(self) -> str:
        return self.name

    @property
    def stage(self) -> str:
        return self.name

    @property
    def signature(self) -> Signature:
        """What is known of it without DataJuicer."""
        return signatures().operators[self.name]

    def result_names(self) -> set[str]:
        """Names that its parameters say, under which it may leave something."""
        texts = {
            name: self.parameters.get(name, parameter.default)
            for name, parameter in self.signature.parameters.items()
            if name.endswith(_NAMING)
        }
        return {text for text in texts.values() if isinstance(text, str)}

    def entry(self) -> dict[str, Any]:
        return {self.name: self.parameters}

    def score_parameters(self) -> dict[str, Any]:
        return {"op": self.name, "version": self.version, "parameters": self._of_gates(False)}

    def gates(self) -> dict[str, Any]:
        return {"op": self.name, "parameters": self._of_gates(True)}

    def changed(self) -> dict[str, Any]:
        return self.parameters

    def _of_gates(self, wanted: bool) -> dict[str, Any]:
        return {k: v for k, v in self.parameters.items() if (k in self.gate_names) is wanted}


class CustomStage(Operator):
    """A stage of the user's own: a class in a Python file that the recipe names.

    The file's bytes are a part of the scores' fingerprint; what they do is not looked at here.
    """

    file: Path
    """Absolute."""
    class_name: str
    sha256: str
    """Of the file's bytes, in hexadecimal."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the class's constructor."""

    @field_validator("file")
    @classmethod
    def _is_absolute(cls, file: Path) -> Path:
        if not file.is_absolute():
            raise ValueError("should be absolute")
        return file

    @property
    def op(self) -> str:
        return f"{self.file.name}:{self.class_name}"

    @property
    def stage(self) -> str:
        """The class's name in lower case with underscores; the class may have another one."""
        return _WORD_START.sub("_", self.class_name).lower()

    def entry(self) -> dict[str, Any]:
        """With the file's absolute path and hash: another process must run the same code."""
        return {f"{self.file}:{self.class_name}@{self.sha256}": self.parameters}

    def score_parameters(self) -> dict[str, Any]:
        return {
            "op": self.class_name,
            "sha256": self.sha256,
            "parameters": self.parameters,
        }

    def gates(self) -> dict[str, Any]:
        return {"op": self.class_name}

    def changed(self) -> dict[str, Any]:
        return self.parameters


def is_custom(key: str) -> bool:
    """Whether a key of ``process`` names a class in a file: ``my_stage.py:MyStage``."""
    return _CUSTOM.fullmatch(key) is not None


def custom_stage(key: str, parameters: dict[str, Any], folder: Path) -> CustomStage:
    """The stage that a key of ``process`` names; relative paths start from ``folder``.

    A key may end in ``@`` and the SHA-256 that the file has to have. `ValueError`, one line, if
    the file cannot be read or is another one.
    """
    match = _CUSTOM.fullmatch(key)
    if match is None:
        raise ValueError(f"{key!r} should be like my_stage.py:MyStage")
    try:
        file = (folder / Path(match["file"]).expanduser()).resolve()
    except RuntimeError as error:
        # No such user's home, or links that lead in a circle.
        raise ValueError(f"{match['file']} cannot be found: {error}") from None
    try:
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from None
    if match["sha256"] not in (None, sha256):
        raise ValueError(
            f"{file} is not the file that the recipe was read with: its SHA-256 is {sha256}, and "
            f"should be {match['sha256']}; it was changed since, so start again"
        )
    return CustomStage(
        file=file, class_name=match["class_name"], sha256=sha256, parameters=parameters
    )
