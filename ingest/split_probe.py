"""The split job's first two operators: read rows of `videos`, fetch and probe several at once.

What is fetched lies in threads beside Flink (`ingest.prober`); the rows themselves lie in Flink's
state until all that comes of them was passed on. A call takes a row in, or is the clock's, and
passes on what has finished meanwhile. It never waits long, so checkpoints come through; whatever
ends the process, the rows of the last checkpoint are fetched again, and nothing is passed on twice.

It is a clock of its own and not Flink's timers: PyFlink hands a timer on after the checkpoint that
the call belongs to, so that a restart finds rows without a timer, and waits for ever.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pyflink.common import Row
from pyflink.common.typeinfo import Types
from pyflink.datastream import (
    FlatMapFunction,
    KeyedCoProcessFunction,
    MapFunction,
    RuntimeContext,
)
from pyflink.datastream.state import MapStateDescriptor

from ingest.done import DoneKeys, DoneRecords
from ingest.elements import (
    VIDEO_COLUMNS,
    FailedPart,
    SegmentTask,
    VideoInHand,
    VideoTask,
    failed,
    padded,
    segment_tasks,
)
from ingest.job_record import NewState
from ingest.pace import Pace
from ingest.prober import NotProbed, Probed, Prober
from processors.failpoints import passing
from processors.split import plan_segments
from schemas.settings import DecodeSettings, FetchSettings

_TICK_S = 0.2
"""Between two ticks of the clock: what has finished is passed on as late as this at most."""
_AT_ONCE_S = 0.2
"""How long a row's call waits for it if there is little to do: a small video nearby is then passed
on by the call that brought it."""
_FULL_S = 1.0
"""How long a row's call waits for others to finish if there are many; so does a checkpoint."""
_FULL_TIMES = 4
"""Times as many rows as are fetched at once are many: the rest of a backlog stays in its table."""


class ReadVideos(FlatMapFunction):  # type: ignore[misc]
    """A row of `videos`, its time as text in UTC → a task, unless it was done under old state."""

    def __init__(self, new_state: NewState | None) -> None:
        self._new_state = new_state

    def open(self, runtime_context: RuntimeContext) -> None:
        self._done = None if self._new_state is None else DoneVideos(self._new_state)

    def flat_map(self, value: Row) -> Iterator[VideoTask]:
        video: dict[str, Any] = dict(zip(VIDEO_COLUMNS, value, strict=True))
        if self._done is not None and self._done.holds(video):
            return
        if text := video["kafka_timestamp"]:
            video["kafka_timestamp"] = datetime.fromisoformat(text).replace(tzinfo=UTC)
        yield padded(VideoTask(video))


class DoneVideos:
    """Which rows of `videos` were done before the job was started with new state."""

    def __init__(self, new_state: NewState) -> None:
        self._keys = DoneKeys(new_state.keys_file)
        self._replays = DoneRecords(new_state.records_file)

    def holds(self, video: dict[str, Any]) -> bool:
        if video["replay_id"] is not None:
            return (video["kafka_partition"], video["kafka_offset"]) in self._replays
        return video["video_key"] in self._keys


class Tick(MapFunction):  # type: ignore[misc]
    """Lets numbers through one at a time: the clock's ticks. Between them a checkpoint passes."""

    def map(self, value: int) -> int:
        time.sleep(_TICK_S)
        return value


class FetchVideos(KeyedCoProcessFunction):  # type: ignore[misc]
    """Rows of `videos`, all under one key, and ticks of a clock → segments, and failures."""

    def __init__(
        self, fetch: FetchSettings, decode: DecodeSettings, scratch_dir: str, workers: int
    ) -> None:
        """``workers``: tasks that score what comes from here."""
        self._fetch = fetch
        self._decode = decode
        self._scratch_dir = scratch_dir
        self._workers = workers

    def open(self, runtime_context: RuntimeContext) -> None:
        self._rows = runtime_context.get_map_state(
            MapStateDescriptor("videos", Types.STRING(), Types.PICKLED_BYTE_ARRAY())
        )
        self._prober = Prober(self._fetch, self._decode, Path(self._scratch_dir))
        self._pace = Pace(self._workers)
        self._videos: dict[str, dict[str, Any]] | None = None
        self._ready: deque[tuple[str, Sequence[SegmentTask | FailedPart]]] = deque()

    def close(self) -> None:
        self._prober.close()

    def process_element1(
        self, value: VideoTask, ctx: KeyedCoProcessFunction.Context
    ) -> Iterator[SegmentTask | FailedPart]:
        most = self._pace.begin(is_tick=False)
        videos = self._in_hand()
        if len(videos) >= _FULL_TIMES * self._prober.most:
            # Something has to go before another one comes.
            most = max(1, most)
            if not self._ready:
                self._prober.wait(_FULL_S)
        # An object that a replayed message names twice is two rows with the same coordinates.
        if value.row not in videos:
            videos[value.row] = value.video
            self._rows.put(value.row, VideoInHand(value.video))
            self._prober.submit(value.row, value.video["uri"])
            if len(videos) <= self._fetch.at_once:
                self._prober.wait(_AT_ONCE_S)
        yield from self._passed_on(videos, most)

    def process_element2(
        self, value: int, ctx: KeyedCoProcessFunction.Context
    ) -> Iterator[SegmentTask | FailedPart]:
        most = self._pace.begin(is_tick=True)
        yield from self._passed_on(self._in_hand(), most)

    def _in_hand(self) -> dict[str, dict[str, Any]]:
        """The rows in the state, which can be read once there is a first element."""
        if self._videos is None:
            self._videos = {}
            for row, held in self._rows.items():
                self._videos[row] = held.video
                if held.left is None:
                    self._prober.submit(row, held.video["uri"])
                else:
                    self._ready.append((row, held.left))
        return self._videos

    def _passed_on(
        self, videos: dict[str, dict[str, Any]], most: int
    ) -> Iterator[SegmentTask | FailedPart]:
        """``most`` segments of what is ready, and not in the state any more."""
        if len(self._ready) < self._prober.most:
            for row, result in self._prober.finished():
                self._ready.append((row, self._parts(videos[row], result)))
        count = 0
        while self._ready and count < most:
            row, parts = self._ready.popleft()
            now, left = parts[: most - count], parts[most - count :]
            count += len(now)
            yield from map(padded, now)
            if left:
                self._ready.appendleft((row, left))
                self._rows.put(row, VideoInHand(videos[row], left))
            else:
                self._rows.remove(row)
                del videos[row]
        self._pace.end(count)

    def _parts(
        self, video: dict[str, Any], result: Probed | NotProbed
    ) -> Sequence[SegmentTask | FailedPart]:
        if isinstance(result, NotProbed):
            return [failed(video, result.error, stage="fetch", attempts=result.attempts)]
        passing("probe.done")
        segments = plan_segments(result.info, self._decode.segment_s)
        return segment_tasks(video, result.info, segments, result.sha256)
