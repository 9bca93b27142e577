"""Which clips already have a row under the present recipe: the anti-join of the driver.

Needed after a restart, for what was committed beyond the stored position, and for messages that
bring a clip again. A clip that failed is done again when a later message brings it: a replay.
Memory is 16 bytes a clip with a row: keys only, sorted, read from the table's key columns at the
start; some more for each that failed. (A lookup by predicate would read the key column of every
file for every micro-batch: clip ids are hashes, so no file can be left out by its statistics.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from processors.pool.lake import Lake
from processors.pool.position import TARGET
from schemas.ids import ID_HEX_CHARS
from schemas.reasons import ClipStatus
from schemas.recipe import Recipe

Keys = npt.NDArray[np.bytes_]

_KEY = np.dtype("S16")
_DELETE_KINDS = (1, 3)
"""Paimon's row kinds UPDATE_BEFORE and DELETE."""
_MERGE_AT = 50_000
"""Keys added one by one before they are sorted in: bounds both their overhead and the sorting."""


class DoneClips:
    """A set of clip ids, of which `admit` answers which are new and adds them."""

    def __init__(self, keys: Keys | None = None, failed: dict[bytes, int] | None = None) -> None:
        """``failed``: clips whose row says failed, with the Kafka offset that it has; they may
        be of another recipe, and then are not among ``keys``."""
        self._sorted: Keys = np.empty(0, _KEY) if keys is None else np.unique(keys)
        self._recent: set[bytes] = set()
        self._failed = {} if failed is None else failed

    def __len__(self) -> int:
        return len(self._sorted) + len(self._recent)

    @property
    def any_failed(self) -> bool:
        """Whether there are clips that failed, of which `finish` wants to know."""
        return bool(self._failed)

    def admit(
        self, clip_ids: pa.ChunkedArray, offsets: pa.ChunkedArray | None = None
    ) -> npt.NDArray[np.bool_]:
        """True for each id that was not in the set; it is from now on, repeats included.

        Also true for one that failed, if its message in ``offsets`` is a later one than that of
        the failure.
        """
        keys = key_bytes(clip_ids)
        if len(keys) == 0:
            return np.zeros(0, np.bool_)
        places = np.searchsorted(self._sorted, keys)
        known = np.zeros(len(keys), np.bool_)
        inside = places < len(self._sorted)
        known[inside] = self._sorted[places[inside]] == keys[inside]
        for index in np.flatnonzero(~known):
            key = keys[index].ljust(16, b"\0")
            if key in self._recent:
                known[index] = True
            else:
                self._recent.add(key)
        if self._failed and offsets is not None:
            self._admit_failed(keys, offsets, known)
        if len(self._recent) >= _MERGE_AT:
            self._merge_recent()
        return ~known

    def _merge_recent(self) -> None:
        recent = np.sort(np.fromiter(self._recent, _KEY, len(self._recent)))
        # Sorting all of them anew would cost the more a clip, the more clips there are.
        self._sorted = np.insert(self._sorted, np.searchsorted(self._sorted, recent), recent)
        self._recent.clear()

    def _admit_failed(
        self, keys: Keys, offsets: pa.ChunkedArray, known: npt.NDArray[np.bool_]
    ) -> None:
        for index in np.flatnonzero(known):
            key = keys[index].ljust(16, b"\0")
            offset = offsets[int(index)].as_py() if key in self._failed else None
            if offset is not None and offset > self._failed[key]:
                self._failed[key] = offset
                known[index] = False

    def finish(self, clip_id: str, offset: int | None, *, failed: bool) -> bool:
        """Note how a clip ended; whether it had failed before and did not now."""
        key = bytes.fromhex(clip_id)
        if failed:
            self._failed[key] = -1 if offset is None else offset
            return False
        return self._failed.pop(key, None) is not None


def key_bytes(clip_ids: pa.ChunkedArray | pa.Array) -> Keys:
    """Hexadecimal ids as 16 bytes each; `ValueError` for one that is not such an id."""
    if isinstance(clip_ids, pa.ChunkedArray):
        clip_ids = clip_ids.combine_chunks()
    if len(clip_ids) == 0:
        return np.empty(0, _KEY)
    lengths = pc.binary_length(clip_ids)
    if clip_ids.null_count or pc.any(pc.not_equal(lengths, ID_HEX_CHARS)).as_py():
        raise ValueError(f"a clip_id in the lake is not {ID_HEX_CHARS} hexadecimal characters")
    fixed = clip_ids.cast(pa.binary()).cast(pa.binary(ID_HEX_CHARS))
    start = fixed.offset * ID_HEX_CHARS
    text = memoryview(fixed.buffers()[1])[start : start + len(fixed) * ID_HEX_CHARS]
    return np.frombuffer(bytes.fromhex(str(text, "ascii")), _KEY)


def load_done(lake: Lake, recipe: Recipe) -> DoneClips:
    """The clips whose newest row was made with the same scores and gates.

    Files are read directly, a few columns only, and versions of a key settled here by
    ``enrich_seq``: through the merging reader a million rows take many times as long.
    """
    table = lake.table(TARGET)
    by_bucket: dict[int, list[Any]] = {}
    for split in table.new_read_builder().new_scan().plan().splits():
        by_bucket.setdefault(split.bucket, []).extend(split.files)
    keys: list[Keys] = []
    failed: dict[bytes, int] = {}
    for _, files in sorted(by_bucket.items()):
        versions = _Versions(recipe)
        for file in files:
            for batch in _columns(table, file):
                versions.add(batch)
        keys.append(versions.matching(failed))
    return DoneClips(np.concatenate(keys) if keys else None, failed)


class _Versions:
    """All versions of the clips of one bucket."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._keys: list[Keys] = []
        self._sequences: list[npt.NDArray[np.int64]] = []
        self._offsets: list[npt.NDArray[np.int64]] = []
        self._matches: list[npt.NDArray[np.bool_]] = []
        self._fails: list[npt.NDArray[np.bool_]] = []

    def add(self, batch: pa.RecordBatch) -> None:
        self._keys.append(key_bytes(batch.column("clip_id")))
        self._sequences.append(batch.column("enrich_seq").to_numpy(zero_copy_only=False))
        offsets = pc.fill_null(batch.column("kafka_offset"), -1)
        self._offsets.append(offsets.to_numpy(zero_copy_only=False))
        deleted = pc.is_in(
            batch.column("_VALUE_KIND").cast(pa.int32()),
            value_set=pa.array(_DELETE_KINDS, pa.int32()),
        )
        there = pc.invert(deleted)
        match = pc.and_(
            pc.equal(batch.column("scores_fingerprint"), self._recipe.scores_fingerprint),
            pc.equal(batch.column("gates_fingerprint"), self._recipe.gates_fingerprint),
        )
        self._matches.append(_bools(pc.and_(match, there)))
        is_failed = pc.equal(batch.column("status"), ClipStatus.FAILED.value)
        self._fails.append(_bools(pc.and_(is_failed, there)))

    def matching(self, failed: dict[bytes, int]) -> Keys:
        """Keys whose newest version is of the recipe; those that failed are added to ``failed``."""
        if not self._keys:
            return np.empty(0, _KEY)
        keys = np.concatenate(self._keys)
        order = np.lexsort((np.concatenate(self._sequences), keys))
        keys = keys[order]
        newest = np.append(keys[1:] != keys[:-1], True)
        fails = np.concatenate(self._fails)[order] & newest
        offsets = np.concatenate(self._offsets)[order]
        for key, offset in zip(keys[fails], offsets[fails], strict=True):
            failed[key.ljust(16, b"\0")] = int(offset)
        result: Keys = keys[newest & np.concatenate(self._matches)[order]]
        return result


def _bools(values: pa.Array) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = values.to_numpy(zero_copy_only=False).astype(np.bool_)
    return found


def _columns(table: Any, file: Any) -> Any:
    columns = [
        "clip_id", "status", "kafka_offset", "scores_fingerprint", "gates_fingerprint",
        "enrich_seq", "_VALUE_KIND",
    ]  # fmt: skip
    with table.file_io.new_input_stream(file.file_path) as stream:
        yield from pq.ParquetFile(stream).iter_batches(columns=columns)
