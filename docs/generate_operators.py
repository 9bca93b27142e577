"""Writes schemas/datajuicer_operators.json from the installed py-data-juicer.

Run it with the interpreter that has the package: `.venv-datajuicer/bin/python
docs/generate_operators.py`. Sources are parsed, never imported: importing an operator may load
models or install packages. Only names, types, bounds, plain defaults and media are taken, no text.
"""

from __future__ import annotations

import ast
import copy
import json
import re
import sys
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from declared_parameters import constants, parameters_of, types_of, value_of

PACKAGE = "py-data-juicer"
TARGET = Path(__file__).resolve().parent.parent / "schemas" / "datajuicer_operators.json"
JUDGING = ("process_single", "process_batched")
"""A filter's methods that make its verdict of its statistics."""

_MEDIA = {"video": "video", "image": "frames", "text": "text"}
"""What a clip has of each of DataJuicer's media, by the word in their keys."""
_NAMES = {"stats": "StatsKeysConstant", "meta": "MetaKeys"}


class Package:
    """The classes of the package's operators, by name."""

    def __init__(self, root: Path) -> None:
        self.names: dict[str, Any] = {
            "sys.maxsize": sys.maxsize,
            "sys.float_info.max": sys.float_info.max,
        }
        keys = ast.parse((root / "utils" / "constant.py").read_text(encoding="utf-8"))
        self.names = constants(keys.body, self.names)
        self.result_names = {
            kind: sorted(
                v
                for k, v in self.names.items()
                if k.startswith(f"{owner}.") and isinstance(v, str) and not v.startswith("__")
            )
            for kind, owner in _NAMES.items()
        }
        stats = {k.partition(".")[2]: v for k, v in self.names.items() if "StatsKeysC" in k}
        self.names |= {f"StatsKeys.{k}": v for k, v in stats.items()}
        self.classes: dict[str, ast.ClassDef] = {}
        self.modules: dict[str, tuple[str, dict[str, Any]]] = {}
        for file in sorted((root / "ops").rglob("*.py")):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            known = constants(tree.body, self.names)
            for node in (n for n in tree.body if isinstance(n, ast.ClassDef)):
                self.classes[node.name] = node
                folder = file.relative_to(root / "ops").parts[0]
                self.modules[node.name] = (folder, known)

    def lineage(self, name: str) -> Iterator[ast.ClassDef]:
        """A class and its bases as far as they are operators of the package, nearest first."""
        node = self.classes.get(name)
        if node is not None and self.modules[name][0] != "base_op.py":
            yield node
            for base in node.bases:
                yield from self.lineage(ast.unparse(base))

    def operators(self) -> Iterator[tuple[str, str]]:
        """Registered names and their classes."""
        for name, node in self.classes.items():
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call) and (
                    ast.unparse(decorator.func) == "OPERATORS.register_module"
                ):
                    yield str(value_of(decorator.args[0], self.modules[name][1])), name

    def describe(self, name: str, class_name: str) -> dict[str, Any]:
        """One operator's entry of the table."""
        parameters: dict[str, dict[str, Any]] = {}
        for node in self.lineage(class_name):
            known = self.modules[node.name][1]
            init = method(node, "__init__")
            own = parameters_of(init, known) if init else {}
            for extra in (n for n in node.body if isinstance(n, ast.Assign)):
                # Keyword arguments that are read from a table of the class.
                if ast.unparse(extra.targets[0]) == "_default_kwargs":
                    own |= {k: {"default": v} for k, v in value_of(extra.value, known).items()}
            parameters = {**own, **parameters}
            if init and init.args.kwarg is None:
                break
        folder = self.modules[class_name][0]
        entry: dict[str, Any] = {"kind": "fused" if folder.endswith(".py") else folder}
        if folder in ("filter", "mapper"):
            entry |= self.media(name, class_name)
        if folder == "filter":
            for name in self.judging(class_name, parameters):
                parameters[name]["gate"] = True
            if bounds := self.bounds(class_name):
                entry["bounds"] = bounds
        return {**entry, "parameters": parameters}

    def media(self, name: str, class_name: str) -> dict[str, Any]:
        """``reads`` and ``writes``: media; ``sound``, if the operator is about that.

        By the rule of DataJuicer's own lists of operators, one reads a medium if its name begins
        with it or its class asks for that medium's key.
        """
        bodies = [without_text(node) for node in self.lineage(class_name)]
        source = "\n".join(ast.unparse(body) for body in bodies)
        reads = [
            medium
            for word, medium in _MEDIA.items()
            if name.startswith(f"{word}_") or f"self.{word}_key" in source
        ]
        assigned = {key for body in bodies for key in assigned_keys(body)}
        writes = [medium for word, medium in _MEDIA.items() if f"self.{word}_key" in assigned]
        sound = bool(re.search(r"(?i)audio", source))
        return {"reads": reads, "writes": writes, **({"sound": True} if sound else {})}

    def judging(self, class_name: str, parameters: dict[str, Any]) -> list[str]:
        """Parameters of a filter whose attributes only the verdict looks at."""
        attributes: dict[str, set[str]] = {}
        used: dict[bool, set[str]] = {True: set(), False: set()}
        for node in self.lineage(class_name):
            for function in (n for n in node.body if isinstance(n, ast.FunctionDef)):
                if function.name == "__init__":
                    for target, source in assignments(function):
                        for name in {n.id for n in ast.walk(source) if isinstance(n, ast.Name)}:
                            attributes.setdefault(name, set()).add(target)
                else:
                    used[function.name in JUDGING] |= self_attributes(function)
        return [
            name
            for name in parameters
            if (own := attributes.get(name, set())) and own <= used[True] - used[False]
        ]

    def bounds(self, class_name: str) -> list[list[str | None]]:
        """``[statistic, lower, upper]`` for each range that the verdict asks for.

        Empty if the verdict is anything else than that all ranges hold.
        """
        for node in self.lineage(class_name):
            judges = [f for name in JUDGING if (f := method(node, name))]
            if judges:
                return [range_ for judge in judges[:1] for range_ in ranges(judge, self.names)]
        return []


def method(node: ast.ClassDef, name: str) -> ast.FunctionDef | None:
    return next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == name), None)


def without_text(node: ast.ClassDef) -> ast.ClassDef:
    """The class without its docstrings."""
    bare = copy.deepcopy(node)
    for inner in ast.walk(bare):
        if isinstance(inner, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(inner):
            inner.body = [*inner.body[1:], ast.Pass()]
    return bare


def assigned_keys(node: ast.ClassDef) -> Iterator[str]:
    """The subscripts, as source, of samples whose items are assigned to."""
    for inner in ast.walk(node):
        match inner:
            case ast.Assign(targets=targets):
                pass
            case ast.AugAssign(target=target) | ast.AnnAssign(target=target):
                targets = [target]
            case _:
                continue
        for place in (n for target in targets for n in ast.walk(target)):
            if isinstance(place, ast.Subscript):
                yield ast.unparse(place.slice)


def assignments(init: ast.FunctionDef) -> Iterator[tuple[str, ast.expr]]:
    for node in ast.walk(init):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
            yield node.targets[0].attr, node.value


def self_attributes(function: ast.FunctionDef) -> set[str]:
    return {
        n.attr
        for n in ast.walk(function)
        if isinstance(n, ast.Attribute) and ast.unparse(n.value) == "self"
    }


def ranges(judge: ast.FunctionDef, names: dict[str, Any]) -> list[list[str | None]]:
    """The calls ``self.get_keep_boolean(statistic, self.lower, self.upper)``, if nothing but
    they decide, and each value can be traced to one statistic."""
    nodes = list(ast.walk(judge))
    if any(isinstance(n, ast.Or | ast.Not | ast.Compare) and not _asks_length(n) for n in nodes):
        return []
    origin: dict[str, str] = {}

    def statistic(node: ast.expr) -> str | None:
        if isinstance(node, ast.Subscript) and ast.unparse(node.slice) in names:
            return str(names[ast.unparse(node.slice)])
        return origin.get(ast.unparse(node))

    for node in nodes:
        if isinstance(node, ast.Assign) and (stat := statistic(node.value)):
            origin[ast.unparse(node.targets[0])] = stat
    for node in (n for n in nodes if isinstance(n, ast.comprehension)):
        zipped = isinstance(node.iter, ast.Call) and ast.unparse(node.iter.func) == "zip"
        sources = node.iter.args if zipped else [node.iter]  # type: ignore[attr-defined]
        targets = node.target.elts if isinstance(node.target, ast.Tuple) else [node.target]
        for target, source in zip(targets, sources, strict=False):
            if stat := statistic(source):
                origin[ast.unparse(target)] = stat
    found = []
    for node in nodes:
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "self.get_keep_boolean":
            limits = [ast.unparse(limit) for limit in node.args[1:]]
            stat = statistic(node.args[0])
            known = all(x == "None" or re.fullmatch(r"self\.\w+", x) for x in limits)
            if stat is None or len(limits) != 2 or not known:
                return []
            found.append([stat, *(None if x == "None" else x[5:] for x in limits)])
    return found


def _asks_length(node: ast.AST) -> bool:
    return isinstance(node, ast.Compare) and ast.unparse(node.left).startswith("len(")


def base_parameters(root: Path, class_name: str) -> dict[str, dict[str, Any]]:
    """The parameters in ``_BASE_PARAMS`` of a base class, of its own ones only."""
    tree = ast.parse((root / "ops" / "base_op.py").read_text(encoding="utf-8"))
    (node,) = (n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == class_name)
    (table,) = (
        n.value
        for n in node.body
        if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "_BASE_PARAMS"
    )
    assert isinstance(table, ast.Dict)
    keep = method(node, "get_keep_boolean")
    judged = self_attributes(keep) if keep else set()
    names = constants(tree.body, {})
    found: dict[str, dict[str, Any]] = {}
    for key, value in zip(table.keys, table.values, strict=True):
        if key is None or not isinstance(value, ast.Tuple):
            continue
        name = str(ast.literal_eval(key))
        known_type = ast.unparse(value.elts[0]) != "None"
        found[name] = types_of(value.elts[0]) if known_type else {}
        found[name]["default"] = value_of(value.elts[1], names)
        if name in judged:
            found[name]["gate"] = True
    return found


def config_keys(root: Path) -> list[str]:
    """The keys that a configuration file may have at its top."""
    tree = ast.parse((root / "config" / "config.py").read_text(encoding="utf-8"))
    names = {
        node.args[0].value.removeprefix("--").split(".")[0].replace("-", "_")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "add_argument"
        and isinstance(node.args[0], ast.Constant)
        and str(node.args[0].value).startswith("--")
    }
    return sorted(names)


def table() -> dict[str, Any]:
    """The whole content of the file."""
    found = distribution(PACKAGE)
    root = Path(str(found.locate_file("data_juicer")))
    package = Package(root)
    return {
        "package": PACKAGE,
        "version": found.version,
        "config_keys": config_keys(root),
        "base_parameters": list(base_parameters(root, "OP")),
        "filter_parameters": base_parameters(root, "Filter"),
        "result_names": package.result_names,
        "operators": {
            name: package.describe(name, cls) for name, cls in sorted(package.operators())
        },
    }


def render(content: dict[str, Any]) -> str:
    """JSON with one operator a line, so that a new version can be compared."""
    operators = content["operators"]
    head = {k: v for k, v in content.items() if k != "operators"}
    lines = [f'    "{name}": {json.dumps(entry)}' for name, entry in operators.items()]
    text = json.dumps(head, indent=2).removesuffix("\n}")
    return text + ',\n  "operators": {\n' + ",\n".join(lines) + "\n  }\n}\n"


if __name__ == "__main__":
    TARGET.write_text(render(table()), encoding="utf-8")
