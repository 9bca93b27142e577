"""`size`: costs are measured on the user's own machine, and what was not measured is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cliplake.costs import ArrivalsCost, Costs, Origin, StageCost, load_costs, parameters_of
from cliplake.sizing import Plan, Stream, plan
from schemas.problems import ConfigError
from schemas.recipe import load_recipe
from schemas.settings import CHECKOUT, Settings
from tests.cli import cliplake
from tests.media import write_video

ORIGIN = Origin(date="2026-01-31", machine="two CPUs", load=0.1, versions={}, inputs="a video")
LAPTOP = load_recipe(CHECKOUT / "recipes" / "laptop.yaml")
ARTICLE = load_recipe(CHECKOUT / "recipes" / "article.yaml")
PARAMETERS = {operator.stage: parameters_of(operator) for operator in LAPTOP.operators}
SECONDS = {"split": 0.02, "fetch": 0.001, "decode": 0.01, "frames": 0.002, "quality": 0.003}
COSTS = Costs(
    origin=ORIGIN,
    clip_seconds=5,
    resolutions={
        "720p": {
            stage: StageCost(seconds=seconds, parameters=PARAMETERS.get(stage, ""))
            for stage, seconds in {**SECONDS, "safety": 0.01, "motion": 0.04}.items()
        }
    },
    arrivals=ArrivalsCost(seconds=0.0001, origin=ORIGIN),
)
STREAM = Stream(videos_per_hour=3600, mean_seconds=100, resolution="720p", clip_seconds=10)
"""A video a second: 100 video-seconds a second, ten clips a second."""


def load_of(found: Plan, stage: str) -> float | None:
    return next(load.seconds_per_s for load in found.loads if load.stage == stage)


def test_a_stream_is_sized_by_its_measured_costs() -> None:
    found = plan(STREAM, LAPTOP, COSTS, {}, busy=0.5)
    assert load_of(found, "motion") == pytest.approx(4.0)
    # The split: two CPUs, four slots at half their time; one more for arrivals.
    assert found.flink_slots == 5
    # 0.066 s for each second of video, all but the split's.
    assert (found.cpu_workers, found.gpus) == (14, 0)
    assert found.bottleneck.startswith("motion: 47% of the CPU time")
    assert found.not_measured == ()


def test_what_has_no_cost_is_named_and_counted_nowhere() -> None:
    found = plan(STREAM, ARTICLE, COSTS, {}, busy=0.5)
    # The article's safety model is another one than that which was measured.
    assert {"safety", "aesthetics", "caption"} <= set(found.not_measured)
    assert found.gpus == 0
    assert load_of(found, "caption") is None


def test_a_given_cost_is_for_each_clip_and_wins() -> None:
    found = plan(STREAM, ARTICLE, COSTS, {"caption": 0.8, "decode": 0.5}, busy=0.5)
    assert load_of(found, "caption") == pytest.approx(8.0)
    assert load_of(found, "decode") == pytest.approx(5.0)
    assert found.gpus == 16
    assert "caption" not in found.not_measured
    assert found.bottleneck.startswith("caption: 100% of the GPU time")


def test_arrivals_are_the_bottleneck_where_one_task_does_not_suffice() -> None:
    busy_stream = replace(STREAM, videos_per_hour=3600 * 9000, mean_seconds=0.001)
    found = plan(busy_stream, LAPTOP, COSTS, {}, busy=0.7)
    assert found.bottleneck.startswith("arrivals: 0.90 CPU seconds a second in one task")


def test_a_resolution_that_was_not_measured_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing was measured at 1080p, only at 720p"):
        plan(replace(STREAM, resolution="1080p"), LAPTOP, COSTS, {}, busy=0.7)


def test_a_cost_of_no_stage_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="--cost captions: the recipe has no such stage"):
        plan(STREAM, LAPTOP, COSTS, {"captions": 1.0}, busy=0.7)


def test_a_broken_file_of_costs_says_how_to_write_it_anew(tmp_path: Path) -> None:
    (tmp_path / "costs.json").write_text('{"origin": 1}', encoding="utf-8")
    with pytest.raises(ConfigError, match="size --measure"):
        load_costs(Settings(local={"state_dir": str(tmp_path)}))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder in which a tiny video was measured, and what the command printed."""
    folder = tmp_path_factory.mktemp("size")
    video = write_video(folder / "video.mp4", (60, 55), size=(160, 96))
    done = cliplake("size", "--measure", "--video", str(video), "--json", cwd=folder, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def test_measuring_gives_every_stage_of_the_recipe_a_cost(
    measured: tuple[Path, dict[str, Any]],
) -> None:
    folder, printed = measured
    stages = printed["resolutions"]["96p"]
    assert set(stages) >= {"split", "fetch", "decode", "frames", "quality", "safety", "motion"}
    # Reading a small file may take less than a clock's tick; decoding and scoring does not.
    for stage in ("split", "decode", "safety", "motion"):
        assert stages[stage]["seconds"] > 0
        assert stages[stage]["unit"] == "cpu"
    assert printed["origin"]["inputs"] == "video.mp4"
    kept = json.loads((folder / ".cliplake" / "costs.json").read_text(encoding="utf-8"))
    # A machine without a cluster measures no arrivals: those printed are the package's.
    assert kept == {**printed, "arrivals": None}


def test_a_stream_is_sized_by_what_was_measured_here(
    measured: tuple[Path, dict[str, Any]],
) -> None:
    folder, printed = measured
    stream = ("--videos-per-hour", "3600", "--mean-seconds", "10", "--resolution", "96p")
    done = cliplake("size", *stream, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    loads = {stage["stage"]: stage["seconds_per_s"] for stage in found["stages"]}
    assert loads["motion"] == pytest.approx(10 * printed["resolutions"]["96p"]["motion"]["seconds"])
    assert found["measured"] == printed["origin"]
    words = cliplake(
        "size", *stream, "--recipe", str(CHECKOUT / "recipes/article.yaml"), cwd=folder
    )
    assert "Not measured, and not in the numbers: " in words.stdout


def test_without_measuring_the_package_says_whose_numbers_it_has(tmp_path: Path) -> None:
    done = cliplake("size", "--videos-per-hour", "100", "--mean-seconds", "60", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Flink slots " in done.stdout
    assert "Measured on 20" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((), "say --videos-per-hour and --mean-seconds, or --measure"),
        (("--videos-per-hour", "1"), "belong together"),
        (
            ("--videos-per-hour", "1", "--mean-seconds", "1", "--cost", "caption"),
            "write it like caption=0.8",
        ),
        (
            ("--videos-per-hour", "1", "--mean-seconds", "1", "--video", "a.mp4"),
            "say --measure as well",
        ),
        (("--measure", "--video", "gone.mp4"), "gone.mp4"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    arguments: tuple[str, ...], error: str, tmp_path: Path
) -> None:
    done = cliplake("size", *arguments, cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert error in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
