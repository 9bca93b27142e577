"""From an entry of a recipe's ``process`` to an operator: names and parameters checked.

A parameter of DataJuicer that has no meaning here is named in a warning; everything else that
would not happen as written is an error, with the nearest name if it looks like a slip.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from schemas.datajuicer import Signature, signatures
from schemas.operators import OPERATORS, BuiltIn, DataJuicerOperator, Operator
from schemas.parameters import check_finite, check_harmless, check_plain
from schemas.plugins import custom_stage, is_custom
from schemas.problems import ConfigError, explain, nearest

_BASE_REASON = "how and on what an operator runs, and what it is given, is decided here"
_SKIP_ERRORS = "skip_op_error"
_VLLM = "enable_vllm"
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
        check_plain(parameters, f"{where}.{name}")
        if is_custom(name):
            check_finite(parameters, f"{where}.{name}")
            try:
                return custom_stage(name, parameters, self._folder)
            except ValueError as error:
                raise ConfigError(f"{where}: {error}") from None
        where = f"{where}.{name}"
        if name in OPERATORS:
            return self._built_in(OPERATORS[name], parameters, where)
        signature = signatures().operators.get(name)
        if signature is None and ".py" in name:
            raise ConfigError(
                f"{where}: {name!r} names no class; write a stage of your own as "
                f"{name.partition('.py')[0]}.py:ClassName"
            )
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
        check_harmless(given, where)
        given = self._without_base(signature.name, given, signature.parameters, where)
        _check_vllm(signature, given, where)
        parameters = {}
        for name, value in given.items():
            parameter = signature.parameters[name]
            if problem := parameter.problem(value):
                raise ConfigError(f"{where}: {name} {problem}")
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
        check_finite(parameters, where)
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
            if name == _SKIP_ERRORS:
                if value is not None and value is not False:
                    raise ConfigError(
                        f"{where}: {name}: true is refused: a clip that fails becomes a dead "
                        "letter, and is never dropped without a word"
                    )
            else:
                self._warn(op, name, _BASE_REASON)
        return {name: value for name, value in given.items() if name in own}

    def _warn(self, op: str, name: str, reason: str) -> None:
        self._warnings.append(f"{op}: {name} has no effect: {reason}")


def _check_vllm(signature: Signature, given: dict[str, Any], where: str) -> None:
    """Its engine runs in processes of its own, out of reach of what guards an operator's."""
    parameter = signature.parameters.get(_VLLM)
    if parameter is not None and given.get(_VLLM, parameter.default):
        raise ConfigError(
            f"{where}: {_VLLM}: true is refused: DataJuicer's operators run on the CPU, in one "
            f"guarded process; write {_VLLM}: false"
        )
