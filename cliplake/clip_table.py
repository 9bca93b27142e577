"""Clips and dead letters as tables on a terminal; what `try` and `demo` print."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from schemas.text import printable

SCORES = (
    "nsfw_score",
    "motion_score",
    "aesthetics_score",
    "sharpness",
    "brightness",
    "black_fraction",
    "overexposed_fraction",
    "frame_count",
    "caption",
)
"""Columns of ``enriched_clips`` that say what was measured, in the order in which they show."""

_SHORT = {
    "nsfw_score": "nsfw",
    "motion_score": "motion",
    "aesthetics_score": "aesthetics",
    "black_fraction": "black",
    "overexposed_fraction": "overexp.",
    "frame_count": "frames",
}
_STYLES = {"kept": "green", "rejected": "yellow", "failed": "red"}


_WIDE = 110
_ONLY_WIDE = ("brightness", "black_fraction", "overexposed_fraction", "frame_count")


def clips_table(clips: Sequence[Mapping[str, Any]], width: int, title: str | None = None) -> Table:
    """Rows of ``enriched_clips`` with ``name`` (of the video) beside them; one line a clip.

    A score that no clip has gets no column; a terminal of ``width`` columns that has not room
    for all leaves out what no gate looks at by default.
    """
    scores = [
        name
        for name in SCORES
        if any(clip.get(name) is not None for clip in clips)
        and (width >= _WIDE or name not in _ONLY_WIDE)
    ]
    table = Table(title=title, title_justify="left", show_edge=False, header_style="bold")
    table.add_column("video", overflow="fold")
    table.add_column("start - end, s", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for name in scores:
        text = name == "caption"
        table.add_column(
            _SHORT.get(name, name),
            justify="left" if text else "right",
            no_wrap=not text,
            overflow="fold",
        )
    further = any(clip.get("operator_stats") for clip in clips)
    if further:
        table.add_column("further", overflow="fold")
    shown_name = None
    for clip in clips:
        name = printable(str(clip["name"]))
        status = str(clip["status"])
        verdict = status if clip["reject_reason"] is None else str(clip["reject_reason"])
        table.add_row(
            Text("" if name == shown_name else name),
            f"{clip['start_s']:.2f} - {clip['end_s']:.2f}",
            Text(verdict, style=_STYLES.get(status, "")),
            *(Text(_number(clip.get(score))) for score in scores),
            *([Text(_further(clip))] if further else []),
        )
        shown_name = name
    return table


def dead_letters_table(letters: Iterable[Mapping[str, Any]], title: str | None = None) -> Table:
    """Dead letters with ``name``, ``stage``, ``reason`` and ``error``; one line each."""
    table = Table(title=title, title_justify="left", show_edge=False, header_style="bold")
    table.add_column("what", overflow="fold")
    table.add_column("stage", no_wrap=True)
    table.add_column("reason", no_wrap=True)
    table.add_column("error", overflow="fold")
    for letter in letters:
        table.add_row(
            Text(printable(str(letter["name"]))),
            str(letter["stage"]),
            Text(str(letter["reason"]), style="red"),
            Text(printable(str(letter["error"] or ""))),
        )
    return table


def _further(clip: Mapping[str, Any]) -> str:
    """What operators that are not built in measured."""
    stats = clip.get("operator_stats") or {}
    return "\n".join(f"{printable(name)} {_number(value)}" for name, value in stats.items())


def _number(value: Any) -> str:
    if value is None:
        return "·"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}"
    return printable(str(value))
