"""What the source of a constructor says without being run: names, types, bounds, plain defaults."""

from __future__ import annotations

import ast
from typing import Any

LONGEST_DEFAULT = 100
"""Characters of a default text; a longer one is a prompt, which is theirs."""

_TYPES = {
    "str": "text", "int": "integer", "float": "number", "bool": "boolean", "None": "null",
    "dict": "mapping", "list": "list", "tuple": "list", "sequence": "list",
    "positiveint": "integer", "nonnegativeint": "integer", "positivefloat": "number",
    "nonnegativefloat": "number", "closedunitinterval": "number",
}  # fmt: skip
_BOUNDS = {
    "PositiveInt": {"minimum": 1},
    "NonNegativeInt": {"minimum": 0},
    "PositiveFloat": {"above": 0},
    "NonNegativeFloat": {"minimum": 0},
    "ClosedUnitInterval": {"minimum": 0, "maximum": 1},
}
_FIELD_BOUNDS = {"ge": "minimum", "gt": "above", "le": "maximum"}


class NotPlain(Exception):
    """An expression whose value cannot be known without running it."""


def value_of(node: ast.expr, names: dict[str, Any]) -> Any:
    """The value of literals, known names and simple sums and products of them."""
    text = ast.unparse(node)
    if text in names:
        return names[text]
    match node:
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -value_of(operand, names)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return value_of(left, names) + value_of(right, names)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return value_of(left, names) * value_of(right, names)
        case ast.JoinedStr(values=values):
            parts = (v.value if isinstance(v, ast.FormattedValue) else v for v in values)
            return "".join(str(value_of(part, names)) for part in parts)
        case ast.Tuple(elts=elements) | ast.List(elts=elements):
            return [value_of(element, names) for element in elements]
        case ast.Dict(keys=keys, values=values) if None not in keys:
            return {
                str(value_of(k, names)): value_of(v, names)
                for k, v in zip(keys, values, strict=True)
                if k is not None
            }
        case ast.Constant(value=value) if value is not Ellipsis:
            return value
    raise NotPlain(text)


def constants(body: list[ast.stmt], names: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """``names`` and the plain values that a module or class binds names to."""
    known = dict(names)
    for node in body:
        if isinstance(node, ast.ClassDef):
            known |= {
                f"{node.name}.{k}": v for k, v in constants(node.body, names).items()
                if k not in names
            }  # fmt: skip
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                known[prefix + node.targets[0].id] = value_of(node.value, known)
            except NotPlain:
                continue
    return known


def types_of(annotation: ast.expr | None) -> dict[str, Any]:
    """``{"types": [...]}`` and bounds; without ``types`` anything goes."""
    if annotation is None:
        return {}
    text = ast.unparse(annotation)
    bounds = dict(_BOUNDS.get(text.removeprefix("Optional[").rstrip("]"), {}))
    types: list[str] = []
    match annotation:
        case ast.Subscript(value=ast.Name(id="Optional"), slice=inner):
            types = [*types_of(inner).get("types", ["any"]), "null"]
            bounds = {k: v for k, v in types_of(inner).items() if k != "types"}
        case ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[inner, field])):
            types = types_of(inner)["types"]
            if isinstance(field, ast.Call):
                bounds = {
                    _FIELD_BOUNDS[k.arg or ""]: ast.literal_eval(k.value) for k in field.keywords
                }
        case ast.Subscript(value=ast.Name(id="Union"), slice=ast.Tuple(elts=members)):
            types = [t for m in members for t in types_of(m).get("types", ["any"])]
        case ast.Subscript(value=ast.Name(id=name)) | ast.Name(id=name):
            types = [_TYPES.get(name, _TYPES.get(name.lower(), "any"))]
        case ast.Constant(value=None):
            types = ["null"]
        case _:
            types = ["any"]
    if "any" in types:
        return {}
    return {"types": list(dict.fromkeys(types)), **bounds}


def parameters_of(init: ast.FunctionDef, names: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The named parameters of a constructor, each with types, bounds and a plain default."""
    arguments = init.args
    positional = arguments.args[1:]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = zip(positional + arguments.kwonlyargs, defaults + arguments.kw_defaults, strict=True)
    found: dict[str, dict[str, Any]] = {}
    for argument, default in pairs:
        entry = types_of(argument.annotation)
        if default is None:
            entry["required"] = True
        else:
            try:
                value = value_of(default, names)
                if not isinstance(value, str) or len(value) <= LONGEST_DEFAULT:
                    entry["default"] = value
                if value is None and "types" in entry and "null" not in entry["types"]:
                    entry["types"].append("null")
            except NotPlain:
                pass
        found[argument.arg] = entry
    return found
