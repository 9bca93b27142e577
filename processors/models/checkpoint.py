"""Where the files of a stage's checkpoint are: found at the start, or the start ends with a line.

A name is a folder of the user's, or ``owner/repository`` of a hub. What of a hub is not here yet
is fetched at the start, unless `HF_HUB_OFFLINE` is set; a folder is only read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from processors.errors import FetchError, StageStartError
from processors.models import hub
from processors.models.fetching import fetch_repository, folder_commit
from processors.models.layout import is_pickle, needed_of, weights_of, what_lacks
from processors.models.records import FileHash, Place, Record
from processors.stage import ModelIdentity


@dataclass(frozen=True)
class ModelNeed:
    """A checkpoint that a stage of a recipe loads."""

    stage: str
    name: str
    """A folder, or ``owner/repository`` of a hub."""
    tokenizer: bool = False
    """Whether it makes texts."""
    recipe: str = "RECIPE"
    """The recipe's file, for the command that errors name."""

    @property
    def folder(self) -> Path | None:
        """The folder that is named; None if it names a repository, or nothing."""
        folder = Path(self.name).expanduser()
        return folder if self.name and folder.is_dir() else None


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files are on this machine."""

    folder: Path
    identity: ModelIdentity


@dataclass(frozen=True)
class Found:
    """What of a checkpoint is on this machine."""

    place: Place | None
    """None: nothing."""
    record: Record | None
    """None: it was not fetched by `cliplake models fetch`, or not to its end."""
    folder: Path | None
    """To load from; None if it cannot be loaded."""
    lacks: str
    """Why it cannot, in words."""


def download_bytes(need: ModelNeed) -> int:
    """How much `resolve` would fetch; 0 if nothing, or if the hub does not say."""
    if need.folder or not hub.is_repository(need.name) or hub.is_offline():
        return 0
    found = find(need)
    if found.folder is not None:
        return 0
    try:
        listing = hub.Listing.of(need.name, hub.MAIN)
    except hub.HUB_ERRORS:
        return 0  # The start that follows fails, and says why.
    snapshot = hub.repository_folder(need.name) / "snapshots" / listing.commit
    return sum(size for file, size in listing.sizes.items() if not (snapshot / file).is_file())


def find(need: ModelNeed) -> Found:
    """What is here; asks no hub, and reads no weights."""
    if folder := need.folder:
        place = Place.of_folder(folder)
    else:
        snapshot = hub.snapshot_of(need.name)
        if snapshot is None:
            return Found(None, None, None, "")
        place = Place.of_snapshot(snapshot)
    record = place.record()
    if record is not None:
        ready = place.usable(record)
        return Found(place, record, ready, "" if ready else "a file, or has one of another size")
    lacks = what_lacks(place.files, tokenizer=need.tokenizer)
    if lacks is None and any(map(is_pickle, weights_of([p.name for p in place.files.iterdir()]))):
        lacks = "weights as safetensors, and only those are loaded"
    if lacks is None and not folder and hub.broke_off(need.name, place.files):
        lacks = "files that the hub has"
    return Found(place, None, place.files if lacks is None else None, lacks or "")


def resolve(need: ModelNeed) -> Checkpoint:
    """The files of a checkpoint; `StageStartError`, one line, if they cannot be had."""
    if folder := need.folder:
        return _resolve_folder(need, folder)
    if not hub.is_repository(need.name):
        raise StageStartError(
            f"stage {need.stage}: {need.name} is no folder here, and no name of a hub's "
            "repository (owner/name)"
        )
    found = find(need)
    if found.place is not None and found.folder is not None:
        return Checkpoint(found.folder, ModelIdentity(need.name, found.place.files.name))
    try:
        fetched = fetch_repository(need.name, tokenizer=need.tokenizer)
    except FetchError as error:
        raise StageStartError(_not_here(need, found, str(error))) from None
    return Checkpoint(fetched.folder, ModelIdentity(need.name, fetched.record.commit))


def _not_here(need: ModelNeed, found: Found, why: str) -> str:
    if found.place is None:
        what = f"model {need.name}, revision {hub.MAIN}, is not in {hub.cache_folder()}"
    else:
        what = (
            f"model {need.name}, revision {found.place.files.name}, lacks {found.lacks}, in "
            f"{found.place.files}"
        )
    return (
        f"stage {need.stage}: {what}, and cannot be fetched: {why}; run `cliplake models fetch "
        f"{need.recipe}` where there is a network (see HF_HOME, HF_ENDPOINT and HF_TOKEN), or "
        "name a folder"
    )


def _resolve_folder(need: ModelNeed, folder: Path) -> Checkpoint:
    """A folder's commit is the hash of what it holds, so all of it is read."""
    if lacks := what_lacks(folder, tokenizer=need.tokenizer):
        raise StageStartError(
            f"stage {need.stage}: {folder} is no checkpoint: it lacks {lacks}; name a folder that "
            "has it, or a repository of a hub"
        )
    names = needed_of({path.name for path in folder.iterdir() if path.is_file()})
    try:
        files = tuple(FileHash.of(folder / name) for name in names)
    except OSError as error:
        raise StageStartError(
            f"stage {need.stage}: the checkpoint in {folder} cannot be read: {error}"
        ) from None
    commit = folder_commit(files)
    if not any(is_pickle(name) for name in weights_of(names)):
        return Checkpoint(folder, ModelIdentity(need.name, commit))
    place = Place.of_folder(folder)
    record = place.record()
    ready = place.usable(record) if record is not None and record.files == files else None
    if ready is None:
        raise StageStartError(
            f"stage {need.stage}: {folder} holds weights as pickles, and only safetensors are "
            f"loaded; run `cliplake models fetch {need.recipe}`, which converts them"
        )
    return Checkpoint(ready, ModelIdentity(need.name, commit))
