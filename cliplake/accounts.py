"""The accounts: what came in, what became of it, and whether that adds up.

received messages = accepted + replays + repeats + rejected + forgotten; each video has clips or is
a dead letter; each clip has one row of enriched_clips. Counted by queries over the lake and by the
topic's offsets, so they hold for everything that was ever written, whichever process wrote it.

While something is on its way the sums are open, which is not the same as wrong: wrong is what
can no longer come right, like a clip of no video or a row that is there twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal

from cliplake import account_queries as queries
from cliplake.query import LakeSql
from ingest.topic import PartitionOffsets, topic_offsets
from processors.pool.lake import Lake
from schemas.settings import Settings
from schemas.tables import TABLES

_LOOK_AGAIN_S = 2.0
"""Two queries do not see the same moment: what looks wrong must look wrong twice."""


class Balance(StrEnum):
    """Whether the accounts add up."""

    BALANCED = "balanced"
    IN_PROGRESS = "in progress"
    BROKEN = "broken"
    UNKNOWN = "unknown"
    """Nothing is wrong in the lake, and what is on the topic could not be seen."""


@dataclass(frozen=True)
class StageAccount:
    """What one stage has before it and behind it, in its own unit."""

    unit: str
    waiting: int
    """Neither done nor in flight; what is in flight counts here where that is not known."""
    in_flight: int | None
    """Handed out and not finished; None where nobody can say from outside."""
    done: int
    """Passed on to the next stage, or kept."""
    repeats: int
    """Dropped since they had been there before."""
    rejected: int
    """Ended by a gate."""
    dead: int
    """Dead letters."""
    replays: int = 0
    """Messages of videos that had been there before, sent again to be worked on again."""
    forgotten: int = 0
    """Messages whose video was forgotten since."""

    @property
    def finished(self) -> int:
        ended = self.done + self.repeats + self.rejected + self.dead
        return ended + self.replays + self.forgotten

    @property
    def total(self) -> int:
        return self.finished + self.waiting + (self.in_flight or 0)


@dataclass(frozen=True)
class Accounts:
    """One look at the lake and the topic."""

    stages: dict[str, StageAccount]
    """``arrivals`` (messages), ``split`` (videos), ``duration`` and ``enrich`` (clips)."""
    rows: dict[str, int]
    """By table."""
    reasons: dict[str, dict[str, int]]
    """By table with reasons: how often each."""
    snapshots: dict[str, int | None]
    """By table: the newest snapshot; None before the first commit."""
    steady: bool
    """Whether nothing was committed during the look; if not, the sums are of several moments."""
    kafka_lag: dict[int, int] | None
    """Records that came after the last one in the lake, by partition; None: topic not seen."""
    problems: tuple[str, ...] = field(default=())
    """What can no longer come right, a sentence each."""

    @property
    def balance(self) -> Balance:
        """Broken if anything is wrong; balanced if nothing is on its way, at one moment."""
        if self.problems:
            return Balance.BROKEN
        if self.kafka_lag is None:
            return Balance.UNKNOWN
        waiting = any(stage.waiting or stage.in_flight for stage in self.stages.values())
        return Balance.IN_PROGRESS if waiting or not self.steady else Balance.BALANCED

    @property
    def balanced(self) -> bool:
        return self.balance is Balance.BALANCED

    def as_json(self) -> dict[str, Any]:
        """Everything, for `cliplake status --json`."""
        return {
            **asdict(self),
            "problems": list(self.problems),
            "balance": self.balance.value,
            "balanced": self.balanced,
        }


Offsets = Callable[[], Mapping[int, PartitionOffsets]]


def read_accounts(
    settings: Settings,
    sql: LakeSql | None = None,
    *,
    in_flight: int = 0,
    topic: Offsets | Literal["settings"] | None = "settings",
) -> Accounts:
    """The accounts now. ``in_flight``: clips that the pool has handed out.

    ``topic`` gives the topic's offsets, by default those of the settings' broker; None if it
    cannot be seen. `ConfigError` if there is no lake, no topic, or no broker.
    """
    look = _Look(settings, sql or LakeSql(settings), topic, in_flight)
    found = look()
    if found.problems:
        time.sleep(_LOOK_AGAIN_S)
        again = look()
        before = {_kind(problem) for problem in found.problems}
        lasting = tuple(problem for problem in again.problems if _kind(problem) in before)
        found = replace(again, problems=lasting)
    return found


class _Look:
    """Looks at everything once a call."""

    def __init__(
        self,
        settings: Settings,
        sql: LakeSql,
        topic: Offsets | Literal["settings"] | None,
        in_flight: int,
    ) -> None:
        self._settings = settings
        self._sql = sql
        self._lake = Lake(settings)
        self._offsets = (lambda: topic_offsets(settings)) if topic == "settings" else topic
        self._in_flight = in_flight

    def __call__(self) -> Accounts:
        before = self._snapshots()
        found = _count(self._settings, self._sql, self._offsets, self._in_flight)
        return replace(found, snapshots=before, steady=before == self._snapshots())

    def _snapshots(self) -> dict[str, int | None]:
        return {table.name: self._lake.latest_snapshot_id(table.name) for table in TABLES}


def _count(settings: Settings, sql: LakeSql, offsets: Offsets | None, in_flight: int) -> Accounts:
    # From the end of the pipeline to its start: what is read later can only have more, so that
    # nothing is taken for a clip of no video.
    clips = sql.numbers(queries.CLIPS)
    videos = sql.numbers(queries.VIDEOS)
    topic = settings.kafka.topic.replace("'", "''")
    days = settings.flink.repeat_memory_days
    messages = sql.numbers(queries.MESSAGES.format(topic=topic, seconds=int(days * 86_400)))
    seen = {
        int(row["kafka_partition"]): row
        for row in sql.query(queries.PARTITIONS.format(topic=topic)).to_pylist()
    }
    kinds = ("accepted", "replayed", "repeated", "rejected", "forgotten")
    accounted = sum(messages[kind] for kind in kinds)
    received = accounted
    lag: dict[int, int] | None = None
    problems: list[str] = []
    if offsets is not None:
        received, lag, problems = _against_topic(settings.kafka.topic, offsets(), seen)
    if accounted > received:
        problems.append(
            f"{accounted:,} messages are in the lake, and only {received:,} came in by the topic"
        )
    problems += [text.format(**messages) for key, text in queries.MESSAGE_PROBLEMS if messages[key]]
    problems += [text.format(**videos) for key, text in queries.VIDEO_PROBLEMS if videos[key]]
    problems += [text.format(**clips) for key, text in queries.CLIP_PROBLEMS if clips[key]]

    unfinished = max(0, clips["clips"] - clips["enriched"]) + clips["failed_to_redo"]
    split_to_redo = videos["to_redo"] - videos["failed_to_redo"]
    flying = min(in_flight, unfinished)
    stages = {
        "arrivals": StageAccount(
            "messages",
            waiting=max(0, received - accounted),
            in_flight=None,
            done=messages["accepted"],
            repeats=messages["repeated"],
            rejected=0,
            dead=messages["rejected"],
            replays=messages["replayed"],
            forgotten=messages["forgotten"],
        ),
        "split": StageAccount(
            "videos",
            waiting=max(0, videos["videos"] - videos["split"] - videos["failed"])
            + videos["to_redo"],
            in_flight=None,
            done=videos["split"] - split_to_redo,
            repeats=0,
            rejected=0,
            dead=videos["failed"] - videos["failed_to_redo"],
        ),
        "duration": StageAccount(
            "clips",
            waiting=0,
            in_flight=None,
            done=clips["clips"] - clips["wrong_length"],
            repeats=0,
            rejected=clips["wrong_length"],
            dead=0,
        ),
        "enrich": StageAccount(
            "clips",
            waiting=unfinished - flying,
            in_flight=flying,
            done=clips["kept"],
            repeats=0,
            rejected=clips["rejected"],
            dead=clips["failed"] - clips["failed_to_redo"],
        ),
    }
    return Accounts(
        stages=stages,
        rows=sql.numbers(queries.ROWS),
        reasons={table: _reasons(sql, query) for table, query in queries.REASONS.items()},
        snapshots={},
        steady=True,
        kafka_lag=lag,
        problems=tuple(problems),
    )


def _against_topic(
    topic: str, offsets: Mapping[int, PartitionOffsets], seen: Mapping[int, Mapping[str, Any]]
) -> tuple[int, dict[int, int], list[str]]:
    """Messages that came in, the lag by partition, and what is wrong between lake and topic."""
    received = 0
    lag: dict[int, int] = {}
    problems: list[str] = []
    for partition, found in sorted(offsets.items()):
        first = last = None
        if partition in seen:
            first, last = int(seen[partition]["first"]), int(seen[partition]["last"])
        # Records that retention has taken away since are in the lake, and came in.
        begin = found.begin if first is None else min(first, found.begin)
        received += found.end - begin
        lag[partition] = max(0, found.end - (begin if last is None else last + 1))
        if last is not None and last >= found.end:
            problems.append(
                f"{topic}[{partition}]: the lake has offset {last:,}, and the topic ends before "
                f"{found.end:,}: it was deleted and made again, or is another broker's"
            )
        elif last is not None and last + 1 < found.begin:
            problems.append(
                f"{topic}[{partition}]: offsets {last + 1:,} to {found.begin - 1:,} were removed "
                "by the broker's retention before they were read"
            )
    problems += [
        f"{topic}[{partition}]: the lake has rows of it, and the topic has no such partition"
        for partition in sorted(set(seen) - set(offsets))
    ]
    return received, lag, problems


def _reasons(sql: LakeSql, query: str) -> dict[str, int]:
    return {str(row["reason"]): int(row["n"]) for row in sql.query(query).to_pylist()}


def _kind(problem: str) -> str:
    """A problem without its numbers, to tell whether it is the same one as before."""
    return "".join(char for char in problem if not char.isdigit() and char != ",")
