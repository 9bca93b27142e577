"""The verdict on a lake: what of an order was lost, is there twice, or came out wrong.

It compares rows with what the order says, and with rows that the same contents had in an
undisturbed run. How the rows were read is not its concern: `tests.ledger.read` has two ways.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.ledger.order import FPS, VIDEOS, Order, Place

Rows = Sequence[Mapping[str, Any]]
Tables = Mapping[str, Rows]
"""Rows by table, of those in `COLUMNS`."""

_PLACE = ("kafka_topic", "kafka_partition", "kafka_offset")
COLUMNS: dict[str, tuple[str, ...]] = {
    "videos": ("video_id", *_PLACE),
    "repeats": ("video_id", *_PLACE),
    "rejected_messages": ("reason", *_PLACE),
    "failed_videos": ("video_id", "reason", *_PLACE),
    "clips": ("clip_id", "video_id", "clip_index", "start_s", "end_s", "duration_ok", *_PLACE),
    "clip_frames": ("clip_id", "enrich_seq"),
    "failed_clips": ("clip_id", "enrich_seq", *_PLACE),
    "enriched_clips": (
        *_PLACE,
        *("clip_id", "video_id", "clip_index", "start_s", "end_s", "status", "reject_reason"),
        *("nsfw_score", "motion_score", "frame_count", "sharpness", "frames_seq", "enrich_seq"),
        *("safety_model_revision", "scores_fingerprint", "gates_fingerprint"),
    ),
}
_OF_THE_CONTENT = (
    *("start_s", "end_s", "status", "reject_reason", "nsfw_score", "motion_score"),
    *("frame_count", "sharpness", "safety_model_revision"),
    *("scores_fingerprint", "gates_fingerprint"),
)
"""Columns of enriched_clips that are the same whenever the same video is enriched."""

Reference = dict[tuple[str, int], dict[str, Any]]
"""(name in VIDEOS, clip_index) → those columns."""


@dataclass
class Verdict:
    """Each a list of sentences; all empty: nothing was lost, doubled or wrong."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not (self.lost or self.doubled or self.wrong)

    def __str__(self) -> str:
        if self.clean:
            return "lost 0, doubled 0, wrong 0"
        first = [*self.lost[:3], *self.doubled[:3], *self.wrong[:3]]
        counts = f"lost {len(self.lost)}, doubled {len(self.doubled)}, wrong {len(self.wrong)}"
        return f"{counts}: " + "; ".join(first)


def audit(order: Order, tables: Tables, reference: Reference | None = None) -> Verdict:
    """What the tables hold of the order; without ``reference``, scores are not looked at.

    Rows of other messages on the same topic are left aside.
    """
    verdict, tables = Verdict(), _of(order, tables)
    known = order.contents.keys() | order.broken.keys()
    _count(verdict, "videos", known, (row["video_id"] for row in tables["videos"]))
    _sum(verdict, "repeats", order.repeats, len(tables["repeats"]))
    for reason, count in order.rejected.items():
        found = sum(row["reason"] == reason for row in tables["rejected_messages"])
        _sum(verdict, f"rejected_messages {reason}", count, found)
    others = {row["reason"] for row in tables["rejected_messages"]} - order.rejected.keys()
    verdict.wrong += [f"rejected_messages has {reason}" for reason in sorted(others)]
    failed = [(row["video_id"], row["reason"]) for row in tables["failed_videos"]]
    _count(verdict, "failed_videos", set(order.broken.items()), failed)
    _clips(verdict, order, tables["clips"])
    _enriched(verdict, order, tables["enriched_clips"], reference)
    _frames(verdict, tables)
    if tables["failed_clips"]:
        verdict.wrong.append(f"failed_clips has {len(tables['failed_clips'])} rows")
    return verdict


def reference_of(order: Order, enriched: Rows) -> Reference:
    """The rows of an undisturbed run as what later runs are compared with."""
    return {
        (order.contents[row["video_id"]], row["clip_index"]): {c: row[c] for c in _OF_THE_CONTENT}
        for row in enriched
    }


def _of(order: Order, tables: Tables) -> Tables:
    """The rows that came of the order's messages; frames have no place, and stay."""
    return {
        name: [row for row in rows if name == "clip_frames" or place(row) in order.places]
        for name, rows in tables.items()
    }


def place(row: Mapping[str, Any]) -> Place:
    """Where the message is that a row came of."""
    return row["kafka_topic"], row["kafka_partition"], row["kafka_offset"]


def _count(verdict: Verdict, table: str, wanted: Iterable[Any], found: Iterable[Any]) -> None:
    counts, expected = Counter(found), set(wanted)
    verdict.lost += [f"{table} lacks {key}" for key in sorted(expected - counts.keys())]
    verdict.doubled += [f"{table} has {key} {n} times" for key, n in counts.items() if n > 1]
    verdict.wrong += [f"{table} has {key}" for key in sorted(counts.keys() - expected)]


def _sum(verdict: Verdict, what: str, wanted: int, found: int) -> None:
    if found < wanted:
        verdict.lost.append(f"{what}: {found} of {wanted}")
    if found > wanted:
        verdict.doubled.append(f"{what}: {found} for {wanted}")


def _clips(verdict: Verdict, order: Order, rows: Rows) -> None:
    expected: dict[Any, bool] = {}
    for video_id, name in order.contents.items():
        start = 0
        for shot in VIDEOS[name]:
            end = start + shot.frames
            expected[video_id, start, end] = shot.verdict != "too_short"
            start = end
    _count(verdict, "clips", expected, map(_span, rows))
    for row in rows:
        if expected.get(_span(row), row["duration_ok"]) != row["duration_ok"]:
            verdict.wrong.append(f"clips has duration_ok {row['duration_ok']} for {_span(row)}")


def _enriched(verdict: Verdict, order: Order, rows: Rows, reference: Reference | None) -> None:
    expected: dict[Any, str] = {}
    for video_id, name in order.contents.items():
        start = 0
        for shot in VIDEOS[name]:
            expected[video_id, start, start + shot.frames] = shot.verdict
            start += shot.frames
    _count(verdict, "enriched_clips", expected, map(_span, rows))
    for row in rows:
        found = "kept" if row["status"] == "kept" else row["reject_reason"]
        wanted = expected.get(_span(row), found)
        if wanted != found:
            verdict.wrong.append(f"{_span(row)} is {row['status']}, {found}, and not {wanted}")
        elif reference is not None and row["video_id"] in order.contents:
            then = reference[order.contents[row["video_id"]], row["clip_index"]]
            verdict.wrong += [
                f"{_span(row)} has {column} {row[column]}, and undisturbed {then[column]}"
                for column in _OF_THE_CONTENT
                if not _same(row[column], then[column])
            ]


def _frames(verdict: Verdict, tables: Tables) -> None:
    """Each row that says that it has frames has them once; frames of no row may be left over."""
    there = Counter((row["clip_id"], row["enrich_seq"]) for row in tables["clip_frames"])
    for row in tables["enriched_clips"]:
        if row["frames_seq"] is None:
            if row["status"] == "kept":
                verdict.lost.append(f"{_span(row)} is kept and has no frames")
            continue
        count = there[row["clip_id"], row["frames_seq"]]
        if count == 0:
            verdict.lost.append(f"clip_frames lacks those of {_span(row)}")
        if count > 1:
            verdict.doubled.append(f"clip_frames has those of {_span(row)} {count} times")


def _span(row: Mapping[str, Any]) -> tuple[str, int, int]:
    return row["video_id"], round(row["start_s"] * FPS), round(row["end_s"] * FPS)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)
    return bool(one == other)
