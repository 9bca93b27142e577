"""The split job's operators behind those that fetch and probe: score a segment, merge the scores.

Each task has its own sandbox, so that a video that hangs or crashes a decoder costs itself only. A
`MediaError` becomes a dead letter. Anything else that goes wrong outside of the sandbox is a
fault of the surroundings: it fails the task, and Flink goes on from the last checkpoint. A store
that is out or a full disk is first waited for here, for `PATIENCE_S`: a restart costs what the
other tasks have in hand, but as long as we wait no checkpoint passes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pyflink.common import Row
from pyflink.common.typeinfo import TypeInformation, Types
from pyflink.datastream import (
    FlatMapFunction,
    KeyedProcessFunction,
    OutputTag,
    RuntimeContext,
)
from pyflink.datastream.state import ListStateDescriptor
from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_delay,
    wait_exponential_jitter,
)

from ingest.elements import (
    VIDEO_COLUMNS,
    FailedPart,
    ScoredSegment,
    SegmentTask,
    failed,
    unpadded,
)
from ingest.prober import (
    FIRST_WAIT_S,
    KEPT_FOR,
    LONGEST_WAIT_S,
    PATIENCE_S,
    attempts_of,
    retrying_decoders,
)
from processors.errors import DependencyFault, MediaError
from processors.failpoints import passing
from processors.fetch import Fetcher, LocalMedia
from processors.fetch_problem import redact
from processors.media.sandbox import Sandbox
from processors.scenes import detect_scenes
from processors.split import (
    MODULES,
    SegmentScores,
    clip_rows,
    join_scores,
    score_segment,
    segment_seconds,
)
from schemas.reasons import MediaReason
from schemas.recipe import Recipe
from schemas.settings import DecodeSettings, FetchSettings
from schemas.tables import CLIPS, FAILED_VIDEOS, KAFKA_COLUMN_NAMES, ColumnType, Table

RESOLVED_COLUMNS = ("video_key", *KAFKA_COLUMN_NAMES, "resolved_at")
"""Of a video that was split: what its row of `failed_videos` gets, if it has one."""


class ScoreSegment(FlatMapFunction):  # type: ignore[misc]
    """A segment → its scores, or a failure; a failure passes through."""

    def __init__(self, fetch: FetchSettings, decode: DecodeSettings, scratch_dir: str) -> None:
        self._fetch = fetch
        self._decode = decode
        self._scratch_dir = scratch_dir

    def open(self, runtime_context: RuntimeContext) -> None:
        self._sandbox = Sandbox(self._decode, modules=MODULES)
        # Where it was probed on this machine the video is still there.
        fetcher = Fetcher(self._fetch, Path(self._scratch_dir), keep_for=KEPT_FOR)
        self._held = _HeldMedia(fetcher)

    def close(self) -> None:
        self._held.close()
        self._sandbox.close()

    def flat_map(self, value: SegmentTask | FailedPart) -> Iterator[ScoredSegment | FailedPart]:
        if isinstance(value, FailedPart):
            yield unpadded(value)
            return
        retrying = retrying_decoders()
        try:
            media = self._held.media(value)
            scores = retrying(self._score, media, value)
        except MediaError as error:
            count, attempts = value.segment.count, attempts_of(retrying)
            yield failed(value.video, error, stage="split", count=count, attempts=attempts)
            return
        passing("split.segment_scored")
        yield ScoredSegment(unpadded(value), scores)

    def _score(self, media: LocalMedia, task: SegmentTask) -> SegmentScores:
        return self._sandbox.run(
            score_segment,
            str(media.path),
            task.info,
            task.segment,
            deadline_s=self._sandbox.deadline_for(segment_seconds(task.info, task.segment)),
            stage="split",
        )


class MergeSegments(KeyedProcessFunction):  # type: ignore[misc]
    """All segments of a video → its rows of `clips`, or one row of `failed_videos`."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe

    def open(self, runtime_context: RuntimeContext) -> None:
        self._parts = runtime_context.get_list_state(
            ListStateDescriptor("parts", Types.PICKLED_BYTE_ARRAY())
        )

    def process_element(
        self, value: ScoredSegment | FailedPart, ctx: KeyedProcessFunction.Context
    ) -> Iterator[Any]:
        parts: list[ScoredSegment | FailedPart] = [value]
        count = value.count if isinstance(value, FailedPart) else value.task.segment.count
        if count > 1:
            parts += list(self._parts.get() or ())
            if len(parts) < count:
                self._parts.add(value)
                return
            self._parts.clear()
        result = self._result(parts)
        passing("split.merged")
        if isinstance(result, FailedPart):
            yield FAILED_TAG, Row(*_values(FAILED_VIDEOS.column_names, _failed_row(result)))
            return
        for row in result:
            yield Row(*_values(CLIPS.column_names, row))
        now = datetime.now(UTC)
        yield RESOLVED_TAG, Row(*_values(RESOLVED_COLUMNS, {**result[0], "resolved_at": now}))

    def _result(
        self, parts: Sequence[ScoredSegment | FailedPart]
    ) -> list[dict[str, Any]] | FailedPart:
        for part in parts:
            if isinstance(part, FailedPart):
                return part
        segments = [part for part in parts if isinstance(part, ScoredSegment)]
        task = segments[0].task
        try:
            joined = join_scores([part.scores for part in segments])
            scenes = detect_scenes(
                joined.pts, joined.scores, task.info, self._recipe.split, end_pts=joined.end_pts
            )
            return clip_rows(
                task.video,
                task.info,
                scenes,
                recipe=self._recipe,
                content_sha256=task.content_sha256,
                created_at=datetime.now(UTC),
            )
        except MediaError as error:
            return failed(task.video, error, stage="split")
        except Exception as error:
            # Scores are data from outside too; the video would come back after every restart.
            problem = MediaError(MediaReason.STAGE_ERROR, f"{type(error).__name__}: {error}")
            return failed(task.video, problem, stage="split")


class _HeldMedia:
    """The bytes of the video of the latest segment: fetched and hashed once, not per segment."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        self._stack = ExitStack()
        self._of: tuple[str, str] | None = None
        self._is_all = False
        self._media: LocalMedia | None = None

    def media(self, task: SegmentTask) -> LocalMedia:
        """The task's video; `MediaError` if it cannot be had, or is not what was probed."""
        wanted = (task.video["uri"], task.content_sha256)
        if self._media is None or self._of != wanted:
            self._let_go()
            self._of, self._is_all = wanted, task.segment.count == 1
            self._media = _fetched(self._fetcher, self._stack, *wanted)
        return self._media

    def close(self) -> None:
        self._let_go()
        self._fetcher.close()

    def _let_go(self) -> None:
        self._media = None
        self._stack.close()
        if self._of is not None and self._is_all:
            # There is no other segment for which it would be kept.
            self._fetcher.drop(*self._of)


def _fetched(fetcher: Fetcher, stack: ExitStack, uri: str, sha256: str | None = None) -> LocalMedia:
    """A video's bytes, until ``stack`` ends; `DependencyFault` after `PATIENCE_S`."""
    waiting = Retrying(
        retry=retry_if_exception_type(DependencyFault),
        stop=stop_after_delay(PATIENCE_S),
        wait=wait_exponential_jitter(multiplier=FIRST_WAIT_S, max=LONGEST_WAIT_S),
        reraise=True,
    )
    return waiting(lambda: stack.enter_context(fetcher.fetch(uri, expected_sha256=sha256)))


def row_type(table: Table, columns: Sequence[str] = ()) -> TypeInformation:
    """A table's columns, or some of them, as types of a stream; times are ms since 1970.

    Flink cannot make a table of a stream whose type has SQL timestamps in it.
    """
    types = {
        ColumnType.STRING: Types.STRING(),
        ColumnType.BOOLEAN: Types.BOOLEAN(),
        ColumnType.INT: Types.INT(),
        ColumnType.BIGINT: Types.LONG(),
        ColumnType.DOUBLE: Types.DOUBLE(),
        ColumnType.TIMESTAMP: Types.LONG(),
    }
    names = list(columns or table.column_names)
    return Types.ROW_NAMED(names, [types[table.column(name).type] for name in names])


FAILED_TAG = OutputTag("failed_videos", row_type(FAILED_VIDEOS))
RESOLVED_TAG = OutputTag("resolved_videos", row_type(FAILED_VIDEOS, RESOLVED_COLUMNS))


def _values(columns: Sequence[str], row: dict[str, Any]) -> Iterator[Any]:
    for name in columns:
        value = row[name]
        yield round(value.timestamp() * 1000) if isinstance(value, datetime) else value


def _failed_row(part: FailedPart) -> dict[str, Any]:
    video = part.video
    return {
        **{name: video[name] for name in VIDEO_COLUMNS if name not in ("etag", "replay_id")},
        "uri": redact(video["uri"]),
        "stage": part.stage,
        "reason": part.reason,
        "error": part.error,
        "retryable": part.retryable,
        "attempts": part.attempts,
        "failed_at": datetime.now(UTC),
        "resolved_at": None,
    }
