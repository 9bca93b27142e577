"""What is asked of a model hub, and the layout of its client's cache.

Nothing else in the project speaks to a hub. Its client honours Hugging Face's own variables
(`HF_HOME`, `HF_HUB_CACHE`, `HF_ENDPOINT`, `HF_HUB_OFFLINE`, `HF_TOKEN`). Code that a repository
carries is neither fetched nor run.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
from filelock import FileLock, Timeout
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    IncompleteSnapshotError,
)
from huggingface_hub.utils import disable_progress_bars, enable_progress_bars, validate_repo_id

from processors.models.layout import CONFIGURATION, needed_of

MAIN = "main"
"""The revision that is asked for: recipes name none."""
HUB_ERRORS = (HTTPError, OSError, ValueError)
"""What its client raises where a repository cannot be had."""


@dataclass(frozen=True)
class Listing:
    """What the hub has of a repository at one commit, as far as loading needs it."""

    commit: str
    sizes: Mapping[str, int]
    """Bytes of each file that is needed."""
    sha256: Mapping[str, str]
    """Of large files, which the hub tells; small ones have none."""
    licence: str | None

    @classmethod
    def of(cls, name: str, revision: str) -> Listing:
        """Ask the hub; one of `HUB_ERRORS` if it does not answer, or has no such repository."""
        info = huggingface_hub.HfApi().model_info(name, revision=revision, files_metadata=True)
        files = {file.rfilename: file for file in info.siblings or []}
        needed = needed_of(files)
        large = {n: files[n].lfs.sha256 for n in needed if files[n].lfs is not None}
        return cls(
            commit=info.sha or "",
            sizes={n: files[n].size or 0 for n in needed},
            sha256=large,
            licence=_licence(info.card_data.to_dict() if info.card_data else {}),
        )


def did_not_answer(error: Exception) -> bool:
    """Whether an error of the client says that it reached no hub."""
    return isinstance(error, HTTPError) and not isinstance(error, HfHubHTTPError)


def is_repository(name: str) -> bool:
    """Whether a hub could have a repository of that name."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return "/" in name


def is_offline() -> bool:
    """Whether `HF_HUB_OFFLINE` is set."""
    return bool(huggingface_hub.is_offline_mode())


def cache_folder() -> Path:
    """Folder of all repositories' files."""
    return Path(huggingface_hub.constants.HF_HUB_CACHE)


def repository_folder(name: str) -> Path:
    """Folder of one repository's files."""
    return cache_folder() / f"models--{name.replace('/', '--')}"


def lock_of(name: str) -> Path:
    """A lock file for a repository, beside those of the client."""
    return cache_folder() / ".locks" / repository_folder(name).name / "cliplake.lock"


def snapshot_of(name: str) -> Path | None:
    """The current snapshot in the cache, be it whole or not; None if there is none."""
    found = huggingface_hub.try_to_load_from_cache(name, CONFIGURATION)
    return Path(found).parent if isinstance(found, str) else None


def broke_off(name: str, snapshot: Path) -> bool:
    """Whether the client's cache knows of needed files that it lacks; asks no hub."""
    names = {path.name for path in snapshot.iterdir()}
    try:
        huggingface_hub.snapshot_download(
            name,
            revision=snapshot.name,
            local_files_only=True,
            allow_patterns=[*needed_of(names), "*.json", "*.txt", "*.model", "*.jinja"],
            ignore_patterns=["*/*"],
        )
    except IncompleteSnapshotError:
        return True
    except HUB_ERRORS:
        return False  # It knows nothing.
    return False


def download(name: str, revision: str, files: Collection[str], *, quiet: bool) -> Path:
    """The snapshot's folder with those files; what is there already is not fetched again.

    ``quiet``: without the client's own progress. One of `HUB_ERRORS` if that fails.
    """
    if quiet:
        disable_progress_bars()
    try:
        with warnings.catch_warnings():
            # It warns of a disk that is about to be full; the error that follows says so as well.
            warnings.simplefilter("ignore")
            folder = huggingface_hub.snapshot_download(
                name, revision=revision, allow_patterns=list(files)
            )
        return Path(folder)
    finally:
        if quiet:
            enable_progress_bars()


def bytes_in_cache(name: str) -> int:
    """Bytes of a repository's files that are here, those under way included."""
    total = 0
    with suppress(OSError):
        for path in (repository_folder(name) / "blobs").iterdir():
            with suppress(OSError):
                total += path.stat().st_size
    return total


def forget(file: Path) -> None:
    """Remove a snapshot's file, and the bytes that it stands for, so that it is fetched anew."""
    file.resolve().unlink(missing_ok=True)
    file.unlink(missing_ok=True)


def sweep(name: str) -> None:
    """Remove what downloads that were killed have left, and only that.

    The client holds a lock for each file that it fetches; who is killed holds none.
    """
    folder = repository_folder(name)
    locks = folder.parent / ".locks" / folder.name
    for left in (folder / "blobs").glob("*.incomplete"):
        with suppress(OSError, Timeout):
            locks.mkdir(parents=True, exist_ok=True)
            with FileLock(locks / f"{left.name.partition('.')[0]}.lock", timeout=0):
                left.unlink()


def _licence(card: Mapping[str, Any]) -> str | None:
    """As a model card's metadata state it; ``other`` is said with the name that it gives."""
    licence = card.get("license")
    if licence == "other" and isinstance(card.get("license_name"), str):
        licence = card["license_name"]
    if isinstance(licence, list):
        licence = ", ".join(map(str, licence))
    return " ".join(str(licence).split())[:100] if licence else None


def licence_of_card(file: Path) -> str | None:
    """The licence that a model card (``README.md``) states in its head, if it can be read."""
    try:
        return _licence(huggingface_hub.metadata_load(file) or {})
    except Exception:  # No card, or one that is broken: then it states nothing.
        return None
