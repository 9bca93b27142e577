"""The figure of a report, as SVG: how many times bare decoding each side's CPU time is."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

_WIDTH, _LEFT, _BAR, _GAP = 860, 260, 16, 12
_COLOURS = {"decode": "#9aa5b1", "split": "#2a7f62", "ours": "#2a7f62"}
_PEER = "#c8793a"
_FONT = 'font-family="sans-serif" font-size="12"'


def draw(report: Mapping[str, Any]) -> str:
    """Bars of all inputs, a group below the other; each group has a scale of its own."""
    parts: list[str] = []
    top = 10
    for group in dict.fromkeys(line["group"] for line in report["medians"]):
        lines = [line for line in report["medians"] if line["group"] == group]
        longest = max(line["to_decode"] for line in lines)
        top += 20
        parts.append(
            f'<text x="10" y="{top}" {_FONT} font-weight="bold">'
            f"{group}: CPU time, times bare decoding</text>"
        )
        top += _GAP
        for name in dict.fromkeys(line["input"] for line in lines):
            for line in lines:
                if line["input"] == name:
                    parts.append(_bar(line, longest, top))
                    top += _BAR + 2
            top += _GAP
    style = f'width="{_WIDTH}" height="{top}" viewBox="0 0 {_WIDTH} {top}"'
    white = f'<rect width="{_WIDTH}" height="{top}" fill="white"/>'
    return "\n".join(
        [f'<svg xmlns="http://www.w3.org/2000/svg" {style}>', white, *parts, "</svg>", ""]
    )


def _bar(line: Mapping[str, Any], longest: float, top: int) -> str:
    times = line["to_decode"]
    width = max(1.0, times / longest * (_WIDTH - _LEFT - 60))
    what = line["what"]
    colour = _COLOURS.get(what.partition("-")[0], _PEER)
    label = escape(f"{line['input']} · {what}")
    return (
        f'<text x="{_LEFT - 8}" y="{top + 12}" {_FONT} text-anchor="end">{label}</text>'
        f'<rect x="{_LEFT}" y="{top}" width="{width:.1f}" height="{_BAR}" fill="{colour}"/>'
        f'<text x="{_LEFT + width + 6:.1f}" y="{top + 12}" {_FONT}>{times:.2f}</text>'
    )
