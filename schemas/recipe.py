"""Recipes: DataJuicer's YAML, with its operators' names and parameters, read strictly.

A recipe lists operators under ``process`` in the order in which they judge a clip. The first is
the split; what follows is about clips. Parameters that an operator of DataJuicer has and that
mean nothing here are refused, not ignored: what a recipe says is what happens.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.ids import fingerprint
from schemas.operators import OPERATORS, BuiltIn, DurationFilter, Operator, SplitByScene
from schemas.plugins import custom_stage, is_custom
from schemas.problems import ConfigError, explain, nearest, read_yaml

Compat = Literal["dj", "fixed"]


class _RecipeFile(BaseModel):
    """Keys at the top of a recipe file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    project_name: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    description: str | None = None
    process: list[dict[str, dict[str, Any] | None] | str]
    video_key: Literal["videos"] = "videos"
    np: Annotated[int, Field(ge=1)] | None = None
    """Read, and without effect: how many workers there are is a setting."""
    skip_op_error: bool = False
    compat: Compat = "dj"
    """``dj``: scores as DataJuicer has them; ``fixed``: with its known faults mended."""
    score_rejected: bool = False
    """Score a clip with every stage even after a gate rejected it."""
    store_frames: bool = True
    store_unsafe_frames: bool = False
    """Whether frames of clips that safety rejected are stored."""


@dataclass(frozen=True)
class Recipe:
    """A checked recipe; ``operators`` are those after split and duration filter, in order."""

    name: str
    split: SplitByScene
    duration: DurationFilter
    operators: tuple[Operator, ...]
    compat: Compat = "dj"
    score_rejected: bool = False
    store_frames: bool = True
    store_unsafe_frames: bool = False
    warnings: tuple[str, ...] = field(default=(), compare=False)
    """What the file says and what has no effect here, a sentence each."""

    @property
    def split_fingerprint(self) -> str:
        """Changes when clips would be cut elsewhere; part of every clip_id."""
        return fingerprint(self.split.score_parameters())

    @property
    def splitter(self) -> str:
        """The split's parameters as JSON, for the ``splitter`` column."""
        return json.dumps(self.split.score_parameters(), sort_keys=True)

    @property
    def scores_fingerprint(self) -> str:
        """Changes when a clip's scores would."""
        return fingerprint(
            {
                "operators": [operator.score_parameters() for operator in self.operators],
                "compat": self.compat,
                "score_rejected": self.score_rejected,
            }
        )

    @property
    def gates_fingerprint(self) -> str:
        """Changes when a clip's verdict would, from the same scores."""
        return fingerprint(
            {"gates": [self.duration.gates(), *(operator.gates() for operator in self.operators)]}
        )

    def operator(self, op: str) -> Operator | None:
        """The operator of that name, or None if the recipe lacks it."""
        return next((operator for operator in self.operators if operator.op == op), None)


def load_recipe(path: str | Path) -> Recipe:
    """A recipe from a file; `ConfigError` names the key that is wrong and the nearest right one."""
    file = Path(path).expanduser()
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe {file} cannot be read: {error}") from None
    return parse_recipe(text, where=str(file), default_name=file.stem, folder=file.resolve().parent)


def parse_recipe(text: str, *, where: str, default_name: str, folder: Path | None = None) -> Recipe:
    """As `load_recipe`, from YAML text; ``where`` stands in the errors.

    Files that the recipe names are looked for from ``folder``, else from the working directory.
    """
    document = read_yaml(text, where)
    if not isinstance(document, dict):
        raise ConfigError(f"{where}: a recipe is a mapping with a list under 'process'")
    try:
        head = _RecipeFile.model_validate(document)
    except ValidationError as error:
        raise explain(error, _RecipeFile, where) from None
    if head.skip_op_error:
        raise ConfigError(
            f"{where}: skip_op_error: true would drop clips without a word; leave it out: "
            "a clip that fails becomes a dead letter of its own here"
        )
    warnings: list[str] = []
    reader = _Entries(folder or Path.cwd(), warnings)
    operators = [
        reader.operator(entry, f"{where}: process[{index}]")
        for index, entry in enumerate(head.process)
    ]
    warnings += [f"{o.op}: {remark}" for o in operators for remark in o.remarks()]
    return _assemble(head, operators, where, default_name, warnings)


def dump_recipe(recipe: Recipe) -> str:
    """A recipe as text that `parse_recipe` makes an equal one of, for another process."""
    operators = (recipe.split, recipe.duration, *recipe.operators)
    return json.dumps(
        {
            "project_name": recipe.name,
            "process": [operator.entry() for operator in operators],
            "compat": recipe.compat,
            "score_rejected": recipe.score_rejected,
            "store_frames": recipe.store_frames,
            "store_unsafe_frames": recipe.store_unsafe_frames,
        }
    )


class _Entries:
    """Makes operators of the entries of ``process``."""

    def __init__(self, folder: Path, warnings: list[str]) -> None:
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
            try:
                return custom_stage(name, parameters, self._folder)
            except ValueError as error:
                raise ConfigError(f"{where}: {error}") from None
        kind = OPERATORS.get(name)
        if kind is None:
            raise ConfigError(f"{where}: unknown operator {name!r}{nearest(name, OPERATORS)}")
        try:
            return kind.model_validate(self._with_meaning(kind, parameters, f"{where}.{name}"))
        except ValidationError as error:
            raise explain(error, kind, f"{where}.{name}") from None

    def _with_meaning(
        self, kind: type[BuiltIn], parameters: dict[str, Any], where: str
    ) -> dict[str, Any]:
        """The parameters that have a meaning here; the others are named in a warning."""
        for name in parameters:
            if name in kind.refused:
                raise ConfigError(f"{where}: {name} cannot be changed: {kind.refused[name]}")
            if name in kind.without_effect:
                self._warnings.append(
                    f"{kind.op}: {name} has no effect: {kind.without_effect[name]}"
                )
        return {k: v for k, v in parameters.items() if k not in kind.without_effect}


def _assemble(
    head: _RecipeFile,
    operators: list[Operator],
    where: str,
    default_name: str,
    warnings: list[str],
) -> Recipe:
    names = [operator.op for operator in operators]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{where}: {name} is there twice")
    if not operators or not isinstance(operators[0], SplitByScene):
        raise ConfigError(
            f"{where}: the first operator should be {SplitByScene.op}: "
            "all that follows is about its clips"
        )
    rest = operators[1:]
    duration = next((o for o in rest if isinstance(o, DurationFilter)), DurationFilter())
    if duration in rest and rest.index(duration) != 0:
        raise ConfigError(
            f"{where}: {DurationFilter.op} should follow {SplitByScene.op}: "
            "it drops clips before any is decoded again"
        )
    return Recipe(
        name=head.project_name or default_name,
        split=operators[0],
        duration=duration,
        operators=tuple(o for o in rest if o is not duration),
        compat=head.compat,
        score_rejected=head.score_rejected,
        store_frames=head.store_frames,
        store_unsafe_frames=head.store_unsafe_frames,
        warnings=tuple(warnings),
    )
