"""From the GPU benchmark's lines to its report: the figures, and what follows from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table

ON_GPU = ("safety", "aesthetics", "caption")
"""DataJuicer's operators that run on a GPU."""
_Line = Mapping[str, Any]


def made(lines: Sequence[_Line]) -> dict[str, Any]:
    """The report; a figure that no line gives is not in it."""
    bookkeeping = ("machine", "begun", "ended", "failed", "skipped", "scores")
    return {
        "machine": next((dict(line) for line in lines if line["what"] == "machine"), None),
        "derived": derived(lines),
        "differences": differences(lines),
        "figures": [line for line in lines if line["what"] not in bookkeeping],
        "scores": [line for line in lines if line["what"] == "scores"],
        "problems": [line for line in lines if line["what"] in ("failed", "skipped")],
    }


def derived(lines: Sequence[_Line]) -> dict[str, float]:
    """Rates beside each other. Those of DataJuicer's are of its operators one after the other."""
    found: dict[str, float] = {}
    actors = [line for line in lines if line["what"] == "actor"]
    pipelines = [line for line in lines if line["what"] == "pipeline"]
    theirs = {
        line["what"]: line["video_s_per_s"]
        for line in lines
        if line.get("part") == "datajuicer" and "video_s_per_s" in line
    }
    if actors:
        found["GPU stages, video-s/s/GPU"] = max(line["video_s_per_s"] for line in actors)
    if theirs.keys() >= set(ON_GPU):
        rate = _one_after_the_other(theirs[name] for name in ON_GPU)
        found["DataJuicer's operators on the GPU, video-s/s/GPU"] = rate
        if actors:
            ratio = found["GPU stages, video-s/s/GPU"] / rate
            found["GPU stages: ours/DataJuicer's"] = ratio
        found["DataJuicer's operators, all, video-s/s/GPU"] = _one_after_the_other(theirs.values())
    for line in pipelines:
        found["pipeline, video-s/s/GPU"] = line["video_s_per_s"]
        if line["gpu_busy"] is not None:
            found["pipeline: busier of GPU and CPU"] = max(line["gpu_busy"], line["cpu_busy"])
        if actors:
            # What one GPU needs to be as fast as its stages are.
            stages = found["GPU stages, video-s/s/GPU"]
            found["CPU cores to feed one GPU"] = stages * line["cpu_s_per_video_s"]
    return found


def _one_after_the_other(rates: Iterable[float]) -> float:
    return 1 / sum(1 / rate for rate in rates)


def differences(lines: Sequence[_Line]) -> dict[str, Any]:
    """How far apart the two sides' scores of the same clips are, at most."""
    sides: dict[str, dict[str, _Line]] = {"ours": {}, "datajuicer": {}}
    for line in lines:
        if line["what"] == "scores":
            sides[line["side"]][line["clip"]] = line
    ours, theirs = sides["ours"], sides["datajuicer"]
    both = sorted(ours.keys() & theirs.keys())
    if not both:
        return {}
    found: dict[str, Any] = {
        name: max(abs(ours[clip][name] - theirs[clip][name]) for clip in both)
        for name in ("safety", "motion", "aesthetics")
    }
    found["equal captions"] = sum(ours[c]["caption"] == theirs[c]["caption"] for c in both)
    found["clips"] = len(both)
    return found


def table(report: Mapping[str, Any]) -> Table:
    """The rates, for a terminal."""
    shown = Table(title="video-seconds a second, of one GPU")
    shown.add_column("what")
    for column in ("batch", "video-s/s", "clips/s", "tokens/clip", "GPU busy", "cores", "GB"):
        shown.add_column(column, justify="right")
    for line in report["figures"]:
        if "video_s_per_s" not in line:
            continue
        batch = line.get("frames_per_batch")
        tokens, busy = line.get("caption_tokens_per_clip"), line["gpu_busy"]
        shown.add_row(
            line["what"] if line["part"] != "datajuicer" else f"DataJuicer, {line['what']}",
            "1 clip" if batch is None else f"{batch} / {line['clips_per_batch']}",
            f"{line['video_s_per_s']:.1f}",
            f"{line['clips_per_s']:.2f}",
            "" if tokens is None else f"{tokens:.1f}",
            "no GPU" if busy is None else f"{busy:.0%}",
            f"{line['cpu_cores']:.2f}",
            "" if line["gpu_bytes"] is None else f"{line['gpu_bytes'] / 1e9:.1f}",
        )
    return shown
