"""The benchmark measures what it says, on a small video: no figure is judged here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import figure, inputs, long_video, poison, report
from benchmarks.__main__ import main
from processors.media.probe import probe
from schemas.settings import DecodeSettings
from tests.datajuicer_cases import need_datajuicer
from tests.media import write_video


def _measure(folder: Path, *arguments: str) -> dict[str, Any]:
    """The report on one short video of two scenes, one round."""
    videos = folder / "videos"
    videos.mkdir(exist_ok=True)
    write_video(videos / "short.mp4", (25, 30), b_frames=2)
    written = folder / "report.json"
    common = ["--folder", str(folder / "made"), "--rounds", "1", "--input", "short.mp4"]
    assert main([*common, "--videos", str(videos), "--json", str(written), *arguments]) == 0
    found: dict[str, Any] = json.loads(written.read_text(encoding="utf-8"))
    return found


def test_the_split_is_measured_beside_its_limit_and_its_peer(tmp_path: Path) -> None:
    drawn = tmp_path / "figure.svg"
    found = _measure(tmp_path, "--only", "split", "--figure", str(drawn))
    assert [line["what"] for line in found["medians"]] == ["decode", "scenedetect", "split"]
    assert all(line["cpu_s"] > 0 and line["wall_s"] > 0 for line in found["medians"])
    # Ours has a child process, which counts.
    decode, _, split = (line["peak_bytes"] for line in found["medians"])
    assert split > decode > 1 << 20
    assert found["equal"] == {"cuts of short.mp4": True}
    assert "split short.mp4: ours/decode" in found["ratios"]
    assert found["machine"]["cores"] >= 1
    assert found["inputs"][0]["frames"] == 55
    assert drawn.read_text(encoding="utf-8") == figure.draw(found)


@pytest.mark.long
@pytest.mark.datajuicer
def test_enrichment_and_chain_are_measured_with_equal_results(tmp_path: Path) -> None:
    need_datajuicer()
    found = _measure(tmp_path, "--only", "enrichment", "--only", "chain")
    lines = {(line["group"], line["what"]): line for line in found["medians"]}
    sides = {"decode", "datajuicer", "datajuicer-mended", "ours"}
    assert {what for group, what in lines if group == "chain"} == sides
    assert {what for group, what in lines if group == "enrichment"} > sides
    parts = {"split", "durations", "frames", "safety", "motion", "aesthetics", "caption"}
    assert set(lines["chain", "datajuicer"]["parts"]) == parts
    assert all(found["equal"].values())
    assert len(found["equal"]) == 3
    chain = next(one for one in found["inputs"] if one["group"] == "chain")
    # Once for the split and once for the enrichment.
    assert chain["bytes_fetched"] == 2 * chain["bytes"]


def test_what_got_slower_is_said_and_what_did_not_is_not() -> None:
    recorded = {"a: ours/decode": 1.3, "b: datajuicer/ours": 6.0, "c: ours/decode": 1.0}
    now = {"a: ours/decode": 1.35, "b: datajuicer/ours": 4.0, "d: ours/decode": 9.0}
    assert report.slower(now, recorded) == ["b: datajuicer/ours was 6.00 and is 4.00"]
    assert report.slower({"c: ours/decode": 1.2}, recorded) == [
        "c: ours/decode was 1.00 and is 1.20"
    ]


def test_what_poison_costs_the_good_ones_is_measured(tmp_path: Path) -> None:
    video = write_video(tmp_path / "good.mp4", (25,))
    written = tmp_path / "poison.json"
    poison.main(["--good", "5", "--rounds", "1", "--video", str(video), "--json", str(written)])
    good, poisoned, hanging = json.loads(written.read_text(encoding="utf-8"))["streams"].values()
    assert [(s["split"], s["refused"]) for s in (good, poisoned, hanging)] == [
        (5, 0),
        (5, 1),
        (5, 2),
    ]
    # The decoder that hangs is waited for until its deadline.
    assert hanging["wall_s"] > DecodeSettings().deadline_base_s


def test_a_lengthened_video_has_the_same_frames_again_and_again(tmp_path: Path) -> None:
    video = write_video(tmp_path / "short.mp4", (25, 30), b_frames=2)
    one = probe(video)
    long = probe(inputs.lengthened(video, 3 * one.duration_s, tmp_path / "long.mp4"))
    assert long.frame_count == 3 * one.frame_count
    assert long.duration_s == pytest.approx(3 * one.duration_s)


@pytest.mark.long
@pytest.mark.e2e
def test_the_split_of_a_long_video_is_measured_by_slots(tmp_path: Path) -> None:
    written = tmp_path / "long.json"
    assert long_video.main(["--seconds", "130", "--slots", "2", "--json", str(written)]) == 0
    (found,) = json.loads(written.read_text(encoding="utf-8"))
    assert found["clips"] > 13
    assert found["wall_s"] > 0 < found["checkpoints"]
