"""Where a checkpoint's files are: a folder of the user's, or a hub's snapshot in the local cache.

Nothing else in the project speaks to a hub. It honours Hugging Face's own variables (`HF_HOME`,
`HF_ENDPOINT`, `HF_HUB_OFFLINE`, `HF_TOKEN`). Code that a repository carries is never run.
"""

from __future__ import annotations

import hashlib
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from processors.errors import StageStartError
from processors.stage import ModelIdentity

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_METADATA = ("*.json", "*.txt", "*.model", "*.jinja")
_SAFE_WEIGHTS, _OLD_WEIGHTS = "*.safetensors", "*.bin"
"""Weights as pickles are read as well, by torch's unpickler that makes tensors only."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files are on this machine."""

    folder: Path
    identity: ModelIdentity


def resolve(name: str, *, stage: str) -> Checkpoint:
    """The checkpoint of that name: a folder, or ``owner/repository`` of the hub.

    What the cache lacks is fetched, after a line that says how much it is, unless
    `HF_HUB_OFFLINE` is set. `StageStartError` if the files cannot be had.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return Checkpoint(folder, ModelIdentity(name, f"sha256:{_digest(folder, stage)}"))
    if not _REPOSITORY.fullmatch(name):
        raise StageStartError(
            f"stage {stage}: {name} is no folder here, and no name of a hub's repository "
            "(owner/name)"
        )
    snapshot = _cached(name) or _fetched(name, stage)
    return Checkpoint(snapshot, ModelIdentity(name, snapshot.name))


def _cached(name: str) -> Path | None:
    try:
        snapshot = Path(huggingface_hub.snapshot_download(name, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    # A download that broke off leaves a snapshot without its weights.
    return snapshot if _weights(snapshot) and (snapshot / "config.json").is_file() else None


def _fetched(name: str, stage: str) -> Path:
    if huggingface_hub.is_offline_mode():
        raise StageStartError(
            f"stage {stage}: checkpoint {name} is not in {_cache_folder()}, and HF_HUB_OFFLINE "
            "is set; fetch it where there is a network (`hf download`), or name a folder"
        )
    try:
        info = huggingface_hub.HfApi().model_info(name, files_metadata=True)
        files = _wanted(info.siblings or [])
        size = sum(file.size or 0 for file in files)
        logger.info("stage %s: %s: %.2f GB to download, once", stage, name, size / 1e9)
        return Path(
            huggingface_hub.snapshot_download(
                name, revision=info.sha, allow_patterns=[file.rfilename for file in files]
            )
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        words = " ".join(str(error).split())[:300]
        raise StageStartError(
            f"stage {stage}: checkpoint {name} is not in {_cache_folder()} and cannot be "
            f"fetched: {words}; see HF_HOME, HF_ENDPOINT and HF_TOKEN, or name a folder"
        ) from None


def _wanted(files: list[Any]) -> list[Any]:
    """The files at a repository's top that loading needs; safetensors rather than pickles."""
    top = [file for file in files if "/" not in file.rfilename]
    suffix = _SAFE_WEIGHTS if any(_is(file, _SAFE_WEIGHTS) for file in top) else _OLD_WEIGHTS
    return [file for file in top if any(_is(file, p) for p in (*_METADATA, suffix))]


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
