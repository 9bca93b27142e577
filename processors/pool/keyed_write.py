"""pypaimon's writer of a table with a key, without what it does row by row in Python.

It makes the same files. Three things are done otherwise: buckets are computed for all rows at
once, the versions of a key in one commit are told apart by column, and where sequence numbers go
on is remembered instead of being looked up in the names of all the table's files for each commit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pypaimon.table.row.generic_row import GenericRow, GenericRowSerializer
from pypaimon.table.row.internal_row import RowKind
from pypaimon.write.file_store_write import FileStoreWrite
from pypaimon.write.row_key_extractor import FixedBucketRowKeyExtractor
from pypaimon.write.table_write import StreamTableWrite
from pypaimon.write.writer.key_value_data_writer import KeyValueDataWriter

from schemas.ids import ID_HEX_CHARS

Words = npt.NDArray[np.uint32]

_ROW = ()
"""The partition of a table that has none."""
_HEADER = 4
"""Bytes of a serialized row that say how many columns it has, and are not hashed."""
_SEED = 42


class SequenceNumbers:
    """The highest ``_SEQUENCE_NUMBER`` of each bucket, for the one process that writes a table.

    It only settles which of two versions is newer if their sequence field is the same. Compaction
    makes no higher ones.
    """

    def __init__(self) -> None:
        self.by_partition: dict[tuple[Any, ...], dict[int, int]] = {}
        """Filled by the first writer that needs it, from the table's files."""

    def passed(self, messages: list[Any]) -> None:
        """Note what was written, committed or not: a number is not used twice."""
        for message in messages:
            highest = self.by_partition.setdefault(tuple(message.partition), {})
            for file in message.new_files:
                known = highest.get(message.bucket, -1)
                highest[message.bucket] = max(known, file.max_sequence_number)


class KeyedWrite(StreamTableWrite):  # type: ignore[misc]  # pypaimon has no types
    """A writer for one commit to a table with merge engine ``deduplicate`` and fixed buckets."""

    def __init__(self, table: Any, commit_user: str, sequence_numbers: SequenceNumbers) -> None:
        """``table``: a pypaimon table, for which `ValueError` if it is of another kind."""
        options = table.options
        if options.merge_engine().value != "deduplicate" or options.bucket() <= 0:
            raise ValueError(f"{table.identifier} has not fixed buckets and one version a key")
        self._sequence_numbers = sequence_numbers
        super().__init__(table, commit_user)

    def prepare_commit(self, commit_identifier: int) -> list[Any]:
        messages: list[Any] = super().prepare_commit(commit_identifier)
        self._sequence_numbers.passed(messages)
        return messages

    def _create_file_store_write(self, commit_user: str) -> Any:
        write = _FileStoreWrite(self.table, commit_user)
        write.max_seq_numbers = self._sequence_numbers.by_partition
        return write

    def _create_row_key_extractor(self, static_partition: Any) -> Any:
        return _Buckets(self.table.table_schema)


class _FileStoreWrite(FileStoreWrite):  # type: ignore[misc]
    def _create_data_writer(self, partition: Any, bucket: int, options: Any) -> Any:
        return _DataWriter(
            table=self.table,
            partition=partition,
            bucket=bucket,
            max_seq_number=self._seq_number_stats(partition).get(bucket, -1),
            options=options,
            changelog_producer=self.changelog_producer,
        )


class _DataWriter(KeyValueDataWriter):  # type: ignore[misc]
    def _merge_pending_by_pk(self, data: pa.Table) -> pa.Table:
        """The newest version of each key; ``data`` is sorted by key, then by age."""
        if data.num_rows < 2:
            return data
        last = np.zeros(data.num_rows, np.bool_)
        last[-1] = True
        for name in self.trimmed_primary_keys:
            column = data.column(name).combine_chunks()
            # A key has no nulls.
            other = pc.not_equal(column.slice(1), column.slice(0, len(column) - 1))
            last[:-1] |= other.to_numpy(zero_copy_only=False)
        return data if last.all() else data.filter(pa.array(last))


class _Buckets(FixedBucketRowKeyExtractor):  # type: ignore[misc]
    def _extract_buckets_batch(self, data: pa.RecordBatch) -> list[int]:
        columns = self._input_columns(data, self.bucket_key_indices)
        words = _words_of_ids(columns[0], self._bucket_key_fields) if len(columns) == 1 else None
        if words is None:
            found: list[int] = super()._extract_buckets_batch(data)
            return found
        # As Java has it: the remainder of a signed division, without its sign.
        hashes = _murmur(words).view(np.int32).astype(np.int64)
        buckets: list[int] = np.abs(np.fmod(hashes, self.num_buckets)).tolist()
        return buckets


def _words_of_ids(ids: pa.Array, fields: Any) -> Words | None:
    """Paimon's binary rows of these ids as words, shape ``(n, words)``; None if one is no id."""
    if (
        not pa.types.is_string(ids.type)
        or ids.null_count
        or not pc.all(pc.equal(pc.binary_length(ids), ID_HEX_CHARS)).as_py()
    ):
        return None
    fixed = ids.cast(pa.binary()).cast(pa.binary(ID_HEX_CHARS))
    start = fixed.offset * ID_HEX_CHARS
    text = memoryview(fixed.buffers()[1])[start : start + len(fixed) * ID_HEX_CHARS]
    like = GenericRowSerializer.to_bytes(GenericRow(["0" * ID_HEX_CHARS], fields, RowKind.INSERT))
    head = np.frombuffer(like[_HEADER:-ID_HEX_CHARS], "<u4")
    body = np.frombuffer(text, "<u4").reshape(len(ids), -1)
    words: Words = np.hstack([np.tile(head, (len(ids), 1)), body]).astype(np.uint32)
    return words


def _murmur(words: Words) -> Words:
    """MurmurHash3 of each row of words, 32 bits, as Paimon hashes a bucket's key."""
    value = np.full(len(words), _SEED, np.uint32)
    for mixed in words.T:
        mixed = _rotated(mixed * np.uint32(0xCC9E2D51), 15) * np.uint32(0x1B873593)
        value = _rotated(value ^ mixed, 13) * np.uint32(5) + np.uint32(0xE6546B64)
    value ^= np.uint32(4 * words.shape[1])
    value = (value ^ (value >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    value = (value ^ (value >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    result: Words = value ^ (value >> np.uint32(16))
    return result


def _rotated(words: Words, bits: int) -> Words:
    result: Words = (words << np.uint32(bits)) | (words >> np.uint32(32 - bits))
    return result
