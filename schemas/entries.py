"""From an entry of a recipe's ``process`` to an operator: names and parameters checked.

A parameter of DataJuicer that has no meaning here is named in a warning; everything else that
would not happen as written is an error, with the nearest name if it looks like a slip.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from schemas.datajuicer import Signature, signatures
from schemas.operators import OPERATORS, BuiltIn, DataJuicerOperator, Operator
from schemas.plugins import custom_stage, is_custom
from schemas.problems import ConfigError, explain, nearest

_BASE_REASON = "how and on what an operator runs, and what it is given, is decided here"
_NEVER_TRUE = {
    "skip_op_error": "a clip that fails becomes a dead letter, and is never dropped without a word",
    "trust_remote_code": "a model's own code is never run",
}
_KEEP_ORIGINAL = "keep_original_sample"


class Entries:
    """Makes operators of the entries of one recipe, and collects the warnings."""

    def __init__(self, folder: Path, warnings: list[str]) -> None:
        """``folder``: where relative paths start."""
        self._folder = folder
        self._warnings = warnings

    def operator(self, entry: dict[str, dict[str, Any] | None] | str, where: str) -> Operator:
        """The operator of an entry; `ConfigError` says where it is wrong."""
        if isinstance(entry, str):
            entry = {entry: None}
        if len(entry) != 1:
            raise ConfigError(f"{where}: one operator an entry, and this has {', '.join(entry)}")
        ((name, given),) = entry.items()
        parameters = given or {}
        if is_custom(name):
            _check_plain(parameters, f"{where}.{name}")
            try:
                return custom_stage(name, parameters, self._folder)
            except ValueError as error:
                raise ConfigError(f"{where}: {error}") from None
        where = f"{where}.{name}"
        if name in OPERATORS:
            return self._built_in(OPERATORS[name], parameters, where)
        signature = signatures().operators.get(name)
        if signature is None:
            known = [*OPERATORS, *signatures().operators]
            raise ConfigError(
                f"{where}: unknown operator {name!r}, here and in DataJuicer "
                f"{signatures().version}{nearest(name, known)}"
            )
        return self._of_datajuicer(signature, parameters, where)

    def _built_in(self, kind: type[BuiltIn], given: dict[str, Any], where: str) -> Operator:
        signature = signatures().operators.get(kind.op)
        ignored = {*kind.without_effect, *kind.refused}
        given = self._without_base(kind.op, given, {*kind.model_fields, *ignored}, where)
        for name, value in given.items():
            if name in kind.refused:
                theirs = signature.parameters.get(name) if signature else None
                if theirs is None or value != theirs.default:
                    raise ConfigError(
                        f"{where}: {name} cannot be {value!r}: {kind.refused[name]}; leave it out"
                    )
            elif name in kind.without_effect:
                self._warn(kind.op, name, kind.without_effect[name])
        try:
            return kind.model_validate({k: v for k, v in given.items() if k not in ignored})
        except ValidationError as error:
            raise explain(error, kind, where) from None

    def _of_datajuicer(
        self, signature: Signature, given: dict[str, Any], where: str
    ) -> DataJuicerOperator:
        if reason := signature.why_not():
            raise ConfigError(f"{where}: cannot run on a stream of clips: {reason}")
        given = self._without_base(signature.name, given, signature.parameters, where)
        parameters = {}
        for name, value in given.items():
            parameter = signature.parameters[name]
            if problem := parameter.problem(value):
                raise ConfigError(f"{where}: {name} {problem}")
            if name in _NEVER_TRUE and value is True:
                raise ConfigError(f"{where}: {name}: true is refused: {_NEVER_TRUE[name]}")
            if parameter.is_float and isinstance(value, int):
                # 2 and 2.0 are one value, and have to have one fingerprint.
                value = float(value)
            if not (parameter.has_default and value == parameter.default):
                parameters[name] = value
        missing = [n for n, p in signature.parameters.items() if p.required and n not in given]
        if missing:
            raise ConfigError(f"{where}: {', '.join(missing)} must be given")
        if _KEEP_ORIGINAL in signature.parameters:
            # True by default in DataJuicer, where a caption makes a sample beside the first one.
            parameters[_KEEP_ORIGINAL] = False
            if given.get(_KEEP_ORIGINAL):
                self._warn(signature.name, _KEEP_ORIGINAL, "a clip has one row")
        _check_plain(parameters, where)
        return DataJuicerOperator(
            name=signature.name,
            kind=signature.kind,
            parameters=parameters,
            gate_names=frozenset(n for n, p in signature.parameters.items() if p.gate),
            version=signatures().version,
        )

    def _without_base(
        self, op: str, given: dict[str, Any], own: Collection[str], where: str
    ) -> dict[str, Any]:
        """The parameters that are the operator's own, after a word on those that all have."""
        base = signatures().base_parameters
        for name, value in given.items():
            if name in own:
                continue
            if name not in base:
                near = nearest(str(name), [*own, *base])
                raise ConfigError(f"{where}: unknown key {name!r}{near}")
            if name in _NEVER_TRUE:
                if value not in (None, False):
                    raise ConfigError(f"{where}: {name}: true is refused: {_NEVER_TRUE[name]}")
            else:
                self._warn(op, name, _BASE_REASON)
        return {name: value for name, value in given.items() if name in own}

    def _warn(self, op: str, name: str, reason: str) -> None:
        self._warnings.append(f"{op}: {name} has no effect: {reason}")


def _check_plain(parameters: dict[str, Any], where: str) -> None:
    """Parameters go to other processes and into fingerprints as JSON."""
    for name, value in parameters.items():
        if not str(name).isidentifier():
            raise ConfigError(f"{where}: {name!r} cannot be the name of a parameter")
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            raise ConfigError(
                f"{where}: {name} should be made of texts, numbers, booleans, lists and mappings"
            ) from None
