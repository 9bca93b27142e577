"""Getting a checkpoint onto this machine: fetched, hashed, converted if need be, and recorded.

A fetch may be killed at any time and run again, and two may run at once: what is there is kept,
and what is not whole is not taken for a checkpoint.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import huggingface_hub
from filelock import FileLock

from processors.errors import FetchError, in_one_line
from processors.models import hub
from processors.models.conversion import ConversionError, convert
from processors.models.layout import CONFIGURATION, is_pickle, needed_of, weights_of, what_lacks
from processors.models.records import FileHash, Place, Record, digest, now

Say = Callable[[str], None]
"""Hears in a few words what is being done."""


@dataclass(frozen=True)
class Fetched:
    """A checkpoint that is here and recorded."""

    place: Place
    record: Record
    folder: Path
    """To load from."""


def fetch_repository(
    name: str, *, tokenizer: bool, say: Say = lambda what: None, quiet: bool = False
) -> Fetched:
    """A hub's checkpoint: what is missing or damaged is fetched, the rest is only hashed.

    It stays at the commit that the cache has, if that is whole. `FetchError` if it cannot be had.
    """
    with _errors(hub.cache_folder()), _alone(hub.lock_of(name)):
        hub.sweep(name)
        snapshot = hub.snapshot_of(name)
        place = Place.of_snapshot(snapshot) if snapshot else None
        record = place.record() if place else None
        if place and record and (folder := place.usable(record)):
            say("comparing hashes")
            if not place.differing(record):
                return Fetched(place, place.mark_verified(record), folder)
        if hub.is_offline():
            raise FetchError(
                f"HF_HUB_OFFLINE is set, and {hub.cache_folder()} holds nothing of it that is "
                "whole and recorded"
            )
        whole = snapshot is not None and what_lacks(snapshot, tokenizer=tokenizer) is None
        # By name where nothing whole is here: only then does the cache know which one is current.
        revision = snapshot.name if snapshot and (record or whole) else hub.MAIN
        listing = hub.Listing.of(name, revision)
        snapshot, files = _download(name, revision, listing, snapshot, say=say, quiet=quiet)
        if lacks := what_lacks(snapshot, tokenizer=tokenizer):
            raise FetchError(f"the repository lacks {lacks}")
        at = now()
        made = Record(
            model=name,
            revision=hub.MAIN,
            commit=listing.commit,
            endpoint=huggingface_hub.constants.ENDPOINT,
            licence=listing.licence,
            fetched_at=at,
            verified_at=at,
            files=files,
        )
        return _finish(Place.of_snapshot(snapshot), made, say)


def fetch_folder(folder: Path, *, tokenizer: bool, say: Say = lambda what: None) -> Fetched:
    """A folder of the user's: its hashes are recorded in it, and its pickles converted.

    `FetchError` if it is no checkpoint, or may not be written.
    """
    place = Place.of_folder(folder)
    with _errors(folder), _alone(place.own.parent / "lock"):
        if lacks := what_lacks(folder, tokenizer=tokenizer):
            raise FetchError(f"the folder lacks {lacks}")
        say("hashing")
        files = _hashes(folder, needed_of({p.name for p in folder.iterdir() if p.is_file()}))
        commit, record = folder_commit(files), place.record()
        if record and record.files == files and (ready := place.usable(record)):
            return Fetched(place, place.mark_verified(record), ready)
        at = now()
        licence = hub.licence_of_card(folder / "README.md")
        made = Record(str(folder), None, commit, None, licence, at, at, files)
        return _finish(place, made, say)


def folder_commit(files: tuple[FileHash, ...]) -> str:
    """What stands for a folder's commit: a hash of its configuration and weights."""
    weights = weights_of([file.name for file in files])
    return digest([file for file in files if file.name in (CONFIGURATION, *weights)])


def _download(
    name: str,
    revision: str,
    listing: hub.Listing,
    snapshot: Path | None,
    *,
    say: Say,
    quiet: bool,
) -> tuple[Path, tuple[FileHash, ...]]:
    """The snapshot, and the hashes of all needed files, none of which is other than the hub's."""
    good: dict[str, FileHash] = {}
    if snapshot is not None and snapshot.name == listing.commit:
        say("comparing hashes")
        for file in listing.sizes:
            path = snapshot / file
            if path.is_file():
                found = FileHash.of(path)
                if _is_as_listed(found, listing):
                    good[file] = found
                else:
                    hub.forget(path)
    missing = [file for file in listing.sizes if file not in good]
    _require_space(listing, missing, hub.cache_folder())
    say("downloading")
    folder = hub.download(name, revision, listing.sizes, quiet=quiet)
    if folder.name != listing.commit:
        raise FetchError("the repository was changed while it was fetched; run it again")
    say("hashing")
    for file in missing:
        found = FileHash.of(folder / file)
        if not _is_as_listed(found, listing):
            hub.forget(folder / file)
            raise FetchError(
                f"{file} came with {found.size:,} bytes and SHA-256 {found.sha256}, and the hub "
                f"says {listing.sizes[file]:,} bytes, {listing.sha256.get(file, 'no hash')}"
            )
        good[file] = found
    return folder, tuple(good[file] for file in sorted(good))


def _is_as_listed(found: FileHash, listing: hub.Listing) -> bool:
    # Some hubs leave sizes out.
    sizes = (listing.sizes[found.name] or found.size, found.size)
    return sizes[0] == sizes[1] and listing.sha256.get(found.name, found.sha256) == found.sha256


def _require_space(listing: hub.Listing, missing: list[str], folder: Path) -> None:
    to_fetch = sum(listing.sizes[file] for file in missing)
    to_make = sum(size for file, size in listing.sizes.items() if is_pickle(file))
    free = shutil.disk_usage(folder).free
    if to_fetch + to_make > free:
        raise FetchError(
            f"it takes {(to_fetch + to_make) / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free; "
            "make room, or set HF_HOME to a folder on a larger disk"
        )


def _finish(place: Place, record: Record, say: Say) -> Fetched:
    """Convert what has to be, and put the record in place: from then on the checkpoint is whole."""
    shutil.rmtree(place.part, ignore_errors=True)
    place.part.mkdir(parents=True)
    names = [file.name for file in record.files]
    pickles = [name for name in weights_of(names) if is_pickle(name)]
    if pickles:
        say("converting to safetensors")
        converted = convert(place.files, names, pickles, place.converted_part)
        record = replace(record, converted=converted)
    place.write(record, place.part)
    shutil.rmtree(place.own, ignore_errors=True)
    place.part.rename(place.own)
    folder = place.usable(record)
    if folder is None:
        raise FetchError(f"its files in {place.files} change while they are read")
    return Fetched(place, record, folder)


def _hashes(folder: Path, names: tuple[str, ...]) -> tuple[FileHash, ...]:
    return tuple(FileHash.of(folder / name) for name in sorted(names))


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Hold the lock of a checkpoint; who is killed holds it no more."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        yield


@contextmanager
def _errors(folder: Path) -> Iterator[None]:
    """What goes wrong, as `FetchError`."""
    try:
        yield
    except ConversionError as error:
        raise FetchError(str(error)) from None
    except hub.HUB_ERRORS as error:
        number = error.errno if isinstance(error, OSError) else None
        if number in (errno.ENOSPC, errno.EDQUOT):
            raise FetchError(
                f"the disk of {folder} is full; make room, or set HF_HOME to a larger one"
            ) from None
        if hub.did_not_answer(error):
            raise FetchError(
                f"{huggingface_hub.constants.ENDPOINT} does not answer ({in_one_line(error)}); "
                "see whether HF_ENDPOINT and the proxy are right, or copy the folder HF_HOME of a "
                "machine that has fetched it"
            ) from None
        raise FetchError(in_one_line(error)) from None
