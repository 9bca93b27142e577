"""What was done before a job started with new state: looked up in files that are memory-mapped.

`ingest.new_state` decides what goes in; here is only the layout, so that the job's workers can
ask it millions of times without holding it on their heaps.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

KEY_BYTES = 16


class DoneKeys(Container[str]):
    """A set of video_keys: two sorted rows of uint64, high and low half of each key."""

    def __init__(self, file: str | Path) -> None:
        self._halves: npt.NDArray[np.uint64] = np.load(file, mmap_mode="r")

    def __len__(self) -> int:
        return int(self._halves.shape[1])

    def __contains__(self, video_key: object) -> bool:
        try:
            raw = bytes.fromhex(str(video_key))
        except ValueError:
            return False
        if len(raw) != KEY_BYTES:
            return False
        high = np.uint64(int.from_bytes(raw[:8], "big"))
        low = np.uint64(int.from_bytes(raw[8:], "big"))
        first = int(np.searchsorted(self._halves[0], high, "left"))
        after = int(np.searchsorted(self._halves[0], high, "right"))
        return bool(np.any(self._halves[1, first:after] == low))


def write_keys(file: Path, video_keys: Iterable[str]) -> int:
    """Write a `DoneKeys` file; returns the number of distinct keys."""
    raw = b"".join(sorted({bytes.fromhex(key) for key in video_keys}))
    halves = np.frombuffer(raw, dtype=">u8").reshape(-1, 2).T.astype(np.uint64)
    _save(file, np.ascontiguousarray(halves))
    return int(halves.shape[1])


class DoneRecords:
    """A set of (partition, offset): two rows of int64, sorted by partition, then offset."""

    def __init__(self, file: str | Path) -> None:
        rows: npt.NDArray[np.int64] = np.load(file, mmap_mode="r")
        self._offsets = {
            int(partition): rows[
                1,
                np.searchsorted(rows[0], partition, "left") : np.searchsorted(
                    rows[0], partition, "right"
                ),
            ]
            for partition in np.unique(rows[0])
        }

    def __len__(self) -> int:
        return sum(len(offsets) for offsets in self._offsets.values())

    def __contains__(self, record: object) -> bool:
        partition, offset = record if isinstance(record, tuple) else (None, None)
        offsets = self._offsets.get(partition) if isinstance(partition, int) else None
        if offsets is None or len(offsets) == 0:
            return False
        place = int(np.searchsorted(offsets, offset))
        return place < len(offsets) and int(offsets[place]) == offset


def write_records(file: Path, records: dict[int, npt.NDArray[np.int64]]) -> None:
    """Write a `DoneRecords` file from sorted offsets by partition."""
    parts = [
        np.stack([np.full(len(offsets), partition, np.int64), offsets])
        for partition, offsets in sorted(records.items())
    ]
    rows = np.concatenate(parts, axis=1) if parts else np.empty((2, 0), np.int64)
    _save(file, np.ascontiguousarray(rows))


def _save(file: Path, array: npt.NDArray[np.uint64] | npt.NDArray[np.int64]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as target:
        np.save(target, array)
