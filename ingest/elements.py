"""What passes between the operators of the split job, and lies in its state until it is merged.

Elements are pickled by Flink's Python worker. `FORMAT` is part of the job's signature: another
format cannot read elements that an older version left in a checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from processors.errors import MediaError
from processors.media.probe import VideoInfo
from processors.split import Segment, SegmentScores

FORMAT = 3

VIDEO_COLUMNS = (
    "video_key",
    "video_id",
    "uri",
    "etag",
    "kafka_topic",
    "kafka_partition",
    "kafka_offset",
    "kafka_timestamp",
    "replay_id",
)
"""What the operators are given of a row of `videos`."""

PADDING_BYTES = 640 * 1024
"""Room that an element takes up on its way to the task that fetches, and to those that decode.

A checkpoint's barrier waits behind the elements in the network buffers (10 of 32 KiB a channel
by default), and Paimon's sink allows no barrier to overtake them. Unpadded, hundreds would lie
there, and a checkpoint take as long as decoding them. Twice as large as those buffers, an element
is on its way while another one is decoded, and no third is.
"""


@dataclass(frozen=True)
class VideoTask:
    """One row of `videos`, to be fetched and probed."""

    video: dict[str, Any]
    padding: bytes = b""

    @property
    def row(self) -> str:
        return _row(self.video)


@dataclass(frozen=True)
class SegmentTask:
    """One segment to be scored."""

    video: dict[str, Any]
    """The columns of `videos` that clips carry on."""
    info: VideoInfo
    segment: Segment
    content_sha256: str
    padding: bytes = b""

    @property
    def row(self) -> str:
        return _row(self.video)


@dataclass(frozen=True)
class ScoredSegment:
    """A task that was done."""

    task: SegmentTask
    scores: SegmentScores

    @property
    def row(self) -> str:
        return self.task.row


@dataclass(frozen=True)
class FailedPart:
    """A video that cannot be split, as one of its ``count`` parts found out."""

    video: dict[str, Any]
    count: int
    stage: str
    reason: str
    error: str
    retryable: bool
    attempts: int
    padding: bytes = b""

    @property
    def row(self) -> str:
        return _row(self.video)


def _row(video: dict[str, Any]) -> str:
    """What tells a row of `videos` from others: a replay's parts are not those of the first."""
    return f"{video['video_key']}/{video['kafka_partition']}/{video['kafka_offset']}"


@dataclass(frozen=True)
class VideoInHand:
    """A row of `videos`, from when it was read until all that came of it was passed on."""

    video: dict[str, Any]
    left: Sequence[SegmentTask | FailedPart] | None = None
    """What is still to be passed on, once a part of it was; until then it is made anew."""


Part = TypeVar("Part", VideoTask, SegmentTask, FailedPart, SegmentTask | FailedPart)


def segment_tasks(
    video: dict[str, Any], info: VideoInfo, segments: list[Segment], content_sha256: str
) -> list[SegmentTask]:
    """One task a segment; the lists of keyframes, long for long videos, stay behind."""
    lean = replace(info, keyframe_pts=(), cut_pts=())
    return [SegmentTask(video, lean, segment, content_sha256) for segment in segments]


def padded(part: Part) -> Part:
    """As it goes to the task that fetches, or to the workers that decode."""
    return replace(part, padding=bytes(PADDING_BYTES))


def unpadded(part: Part) -> Part:
    """As it goes on, and into state."""
    return replace(part, padding=b"")


def failed(
    video: dict[str, Any], error: MediaError, *, stage: str, count: int = 1, attempts: int = 1
) -> FailedPart:
    return FailedPart(
        video=video,
        count=count,
        stage=error.stage or stage,
        reason=str(error.reason),
        error=error.error.encode("utf-8", errors="replace").decode("utf-8"),
        retryable=error.retryable,
        attempts=attempts,
    )
