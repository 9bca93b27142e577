"""Every table of the lake, every column of every table, in this one place.

A `Table` renders itself as Flink DDL and as a pyarrow schema with Paimon options; whoever
creates a table, writes to it or reads from it starts here. Column types are Paimon's SQL
types, of which only the few in `ColumnType` are used, since all engines agree on those.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow

DATABASE = "cliplake"


class ColumnType(Enum):
    """A column's SQL type, as Flink and Paimon write it. Times are UTC, in milliseconds."""

    STRING = "STRING"
    BOOLEAN = "BOOLEAN"
    INT = "INT"
    BIGINT = "BIGINT"
    DOUBLE = "DOUBLE"
    BYTES = "BYTES"
    TIMESTAMP = "TIMESTAMP_LTZ(3)"
    STRING_MAP = "MAP<STRING NOT NULL, STRING>"
    DOUBLE_MAP = "MAP<STRING NOT NULL, DOUBLE>"
    DOUBLE_ARRAY = "ARRAY<DOUBLE>"
    BOOLEAN_ARRAY = "ARRAY<BOOLEAN>"
    BYTES_ARRAY = "ARRAY<BYTES>"

    def arrow(self) -> pyarrow.DataType:
        """The pyarrow type that pypaimon maps to this SQL type."""
        import pyarrow as pa

        types: dict[ColumnType, pyarrow.DataType] = {
            ColumnType.STRING: pa.string(),
            ColumnType.BOOLEAN: pa.bool_(),
            ColumnType.INT: pa.int32(),
            ColumnType.BIGINT: pa.int64(),
            ColumnType.DOUBLE: pa.float64(),
            ColumnType.BYTES: pa.binary(),
            ColumnType.TIMESTAMP: pa.timestamp("ms", tz="UTC"),
            ColumnType.STRING_MAP: pa.map_(pa.string(), pa.string()),
            ColumnType.DOUBLE_MAP: pa.map_(pa.string(), pa.float64()),
            ColumnType.DOUBLE_ARRAY: pa.list_(pa.float64()),
            ColumnType.BOOLEAN_ARRAY: pa.list_(pa.bool_()),
            ColumnType.BYTES_ARRAY: pa.list_(pa.binary()),
        }
        return types[self]


@dataclass(frozen=True)
class Column:
    """One column; ``doc`` says what it holds and in which unit."""

    name: str
    type: ColumnType
    doc: str
    nullable: bool = True


@dataclass(frozen=True)
class Table:
    """One table: columns, key, partitions, Paimon options and the one process that writes it."""

    name: str
    columns: tuple[Column, ...]
    writer: str
    doc: str
    primary_key: tuple[str, ...] = ()
    partition_keys: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def column_names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def column(self, name: str) -> Column:
        """The column of that name; `KeyError` if the table has none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(f"table {self.name} has no column {name!r}")

    def arrow_schema(self) -> pyarrow.Schema:
        """The schema of a batch to write, in column order."""
        return self._arrow_schema

    @cached_property
    def _arrow_schema(self) -> pyarrow.Schema:
        import pyarrow as pa

        return pa.schema(
            [pa.field(c.name, c.type.arrow(), nullable=c.nullable) for c in self.columns]
        )

    def flink_ddl(self, database: str = DATABASE) -> str:
        """``CREATE TABLE IF NOT EXISTS`` for Flink SQL inside a Paimon catalog."""
        lines = [
            f"  `{c.name}` {c.type.value}{'' if c.nullable else ' NOT NULL'}" for c in self.columns
        ]
        if self.primary_key:
            keys = ", ".join(f"`{k}`" for k in self.primary_key)
            lines.append(f"  PRIMARY KEY ({keys}) NOT ENFORCED")
        partitions = (
            " PARTITIONED BY (" + ", ".join(f"`{k}`" for k in self.partition_keys) + ")"
            if self.partition_keys
            else ""
        )
        options = ", ".join(f"'{k}' = '{v}'" for k, v in sorted(self.options.items()))
        return (
            f"CREATE TABLE IF NOT EXISTS `{database}`.`{self.name}` (\n"
            + ",\n".join(lines)
            + f"\n){partitions} WITH ({options})"
        )

    def differences(
        self,
        columns: Iterable[tuple[str, str, bool]],
        primary_key: Iterable[str],
        partition_keys: Iterable[str],
        options: Mapping[str, str],
    ) -> list[str]:
        """What differs between an existing table and this one, a sentence each; empty if nothing.

        ``columns`` are ``(name, type, nullable)`` as Paimon's schema file has them. An existing
        table may have more columns than ours as long as those may be null: somebody's own.
        Options that somebody added are theirs; the ones that we need must have our values.
        """
        found = {name: (type_, nullable) for name, type_, nullable in columns}
        problems = []
        for column in self.columns:
            if column.name not in found:
                problems.append(f"column {column.name} ({column.type.value}) is missing")
                continue
            type_, nullable = found.pop(column.name)
            if _plain(type_) != _plain(column.type.value):
                problems.append(
                    f"column {column.name} is {type_}, and should be {column.type.value}"
                )
            elif nullable != column.nullable and column.name not in self.primary_key:
                should = "allow nulls" if column.nullable else "be NOT NULL"
                problems.append(f"column {column.name} should {should}")
        problems += [
            f"column {name} is not ours and is NOT NULL, so nothing can be written"
            for name, (_, nullable) in found.items()
            if not nullable
        ]
        for what, ours, theirs in (
            ("primary key", self.primary_key, tuple(primary_key)),
            ("partition keys", self.partition_keys, tuple(partition_keys)),
        ):
            if ours != theirs:
                problems.append(
                    f"the {what} should be ({', '.join(ours)}), not ({', '.join(theirs)})"
                )
        problems += [
            f"option {key} is {options.get(key, 'not set')}, and should be {value}"
            for key, value in sorted(self.options.items())
            if options.get(key) != value
        ]
        return problems


def _plain(type_: str) -> str:
    """A type's name without spaces and without the NOT NULL of a map's keys."""
    return type_.upper().replace(" NOT NULL", "").replace(" ", "")


# Spark's readers before Paimon 1.0 fail on files without full statistics.
_COMMON = {"metadata.stats-mode": "full"}
# Fixed buckets: the only kind of primary-key table whose rows pypaimon can write visibly.
_KEYED = {**_COMMON, "bucket": "2", "merge-engine": "deduplicate"}


def _keyed(sequence_field: str, **more: str) -> dict[str, str]:
    return {**_KEYED, "sequence.field": sequence_field, **more}


_S, _B, _I, _L, _D = (
    ColumnType.STRING,
    ColumnType.BOOLEAN,
    ColumnType.INT,
    ColumnType.BIGINT,
    ColumnType.DOUBLE,
)
_T = ColumnType.TIMESTAMP

_KAFKA = (
    Column("kafka_topic", _S, "topic of the message this row comes from"),
    Column("kafka_partition", _I, "its partition"),
    Column("kafka_offset", _L, "its offset"),
    Column("kafka_timestamp", _T, "its timestamp, set by the producer or the broker"),
)

VIDEOS = Table(
    "videos",
    doc="One row a video reference that was accepted, and one more for each replay of it.",
    writer="Flink job arrivals",
    columns=(
        Column("video_key", _S, "hash(video_id, uri, etag): one upload", nullable=False),
        Column("video_id", _S, "the producer's id, else a hash of the uri", nullable=False),
        Column("uri", _S, "where the video is", nullable=False),
        Column("etag", _S, "the object's version, if the message had one"),
        Column("source", _S, "the producer's name for where it comes from"),
        Column("uploaded_at", _T, "the producer's time of upload"),
        Column("attributes", ColumnType.STRING_MAP, "the producer's own key-value pairs"),
        Column("message", ColumnType.BYTES, "the message as it came"),
        *_KAFKA,
        Column("record_index", _I, "place in the message; 0 unless it named several objects"),
        Column("ingested_at", _T, "when the arrivals job accepted it"),
        Column("replay_id", _S, "the replay that brought it again; null in a video's first row"),
        Column("dt", _S, "day of ingested_at in UTC, YYYY-MM-DD", nullable=False),
    ),
    partition_keys=("dt",),
    options=_COMMON | {"bucket": "-1"},
)

REPEATS = Table(
    "repeats",
    doc="One row a reference whose video_key had been accepted before; dropped, and counted here.",
    writer="Flink job arrivals",
    columns=(
        Column("video_key", _S, "key of the video accepted earlier", nullable=False),
        Column("video_id", _S, "the producer's id", nullable=False),
        *_KAFKA,
        Column("record_index", _I, "place in the message"),
        Column("ingested_at", _T, "when the arrivals job saw it"),
        Column("dt", _S, "day of ingested_at in UTC, YYYY-MM-DD", nullable=False),
    ),
    partition_keys=("dt",),
    options=_COMMON | {"bucket": "-1"},
)

REJECTED_MESSAGES = Table(
    "rejected_messages",
    doc="One row a message that is not a valid reference, with its bytes as they came.",
    writer="Flink job arrivals",
    columns=(
        Column("kafka_topic", _S, "topic of the message", nullable=False),
        Column("kafka_partition", _I, "its partition", nullable=False),
        Column("kafka_offset", _L, "its offset", nullable=False),
        Column("kafka_timestamp", _T, "its timestamp"),
        Column("reason", _S, "one of RejectedMessageReason", nullable=False),
        Column("error", _S, "what was wrong, in a sentence"),
        Column("payload", ColumnType.BYTES, "the message as it came"),
        Column("failed_at", _T, "when it was rejected"),
        Column(
            "replay_of",
            _S,
            "the letter of which it was the replay, like topic[0]@5: rejected once more",
        ),
        Column("resolved_at", _T, "when a replay of it was accepted; null until then"),
        Column("seq", _L, "sequence field: 0 when rejected, 1 when resolved"),
    ),
    primary_key=("kafka_topic", "kafka_partition", "kafka_offset"),
    options=_keyed("seq"),
)

_CLIP_COLUMNS = (
    Column("clip_id", _S, "hash(video_key, splitter, start_pts, end_pts, time_base)", False),
    Column("video_key", _S, "the video's key", nullable=False),
    Column("video_id", _S, "the producer's id", nullable=False),
    Column("uri", _S, "where the video is", nullable=False),
    Column("etag", _S, "the object's version, if the message had one"),
    Column("content_sha256", _S, "hash of the video's bytes as the split read them"),
    Column("clip_index", _I, "place among the video's scenes, from 0", nullable=False),
    Column("start_s", _D, "first frame's time from the video's first frame, seconds", False),
    Column("end_s", _D, "end, exclusive, on the same clock, seconds", nullable=False),
    Column("start_pts", _L, "first frame's timestamp in time_base units", nullable=False),
    Column("end_pts", _L, "end, exclusive, in time_base units", nullable=False),
    Column("time_base", _S, "the stream's unit of time in seconds, like 1/12800", nullable=False),
    Column("start_frame", _L, "number of its first frame in the video, from 0"),
    Column("end_frame", _L, "number of the frame after its last one"),
    Column("duration_s", _D, "end_s - start_s", nullable=False),
    Column("fps", _D, "average frames a second of the video"),
    Column("width", _I, "coded width, pixels, before rotation"),
    Column("height", _I, "coded height, pixels, before rotation"),
    Column("codec", _S, "codec's name as libav has it"),
    Column("rotation", _I, "degrees, clockwise, that a player turns the picture: 0, 90, 180, 270"),
    Column("splitter", _S, "detector and its parameters, as JSON"),
    Column("split_fingerprint", _S, "hash of splitter", nullable=False),
    Column("duration_ok", _B, "whether the duration filter let it pass", nullable=False),
)

CLIPS = Table(
    "clips",
    doc="One row a scene of a video, those that are too short or too long included.",
    writer="Flink job split",
    columns=(
        *_CLIP_COLUMNS,
        Column("duration_reject_reason", _S, "too_short or too_long; null if it passed"),
        *_KAFKA,
        Column("created_at", _T, "when the split finished the video"),
    ),
    primary_key=("clip_id",),
    # A replayed message has a higher offset in the same partition: messages are keyed by video.
    options=_keyed("kafka_offset"),
)

FAILED_VIDEOS = Table(
    "failed_videos",
    doc="One row a video of which no scene could be made.",
    writer="Flink job split",
    columns=(
        Column("video_key", _S, "the video's key", nullable=False),
        Column("video_id", _S, "the producer's id"),
        Column("uri", _S, "where the video is, without credentials"),
        Column("stage", _S, "fetch, probe or split", nullable=False),
        Column("reason", _S, "one of MediaReason", nullable=False),
        Column("error", _S, "what went wrong, in a sentence"),
        Column("retryable", _B, "whether trying again later may help"),
        Column("attempts", _I, "how often it was tried"),
        *_KAFKA,
        Column("failed_at", _T, "when it was given up"),
        Column("resolved_at", _T, "when a replay of it succeeded; null until then"),
    ),
    primary_key=("video_key",),
    options=_keyed("kafka_offset"),
)

CLIP_FRAMES = Table(
    "clip_frames",
    doc="The sampled frames of a clip; read it through the clip's row of enriched_clips.",
    writer="the pool's driver",
    columns=(
        Column("clip_id", _S, "the clip", nullable=False),
        Column("enrich_seq", _L, "frames_seq of the enriched row these belong to", False),
        Column("video_frames", ColumnType.BYTES_ARRAY, "JPEG images, in order of time"),
        Column("frame_times_s", ColumnType.DOUBLE_ARRAY, "their times from the video's start, s"),
        Column("frame_sharpness", ColumnType.DOUBLE_ARRAY, "variance of the Laplacian of the luma"),
        Column("frame_brightness", ColumnType.DOUBLE_ARRAY, "mean luma, 0 to 255"),
        Column("frame_black_fraction", ColumnType.DOUBLE_ARRAY, "share of pixels below 17 of luma"),
        Column("frame_overexposed", ColumnType.DOUBLE_ARRAY, "share of pixels above 250 of luma"),
    ),
    options=_COMMON | {"bucket": "-1"},
)

ENRICHED_CLIPS = Table(
    "enriched_clips",
    doc="The authority on clips: one row a clip with its verdict, scores and provenance.",
    writer="the pool's driver",
    columns=(
        *_CLIP_COLUMNS,
        *_KAFKA,
        Column("status", _S, "kept, rejected or failed", nullable=False),
        Column("kept", _B, "status = kept", nullable=False),
        Column(
            "reject_reason",
            _S,
            "the first gate that it failed (one of RejectReason, or the name of a further "
            "operator), or the failure's reason",
        ),
        Column("nsfw_score", _D, "safety score, 0 safe to 1 unsafe"),
        Column("motion_score", _D, "mean optical flow magnitude, as DataJuicer has it"),
        Column("aesthetics_score", _D, "aesthetics score, 0 to 1"),
        Column("caption", _S, "what the clip shows, in words"),
        Column("caption_tokens", _I, "tokens that the model generated for the caption"),
        Column("frame_count", _I, "sampled frames"),
        Column(
            "frames_seq", _L, "enrich_seq of its row of clip_frames; null if no frames are stored"
        ),
        Column("sharpness", _D, "median of frame_sharpness"),
        Column("brightness", _D, "mean of frame_brightness"),
        Column("black_fraction", _D, "share of the sampled frames that are black"),
        Column("overexposed_fraction", _D, "mean of frame_overexposed"),
        Column("safety_model", _S, "which model judged safety"),
        Column("safety_model_revision", _S, "its revision: a commit, or sha256 of its file"),
        Column("motion_model", _S, "which algorithm measured motion"),
        Column("motion_model_revision", _S, "our code's revision, and OpenCV's version"),
        Column("aesthetics_model", _S, "which model judged aesthetics"),
        Column("aesthetics_model_revision", _S, "its revision"),
        Column("caption_model", _S, "which model wrote the caption"),
        Column("caption_model_revision", _S, "its revision"),
        Column(
            "operator_stats",
            ColumnType.DOUBLE_MAP,
            "numbers that further operators measured, by name of the statistic",
        ),
        Column(
            "operator_outputs",
            ColumnType.STRING_MAP,
            "what else further operators gave, as JSON by name of the field",
        ),
        Column(
            "operator_versions",
            ColumnType.STRING_MAP,
            "package and version that ran each further operator, by operator",
        ),
        Column("recipe", _S, "name of the recipe"),
        Column("scores_fingerprint", _S, "hash of all that the scores depend on", nullable=False),
        Column("gates_fingerprint", _S, "hash of the thresholds", nullable=False),
        Column("cpu_s", _D, "CPU seconds that this clip took in the pool"),
        Column("gpu_s", _D, "GPU seconds that this clip took in the pool"),
        Column("stage_seconds", ColumnType.STRING_MAP, "wall seconds by stage, as decimals"),
        Column("attempts", _I, "how often it was tried"),
        Column("enriched_at", _T, "when its verdict was given"),
        Column("enrich_seq", _L, "sequence field: (driver epoch << 40) + counter", nullable=False),
    ),
    primary_key=("clip_id",),
    options=_keyed("enrich_seq"),
)

FAILED_CLIPS = Table(
    "failed_clips",
    doc="One row a clip that could not be scored; details beside its row of enriched_clips.",
    writer="the pool's driver",
    columns=(
        Column("clip_id", _S, "the clip", nullable=False),
        Column("video_key", _S, "its video", nullable=False),
        Column("uri", _S, "where the video is, without credentials"),
        Column("stage", _S, "the stage that failed", nullable=False),
        Column("reason", _S, "one of MediaReason", nullable=False),
        Column("error", _S, "what went wrong, in a sentence"),
        Column("retryable", _B, "whether trying again later may help"),
        Column("attempts", _I, "how often it was tried"),
        *_KAFKA,
        Column("failed_at", _T, "when it was given up"),
        Column("resolved_at", _T, "when a replay of it succeeded; null until then"),
        Column("enrich_seq", _L, "sequence field, as in enriched_clips", nullable=False),
    ),
    primary_key=("clip_id",),
    options=_keyed("enrich_seq"),
)

FORGOTTEN = Table(
    "forgotten",
    doc="One row a reference whose video was forgotten: that there was one, and nothing about it.",
    writer="command forget",
    columns=(
        Column("kafka_topic", _S, "topic of the message", nullable=False),
        Column("kafka_partition", _I, "its partition", nullable=False),
        Column("kafka_offset", _L, "its offset", nullable=False),
        Column("record_index", _I, "place in the message", nullable=False),
        Column("video_key", _S, "the video's key", nullable=False),
        Column("forgotten_at", _T, "when"),
        Column("seq", _L, "sequence field, always 0: a row is never changed", nullable=False),
    ),
    primary_key=("kafka_topic", "kafka_partition", "kafka_offset", "record_index"),
    options=_keyed("seq"),
)

TABLES: tuple[Table, ...] = (
    VIDEOS,
    REPEATS,
    REJECTED_MESSAGES,
    CLIPS,
    FAILED_VIDEOS,
    CLIP_FRAMES,
    ENRICHED_CLIPS,
    FAILED_CLIPS,
    FORGOTTEN,
)

CLIP_COLUMN_NAMES: tuple[str, ...] = tuple(c.name for c in _CLIP_COLUMNS)
"""The columns that ``clips`` and ``enriched_clips`` share, in order."""

KAFKA_COLUMN_NAMES: tuple[str, ...] = tuple(c.name for c in _KAFKA)
"""A row's coordinates in Kafka, in order."""
