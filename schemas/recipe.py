"""Recipes: DataJuicer's YAML, with its operators' names and parameters, read strictly.

A recipe lists operators under ``process`` in the order in which they judge a clip. The first is
the split; what follows is about clips. Parameters that an operator of DataJuicer has and that
mean nothing here are refused, not ignored: what a recipe says is what happens.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas import recipe_keys
from schemas.datajuicer import Modality
from schemas.entries import Entries
from schemas.ids import fingerprint
from schemas.operators import (
    CaptionFromVideo,
    DataJuicerOperator,
    DurationFilter,
    ExtractFrames,
    Operator,
    SplitByScene,
)
from schemas.problems import ConfigError, explain, nearest, read_yaml

Compat = Literal["dj", "fixed"]


class _RecipeFile(BaseModel):
    """Keys at the top of a recipe file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    project_name: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    description: str | None = None
    process: list[dict[str, dict[str, Any] | None] | str]
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

    @cached_property
    def split_fingerprint(self) -> str:
        """Changes when clips would be cut elsewhere; part of every clip_id."""
        return fingerprint(self.split.score_parameters())

    @cached_property
    def splitter(self) -> str:
        """The split's parameters as JSON, for the ``splitter`` column."""
        return json.dumps(self.split.score_parameters(), sort_keys=True)

    @cached_property
    def scores_fingerprint(self) -> str:
        """Changes when a clip's scores would."""
        # Only models of the hub are shown other pixels, or asked for another class.
        follows_compat = any(operator.checkpoint is not None for operator in self.operators)
        return fingerprint(
            {
                "operators": [operator.score_parameters() for operator in self.operators],
                "compat": self.compat if follows_compat else None,
                "score_rejected": self.score_rejected,
            }
        )

    @cached_property
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
    try:
        file = Path(path).expanduser()
        text = file.read_text(encoding="utf-8")
    except (OSError, RuntimeError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"recipe {path} cannot be read: {why}") from None
    return parse_recipe(text, where=str(file), default_name=file.stem, folder=file.resolve().parent)


def parse_recipe(text: str, *, where: str, default_name: str, folder: Path | None = None) -> Recipe:
    """As `load_recipe`, from YAML text; ``where`` stands in the errors.

    Files that the recipe names are looked for from ``folder``, else from the working directory.
    """
    return _recipe_of(read_yaml(text, where), where, default_name, folder or Path.cwd())


def read_dumped(text: str) -> Recipe:
    """The recipe of which `dump_recipe` made ``text``, in another process.

    As the JSON that it is: YAML takes ``1e-05`` for a text, and halves some characters.
    """
    return _recipe_of(json.loads(text), "the driver's recipe", "recipe", Path.cwd())


def _recipe_of(document: Any, where: str, default_name: str, folder: Path) -> Recipe:
    if not isinstance(document, dict):
        raise ConfigError(f"{where}: a recipe is a mapping with a list under 'process'")
    warnings = recipe_keys.warnings(document)
    head = _head(document, where)
    reader = Entries(folder, warnings)
    operators = [
        reader.operator(entry, f"{where}: process[{index}]")
        for index, entry in enumerate(head.process)
    ]
    warnings += [f"{o.op}: {remark}" for o in operators for remark in o.remarks()]
    return _assemble(head, operators, where, default_name, warnings)


def _head(document: dict[Any, Any], where: str) -> _RecipeFile:
    """The keys that mean something here; the others are known, or the recipe is wrong."""
    ours = _RecipeFile.model_fields
    ignored = recipe_keys.WITHOUT_EFFECT.keys() | recipe_keys.REFUSED.keys()
    if unknown := [str(key) for key in document if key not in ours and key not in ignored]:
        near = nearest(unknown[0], [*ours, *ignored])
        raise ConfigError(f"{where}: unknown key {unknown[0]!r}{near}")
    if reason := recipe_keys.refusal(document):
        raise ConfigError(f"{where}: {reason}")
    try:
        return _RecipeFile.model_validate({k: v for k, v in document.items() if k in ours})
    except ValidationError as error:
        raise explain(error, _RecipeFile, where) from None


def dump_recipe(recipe: Recipe) -> str:
    """A recipe as text that `read_dumped` makes an equal one of, for another process."""
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


def _assemble(
    head: _RecipeFile,
    operators: list[Operator],
    where: str,
    default_name: str,
    warnings: list[str],
) -> Recipe:
    _check_split(operators, where)
    names = [operator.op for operator in operators]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{where}: {name} is there twice")
    split, rest = operators[0], operators[1:]
    assert isinstance(split, SplitByScene)
    duration = next((o for o in rest if isinstance(o, DurationFilter)), DurationFilter())
    if duration in rest and rest.index(duration) != 0:
        raise ConfigError(
            f"{where}: {DurationFilter.op} should follow {SplitByScene.op}: "
            "it drops clips before any is decoded again"
        )
    _check_frame_fields(rest, where)
    _check_captions(rest, where)
    return Recipe(
        name=head.project_name or default_name,
        split=split,
        duration=duration,
        operators=tuple(o for o in rest if o is not duration),
        compat=head.compat,
        score_rejected=head.score_rejected,
        store_frames=head.store_frames,
        store_unsafe_frames=head.store_unsafe_frames,
        warnings=tuple(warnings),
    )


def _check_split(operators: list[Operator], where: str) -> None:
    """The split is there once, and first."""
    splits = [i for i, operator in enumerate(operators) if isinstance(operator, SplitByScene)]
    if len(splits) > 1:
        raise ConfigError(f"{where}: {SplitByScene.op} is there twice, and a video is cut once")
    if not splits:
        raise ConfigError(
            f"{where}: the first operator should be {SplitByScene.op}: "
            "all that follows is about its clips"
        )
    if splits[0] > 0:
        early = operators[0]
        why = (
            "it would change the video before it is cut, and clips are ranges of the uploaded one"
            if early.op.endswith("_mapper")
            else "it would judge whole videos, and operators here are about clips"
        )
        raise ConfigError(
            f"{where}: the first operator should be {SplitByScene.op}, and {early.op} is before "
            f"it: {why}; move it behind the split or leave it out"
        )


def _check_frame_fields(operators: list[Operator], where: str) -> None:
    """An operator may only look at frames that an earlier one has taken."""
    taken: list[str] = []
    for operator in operators:
        wanted = getattr(operator, "frame_field", None)
        if isinstance(operator, ExtractFrames):
            taken.append(operator.frame_field)
        elif wanted is not None and wanted not in taken:
            raise ConfigError(
                f"{where}: {operator.op}: frame_field {wanted!r} is not what an "
                f"{ExtractFrames.op} before it gives{nearest(wanted, taken)}"
            )


def _check_captions(operators: list[Operator], where: str) -> None:
    """An operator of DataJuicer may only read a caption that an earlier one has written."""
    captioned = False
    for operator in operators:
        if isinstance(operator, CaptionFromVideo):
            captioned = True
        elif (
            isinstance(operator, DataJuicerOperator)
            and Modality.TEXT in operator.signature.reads
            and not captioned
        ):
            raise ConfigError(
                f"{where}: {operator.op} reads the caption, and no operator before it writes one; "
                f"put {CaptionFromVideo.op} before it"
            )
