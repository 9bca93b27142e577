"""Where a checkpoint's files are: a folder of the user's, or a hub's snapshot in the local cache.

Nothing else in the project speaks to a hub. It honours Hugging Face's own variables (`HF_HOME`,
`HF_ENDPOINT`, `HF_HUB_OFFLINE`, `HF_TOKEN`). Code that a repository carries is never run.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub.errors import HFValidationError, HTTPError
from huggingface_hub.utils import validate_repo_id

from processors.errors import StageStartError, in_one_line
from processors.stage import ModelIdentity

_METADATA = ("*.json", "*.txt", "*.model", "*.jinja")
_SAFE_WEIGHTS, _OLD_WEIGHTS = "*.safetensors", "*.bin"
"""Weights as pickles are read as well, by torch's unpickler that makes tensors only."""
_INDEX = "*.index.json"
"""Lists the files of weights that are in several."""
_HUB_ERRORS = (HTTPError, OSError, ValueError)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files are on this machine."""

    folder: Path
    identity: ModelIdentity


def download_bytes(name: str) -> int:
    """How much `resolve` would fetch for that name; 0 if nothing, or if the hub does not say."""
    if Path(name).expanduser().is_dir() or not _is_repository(name):
        return 0
    if huggingface_hub.is_offline_mode() or _cached(name):
        return 0
    try:
        return _Snapshot.of(name).size
    except _HUB_ERRORS:
        return 0  # The start that follows fails, and says why.


def resolve(name: str, *, stage: str) -> Checkpoint:
    """The checkpoint of that name: a folder, or ``owner/repository`` of the hub.

    What the cache lacks is fetched, unless `HF_HUB_OFFLINE` is set. `StageStartError` if the
    files cannot be had.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return Checkpoint(folder, ModelIdentity(name, f"sha256:{_digest(folder, stage)}"))
    if not _is_repository(name):
        raise StageStartError(
            f"stage {stage}: {name} is no folder here, and no name of a hub's repository "
            "(owner/name)"
        )
    snapshot = _cached(name) or _fetched(name, stage)
    return Checkpoint(snapshot, ModelIdentity(name, snapshot.name))


def _is_repository(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return "/" in name


def _cached(name: str) -> Path | None:
    """The snapshot in the cache, if it holds what loading needs: a download may break off."""
    configuration = huggingface_hub.try_to_load_from_cache(name, "config.json")
    if not isinstance(configuration, str):
        return None
    snapshot = Path(configuration).parent
    indexes = sorted(snapshot.glob(_INDEX))
    if not indexes:
        return snapshot if _weights(snapshot) else None
    # One for each format that the repository has, and the shards of one of them are enough.
    return snapshot if any(_has_all_shards(index) for index in indexes) else None


def _has_all_shards(index: Path) -> bool:
    shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    return all((index.parent / shard).is_file() for shard in shards)


def _fetched(name: str, stage: str) -> Path:
    if huggingface_hub.is_offline_mode():
        raise StageStartError(
            f"stage {stage}: checkpoint {name} is not in {_cache_folder()}, and HF_HUB_OFFLINE "
            "is set; fetch it where there is a network (`hf download`), or name a folder"
        )
    try:
        snapshot = _Snapshot.of(name)
        # By name and not by revision: only then does the cache know which one is current.
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=list(snapshot.files)))
    except _HUB_ERRORS as error:
        words = in_one_line(error)
        raise StageStartError(
            f"stage {stage}: checkpoint {name} is not in {_cache_folder()} and cannot be "
            f"fetched: {words}; see HF_HOME, HF_ENDPOINT and HF_TOKEN, or name a folder"
        ) from None


@dataclass(frozen=True)
class _Snapshot:
    """What the hub has of a repository now, as far as loading needs it."""

    files: tuple[str, ...]
    size: int
    """Bytes of those files."""

    @classmethod
    def of(cls, name: str) -> _Snapshot:
        info = huggingface_hub.HfApi().model_info(name, files_metadata=True)
        # In folders are the same weights for other frameworks.
        top = [file for file in info.siblings or [] if "/" not in file.rfilename]
        weights = _SAFE_WEIGHTS if any(_is(file, _SAFE_WEIGHTS) for file in top) else _OLD_WEIGHTS
        wanted = [file for file in top if any(_is(file, p) for p in (*_METADATA, weights))]
        size = sum(file.size or 0 for file in wanted)
        return cls(tuple(file.rfilename for file in wanted), size)


def _is(file: Any, pattern: str) -> bool:
    return Path(file.rfilename).match(pattern)


def _weights(folder: Path) -> list[Path]:
    return sorted(folder.glob(_SAFE_WEIGHTS)) or sorted(folder.glob(_OLD_WEIGHTS))


def _digest(folder: Path, stage: str) -> str:
    """Of configuration and weights together: whatever the folder is called, they are the model."""
    weights = _weights(folder)
    configuration = folder / "config.json"
    if not weights or not configuration.is_file():
        raise StageStartError(
            f"stage {stage}: {folder} is no checkpoint: it holds no config.json, or no "
            f"{_SAFE_WEIGHTS} and no {_OLD_WEIGHTS}"
        )
    digest = hashlib.sha256()
    for path in (configuration, *weights):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _cache_folder() -> str:
    return str(huggingface_hub.constants.HF_HUB_CACHE)
