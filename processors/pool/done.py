"""Which clips already have a row under the present recipe: the anti-join of the driver.

Needed after a restart, for what was committed beyond the stored position, and for replays, which
bring a clip again. Memory is 16 bytes a clip with a row: keys only, sorted, read from the
table's key columns at the start. (A lookup by predicate would read the key column of every file
for every micro-batch: clip ids are hashes, so no file can be left out by its statistics.)
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
from schemas.recipe import Recipe

Keys = npt.NDArray[np.bytes_]

_KEY = np.dtype("S16")
_DELETE_KINDS = (1, 3)
"""Paimon's row kinds UPDATE_BEFORE and DELETE."""
_MERGE_AT = 50_000
"""Keys added one by one before they are sorted in: bounds both their overhead and the sorting."""


class DoneClips:
    """A set of clip ids, of which `admit` answers which are new and adds them."""

    def __init__(self, keys: Keys | None = None) -> None:
        self._sorted: Keys = np.empty(0, _KEY) if keys is None else np.unique(keys)
        self._recent: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._sorted) + len(self._recent)

    def admit(self, clip_ids: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
        """True for each id that was not in the set; it is from now on, repeats included."""
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
        if len(self._recent) >= _MERGE_AT:
            self._sorted = np.union1d(self._sorted, np.array(list(self._recent), _KEY))
            self._recent.clear()
        return ~known


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

    Files are read directly, key columns only, and versions of a key settled here by
    ``enrich_seq``: through the merging reader a million rows take many times as long.
    """
    table = lake.table(TARGET)
    by_bucket: dict[int, list[Any]] = {}
    for split in table.new_read_builder().new_scan().plan().splits():
        by_bucket.setdefault(split.bucket, []).extend(split.files)
    found = [_newest_with(table, files, recipe) for _, files in sorted(by_bucket.items())]
    return DoneClips(np.concatenate(found) if found else None)


def _newest_with(table: Any, files: list[Any], recipe: Recipe) -> Keys:
    keys, sequences, matches = [], [], []
    for file in files:
        for batch in _key_columns(table, file):
            keys.append(key_bytes(batch.column("clip_id")))
            sequences.append(batch.column("enrich_seq").to_numpy(zero_copy_only=False))
            match = pc.and_(
                pc.equal(batch.column("scores_fingerprint"), recipe.scores_fingerprint),
                pc.equal(batch.column("gates_fingerprint"), recipe.gates_fingerprint),
            )
            deleted = pc.is_in(
                batch.column("_VALUE_KIND").cast(pa.int32()),
                value_set=pa.array(_DELETE_KINDS, pa.int32()),
            )
            matches.append(
                pc.and_(match, pc.invert(deleted)).to_numpy(zero_copy_only=False).astype(np.bool_)
            )
    if not keys:
        return np.empty(0, _KEY)
    all_keys, all_matches = np.concatenate(keys), np.concatenate(matches)
    order = np.lexsort((np.concatenate(sequences), all_keys))
    all_keys, all_matches = all_keys[order], all_matches[order]
    newest = np.append(all_keys[1:] != all_keys[:-1], True)
    result: Keys = all_keys[newest & all_matches]
    return result


def _key_columns(table: Any, file: Any) -> Any:
    columns = ["clip_id", "scores_fingerprint", "gates_fingerprint", "enrich_seq", "_VALUE_KIND"]
    with table.file_io.new_input_stream(file.file_path) as stream:
        yield from pq.ParquetFile(stream).iter_batches(columns=columns)
