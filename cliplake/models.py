"""The models that a recipe needs: which, where, and whether they are as they were fetched.

Not here: the commands (`cliplake.commands.models`), and how a checkpoint is found and fetched
(`processors.models`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from cliplake.console import CommandError
from processors.errors import StageStartError
from processors.safety import MODEL_FILE, MODEL_NAME, MODEL_SHA256, read_model
from schemas.operators import CaptionFromVideo, NsfwFilter
from schemas.recipe import Recipe
from schemas.settings import Settings

if TYPE_CHECKING:
    from processors.models.checkpoint import ModelNeed

NOT_STATED = "not stated"
READY, MISSING, NOT_READY = "ready", "missing", "not ready"


@dataclass(frozen=True)
class ModelRow:
    """One model of a recipe as `models list` shows it."""

    stage: str
    model: str
    """Repository, folder, or the name of the one that is built in."""
    revision: str | None
    """What is asked for; None for a folder."""
    commit: str | None
    """What that is; None if it was not fetched by `models fetch`, and nothing of it is here."""
    state: str
    """``ready``, ``missing`` (nothing is here), or ``not ready`` (see ``lacks``)."""
    lacks: str
    size_bytes: int
    """On this disk, as far as it is recorded or ready."""
    licence: str | None
    """As it was recorded, or stands beside the model; None if nothing is recorded yet."""
    path: str
    """Folder or file that is loaded, or where it was looked for."""
    fetched_at: str | None = None
    """None: no hashes are recorded."""
    verified_at: str | None = None
    converted: bool = False
    """Whether its weights were made of pickles."""


def checkpoints_of(recipe: Recipe, file: Path | None = None) -> list[ModelNeed]:
    """The recipe's checkpoints in order, of hubs and in folders.

    ``file``: the recipe's, for what errors say. `CommandError` if this environment has nothing
    that could load them.
    """
    wanted = [(o, o.checkpoint) for o in recipe.operators if o.checkpoint is not None]
    if not wanted:
        return []
    try:
        from processors.models.checkpoint import ModelNeed
    except ImportError as error:
        raise CommandError(
            f"{wanted[0][1]} needs torch and transformers ({error}); run `make setup-models`"
        ) from None
    return [
        ModelNeed(o.stage, name, isinstance(o, CaptionFromVideo), str(file or "RECIPE"))
        for o, name in wanted
    ]


def has_built_in(recipe: Recipe) -> bool:
    """Whether it runs the model that `make setup` brings."""
    return any(isinstance(o, NsfwFilter) and o.checkpoint is None for o in recipe.operators)


def model_rows(recipe: Recipe, file: Path, settings: Settings) -> list[ModelRow]:
    """Every model of a recipe; asks no hub, and hashes nothing but the model that is built in."""
    rows = [_row(need) for need in checkpoints_of(recipe, file)]
    if has_built_in(recipe):
        rows.append(_built_in_row(settings))
    order = [operator.stage for operator in recipe.operators]
    return sorted(rows, key=lambda row: order.index(row.stage))


def _row(need: ModelNeed) -> ModelRow:
    from processors.models import hub
    from processors.models.checkpoint import find

    found = find(need)
    revision = None if need.folder else hub.MAIN
    if found.place is None:
        return ModelRow(
            need.stage, need.name, revision, None, MISSING, "", 0, None,
            str(hub.cache_folder()),
        )  # fmt: skip
    record = found.record
    known = None if need.folder else found.place.files.name
    folder = found.folder or found.place.files
    return ModelRow(
        stage=need.stage,
        model=need.name,
        revision=revision,
        commit=record.commit if record else known,
        state=READY if found.folder else NOT_READY,
        lacks=found.lacks,
        size_bytes=record.size if record else _size(folder),
        licence=(record.licence or NOT_STATED) if record else None,
        path=str(folder),
        fetched_at=record.fetched_at if record else None,
        verified_at=record.verified_at if record else None,
        converted=bool(record and record.converted),
    )


def _built_in_row(settings: Settings) -> ModelRow:
    file = settings.model_dir / MODEL_FILE
    lacks = built_in_problem(settings)
    state = READY if lacks is None else NOT_READY if file.exists() else MISSING
    return ModelRow(
        stage=NsfwFilter.stage,
        model=MODEL_NAME,
        revision=None,
        commit=f"sha256:{MODEL_SHA256}",
        state=state,
        lacks="" if state == MISSING else lacks or "",
        size_bytes=file.stat().st_size if file.is_file() else 0,
        licence=_first_line(file.with_name("LICENSE")),
        path=str(file),
    )


def built_in_problem(settings: Settings) -> str | None:
    """Why the model that is built in cannot be used, in a line; None if it can."""
    try:
        read_model(settings.model_dir / MODEL_FILE)
    except StageStartError as error:
        return str(error)
    return None


def differences(recipe: Recipe, settings: Settings) -> dict[str, list[str]]:
    """By model, a line for each file that is not as recorded; reads all files, asks no hub."""
    found: dict[str, list[str]] = {}
    for need in checkpoints_of(recipe, settings.recipe_file):
        found[need.name] = _differences(need)
    if has_built_in(recipe):
        problem = built_in_problem(settings)
        found[MODEL_NAME] = [problem] if problem else []
    return found


def _differences(need: ModelNeed) -> list[str]:
    from processors.models.checkpoint import find

    remedy = f"run `cliplake models fetch {need.recipe}`"
    found = find(need)
    if found.place is None:
        return [f"nothing of it is here; {remedy}"]
    if found.record is None:
        return [f"no hashes are recorded for {found.place.files}; {remedy}"]
    lines = found.place.differing(found.record)
    if not lines:
        found.place.mark_verified(found.record)
    return [f"{line}; {remedy}" for line in lines]


def _first_line(file: Path) -> str:
    """Of the licence that came with the model."""
    try:
        return file.read_text(encoding="utf-8").strip().splitlines()[0][:100]
    except (OSError, UnicodeDecodeError, IndexError):
        return NOT_STATED


def _size(folder: Path) -> int:
    from processors.models.layout import needed_of

    sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
    return sum(sizes[name] for name in needed_of(sizes))


def models_document(recipe: Recipe, rows: Sequence[ModelRow]) -> dict[str, Any]:
    """The rows as JSON."""
    return {"recipe": recipe.name, "models": [asdict(row) for row in rows]}


def models_table(rows: Sequence[ModelRow]) -> Table:
    """The rows for a terminal."""
    table = Table(show_edge=False, header_style="bold", show_lines=True)
    table.add_column("stage")
    table.add_column("model, and where it is", overflow="fold", ratio=1)
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("licence", overflow="fold")
    table.add_column("state", overflow="fold")
    for row in rows:
        commit = row.commit or "not known yet"
        asked = f"{row.revision}: " if row.revision else ""
        where = f"looked for in {row.path}" if row.state == MISSING else row.path
        # As Text: what recipes and hubs say is no markup.
        table.add_row(
            Text(row.stage),
            Text(f"{row.model}\n{asked}{commit}\n{where}"),
            Text(f"{row.size_bytes / 1e6:,.1f} MB" if row.size_bytes else "·"),
            Text(row.licence or "·"),
            Text(_state(row)),
        )
    return table


def _state(row: ModelRow) -> str:
    lines = [row.state]
    if row.lacks:
        lines.append(f"lacks {row.lacks}" if row.model != MODEL_NAME else row.lacks)
    if row.converted:
        lines.append("converted to safetensors")
    if row.verified_at:
        lines.append(f"verified {row.verified_at}")
    elif row.state == READY and row.model != MODEL_NAME:
        lines.append("not verified: no hashes are recorded")
    elif row.state == READY:
        lines.append("verified now")
    return "\n".join(lines)
