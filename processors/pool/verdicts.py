"""Clips and their results between the driver and its actors, as Arrow.

A row of ``enriched_clips`` has some sixty columns: as Python objects the driver would spend more
time on pickling and converting them than on all else. The actors do that, beside each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from processors.results import ClipResult
from schemas.reasons import ClipStatus
from schemas.tables import ENRICHED_CLIPS


@dataclass
class Verdicts:
    """What became of some clips, as rows that lack nothing."""

    rows: pa.Table
    """Of ``enriched_clips``, one a clip."""
    statuses: list[ClipStatus]
    """One a clip, as in its row."""
    failures: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Rows of ``failed_clips`` without ``enrich_seq``, by the clip's place in ``rows``."""

    def select(self, places: Sequence[int]) -> Verdicts:
        """The clips at these places, in this order."""
        return Verdicts(
            self.rows.take(pa.array(places, pa.int64())),
            [self.statuses[place] for place in places],
            {new: self.failures[old] for new, old in enumerate(places) if old in self.failures},
        )


def verdicts_of(results: Sequence[ClipResult], sequence: Sequence[int]) -> Verdicts:
    """The rows of results; ``sequence`` is the ``enrich_seq`` of each one.

    `pa.ArrowInvalid` or `pa.ArrowTypeError` for a value that its column cannot hold.
    """
    rows = [
        {**result.enriched, "enrich_seq": number}
        for result, number in zip(results, sequence, strict=True)
    ]
    return Verdicts(
        pa.Table.from_pylist(rows, schema=ENRICHED_CLIPS.arrow_schema()),
        [result.status for result in results],
        {i: result.failure for i, result in enumerate(results) if result.failure is not None},
    )


def to_ipc(rows: pa.Table) -> bytes:
    """A table as bytes, without what a slice leaves out (which pickling would take along)."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def from_ipc(data: bytes) -> pa.Table:
    """The table that `to_ipc` made bytes of."""
    return pa.ipc.open_stream(pa.py_buffer(data)).read_all()


def to_dicts(rows: pa.Table) -> list[dict[str, Any]]:
    """As ``rows.to_pylist()``, whose scalar for each single value takes several times as long."""
    columns = [_values(column) for column in rows.columns]
    names = rows.column_names
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _values(column: pa.ChunkedArray) -> list[Any]:
    kind = column.type
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    # numpy has no null among its numbers, and no time with a zone.
    if pa.types.is_string(kind) or pa.types.is_boolean(kind) or (number and not column.null_count):
        values: list[Any] = column.to_numpy().tolist()
        return values
    if pa.types.is_timestamp(kind):
        # The clips of a video share theirs, and an aware datetime is dear to make.
        encoded = column.combine_chunks().dictionary_encode()
        times = encoded.dictionary.to_pylist()
        return [None if place is None else times[place] for place in encoded.indices.to_pylist()]
    listed: list[Any] = column.to_pylist()
    return listed
