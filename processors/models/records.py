"""What was fetched: a record beside each checkpoint, with the hashes of its files.

A hub's checkpoint has its record in the hub's cache, in ``cliplake/<commit>/`` of the repository's
folder, so that it goes where the cache goes and is removed with it; a folder of the user's has it
in ``.cliplake/folder/``. Weights that were converted lie beside the record. Such a folder appears
by one rename, when all of it is there.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from processors.models.layout import is_pickle

_RECORD = "record.json"
_CONVERTED = "safetensors"


@dataclass(frozen=True)
class FileHash:
    """One file as it was fetched or made."""

    name: str
    size: int
    """Bytes."""
    sha256: str

    @classmethod
    def of(cls, path: Path) -> FileHash:
        """Of a file's bytes now; `OSError` if they cannot be read."""
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            return cls(path.name, os.fstat(file.fileno()).st_size, sha256)


@dataclass(frozen=True)
class Record:
    """A checkpoint as it was fetched."""

    model: str
    """Repository, or folder."""
    revision: str | None
    """What was asked for, a branch or a commit; None for a folder."""
    commit: str
    """What that was; of a folder ``sha256:`` and the hash of its configuration and weights."""
    endpoint: str | None
    """The hub; None for a folder."""
    licence: str | None
    """As the model card's metadata state it; None if they don't."""
    fetched_at: str
    verified_at: str | None
    """When the hashes were last found right; UTC, as the time before."""
    files: tuple[FileHash, ...]
    """As they were fetched."""
    converted: tuple[FileHash, ...] = ()
    """Files of weights made of fetched pickles."""

    @property
    def size(self) -> int:
        """Bytes on disk, of fetched and converted files."""
        return sum(file.size for file in (*self.files, *self.converted))


@dataclass(frozen=True)
class Place:
    """Where a checkpoint's files are, and where its record is."""

    files: Path
    """The hub's snapshot, or the user's folder."""
    own: Path
    """Folder of ours beside it, which is there when it is whole."""

    @classmethod
    def of_snapshot(cls, snapshot: Path) -> Place:
        return cls(snapshot, snapshot.parent.parent / "cliplake" / snapshot.name)

    @classmethod
    def of_folder(cls, folder: Path) -> Place:
        return cls(folder, folder / ".cliplake" / "folder")

    @property
    def converted(self) -> Path:
        """The checkpoint with converted weights, if it had to be converted."""
        return self.own / _CONVERTED

    @property
    def part(self) -> Path:
        """What becomes `own`, while it is made."""
        return self.own.with_name(f"{self.own.name}.part")

    @property
    def converted_part(self) -> Path:
        return self.part / _CONVERTED

    def record(self) -> Record | None:
        """None if there is none, or none that can be read: then it has to be fetched again."""
        try:
            values = json.loads((self.own / _RECORD).read_text(encoding="utf-8"))
            lists = {
                key: tuple(FileHash(**file) for file in values[key])
                for key in ("files", "converted")
            }
            return Record(**{**values, **lists})
        except (OSError, ValueError, TypeError, LookupError):
            return None

    def write(self, record: Record, folder: Path | None = None) -> None:
        """Into ``folder``, by default where it belongs; `OSError` if it cannot be written."""
        file = (folder or self.own) / _RECORD
        part = file.with_name(f"{_RECORD}.{os.getpid()}.part")
        try:
            part.write_text(json.dumps(asdict(record), indent=1), encoding="utf-8")
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)

    def usable(self, record: Record) -> Path | None:
        """The folder to load from, if each recorded file is there with its size."""
        if record.converted:
            # The pickles were needed to make these, and are needed no more.
            whole = all(_has_size(self.converted, file) for file in record.converted)
            return self.converted if whole else None
        return self.files if all(_has_size(self.files, file) for file in record.files) else None

    def differing(self, record: Record) -> list[str]:
        """A line for each file that is not as recorded; reads all of them."""
        lines = []
        for folder, files in ((self.files, record.files), (self.converted, record.converted)):
            for file in files:
                path = folder / file.name
                if record.converted and is_pickle(file.name) and not path.exists():
                    continue  # Needed no more.
                try:
                    found = FileHash.of(path)
                except OSError as error:
                    lines.append(f"{path} cannot be read: {error.strerror}")
                    continue
                if found != file:
                    lines.append(
                        f"{path} differs: {found.size:,} bytes, SHA-256 {found.sha256}; "
                        f"recorded {file.size:,} bytes, {file.sha256}"
                    )
        return lines

    def mark_verified(self, record: Record) -> Record:
        """The record with the present time in it; where it may not be written it stays as it is."""
        changed = replace(record, verified_at=now())
        try:
            self.write(changed)
        except OSError:
            return record
        return changed


def digest(files: Sequence[FileHash]) -> str:
    """One hash of a folder's configuration and weights: whatever it is called, they are it."""
    hashed = hashlib.sha256()
    for file in files:
        hashed.update(bytes.fromhex(file.sha256))
    return f"sha256:{hashed.hexdigest()}"


def now() -> str:
    """The present time, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _has_size(folder: Path, file: FileHash) -> bool:
    try:
        return (folder / file.name).stat().st_size == file.size
    except OSError:
        return False
