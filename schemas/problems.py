"""Reading a file that a person wrote: what is wrong, where, and the nearest right name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Hashable, Iterable
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError


class ConfigError(Exception):
    """A recipe, settings file or variable that cannot be used; the text is for the person."""


class Unreachable(ConfigError):
    """Something that the settings name does not answer: a broker, a cluster, a store."""

    exit_code = 6


class _StrictLoader(yaml.SafeLoader):
    """YAML's safe types; a key that is there twice is an error, not a lost first value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.tag != _MERGE:
                if key_node.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key_node.value!r} is there twice", key_node.start_mark
                    )
                seen.add(key_node.value)
        return super().construct_mapping(node, deep)


_SECRET = re.compile(r"passw|secret|token|credential|jaas|(\b|[_.-])key\b", re.IGNORECASE)
"""Names of options, of other systems too, whose values are not to be shown."""
_MERGE = "tag:yaml.org,2002:merge"
MOST_NAMES = 60
"""An error that lists more names than this is not read."""


def read_yaml(text: str, where: str) -> Any:
    """What a YAML text holds; `ConfigError` with the line if it cannot be read."""
    try:
        # The loader is a SafeLoader: it makes plain values only.
        return yaml.load(text, Loader=_StrictLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not YAML: {_yaml_problem(error)}") from None
    except RecursionError:
        raise ConfigError(f"{where}: not YAML that can be read: nested too deeply") from None
    except ValueError as error:
        # Dates that there are none of, and numbers of thousands of digits.
        raise ConfigError(f"{where}: not YAML that can be read: {error}") from None


def _yaml_problem(error: yaml.YAMLError) -> str:
    """In one line: what is wrong, and in which line and column of the text."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return " ".join(str(error).split())
    words = " ".join(filter(None, (getattr(error, "context", ""), getattr(error, "problem", ""))))
    return f"{words} (line {mark.line + 1}, column {mark.column + 1})"


def nearest(name: str, known: Iterable[str]) -> str:
    """``" (did you mean 'x'?)"`` or, if nothing is near, the known names."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known ones: {', '.join(names)}" if 0 < len(names) <= MOST_NAMES else ""


def explain(error: ValidationError, model: type[BaseModel], where: str) -> ConfigError:
    """A pydantic error as a `ConfigError`: one line a problem, each with its dotted place."""
    lines = []
    for problem in error.errors(include_url=False):
        loc = [part for part in problem["loc"] if not _is_union_tag(part)]
        place = ".".join(str(part) for part in loc)
        if problem["type"] == "extra_forbidden":
            known = _fields_at(model, loc[:-1])
            lines.append(f"{where}: unknown key {place!r}{nearest(str(loc[-1]), known)}")
        else:
            got = problem.get("input")
            hidden = isinstance(got, dict | list) or got is None or _SECRET.search(place)
            shown = "" if hidden else f" (got {got!r})"
            text = problem["msg"].removeprefix("Value error, ")
            if problem["type"] == "tuple_type":
                # People write lists; that we keep them as tuples is our own affair.
                text = "Input should be a list"
            lines.append(": ".join(filter(None, (where, place, f"{text}{shown}"))))
    return ConfigError("\n".join(lines))


def _is_union_tag(part: object) -> bool:
    return isinstance(part, str) and "[" in part


def _fields_at(model: type[BaseModel], loc: list[Any]) -> list[str]:
    """Names that may stand at a place in nested models, aliases included."""
    current: type[BaseModel] | None = model
    for part in loc:
        if current is None:
            return []
        info = current.model_fields.get(str(part))
        annotation = info.annotation if info else None
        current = (
            annotation
            if isinstance(annotation, type) and issubclass(annotation, BaseModel)
            else None
        )
    if current is None:
        return []
    return [info.alias or name for name, info in current.model_fields.items()]
