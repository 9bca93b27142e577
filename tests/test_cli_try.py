"""`try` and the demo's samples: each file ends as it was made to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cliplake import trial
from cliplake.samples import (
    CUTS,
    EMPTY,
    LONG_TAKE,
    NO_VIDEO,
    REAL_SAMPLES,
    TRUNCATED,
    write_samples,
)
from schemas.recipe import parse_recipe
from schemas.settings import CHECKOUT, Settings
from tests.cli import cliplake


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    write_samples(folder)
    return folder


@pytest.fixture(scope="module")
def tried(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Every sample and a file that is not there, tried once; by file name."""
    folder = tmp_path_factory.mktemp("elsewhere")
    files = [*sorted(REAL_SAMPLES.glob("*.mp4")), *sorted(samples.iterdir()), Path("gone.mp4")]
    done = cliplake("try", "--json", *map(str, files), cwd=folder, timeout=300)
    assert done.returncode == 0, done.stderr
    videos = json.loads(done.stdout)["videos"]
    assert [video["path"] for video in videos] == [str(file) for file in files]
    # Nothing was written where it ran: no lake, no state folder.
    assert list(folder.iterdir()) == []
    return {Path(video["path"]).name: video for video in videos}


def test_every_file_has_clips_or_a_dead_letter_and_never_both(
    tried: dict[str, dict[str, Any]],
) -> None:
    for video in tried.values():
        assert bool(video["clips"]) != (video["dead_letter"] is not None)


def test_scenes_start_where_the_generated_video_was_cut(tried: dict[str, dict[str, Any]]) -> None:
    clips = tried[CUTS.name]["clips"]
    assert [clip["start_s"] for clip in clips] == CUTS.cuts_s
    assert [clip["end_s"] for clip in clips] == [*CUTS.cuts_s[1:], 10.0]
    assert [clip["clip_index"] for clip in clips] == [0, 1, 2, 3]


def test_scenes_that_the_duration_filter_drops_are_listed_with_their_reason(
    tried: dict[str, dict[str, Any]],
) -> None:
    short = tried[CUTS.name]["clips"][1]
    assert (short["kept"], short["reject_reason"], short["nsfw_score"]) == (
        False,
        "too_short",
        None,
    )
    (long,) = tried[LONG_TAKE.name]["clips"]
    assert long["reject_reason"] == "too_long"


def test_a_scene_without_motion_is_rejected_and_keeps_what_was_measured(
    tried: dict[str, dict[str, Any]],
) -> None:
    still = tried[CUTS.name]["clips"][2]
    assert (still["kept"], still["reject_reason"]) == (False, "low_motion")
    assert still["motion_score"] < 0.25
    assert 0 <= still["nsfw_score"] < 0.5


def test_scenes_that_pass_every_gate_are_kept_with_their_scores(
    tried: dict[str, dict[str, Any]],
) -> None:
    for index in (0, 3):
        clip = tried[CUTS.name]["clips"][index]
        assert clip["kept"]
        assert clip["reject_reason"] is None
        assert clip["motion_score"] > 0.25
        assert clip["safety_model"] == "open_nsfw"
        assert clip["aesthetics_score"] is None


STAGE = """
from processors.stage import Stage


class Halves(Stage):
    name = "halves"

    def inputs(self):
        return ("duration_s",)

    def outputs(self):
        return ("half_s", "verdict")

    def process(self, batch):
        return [{"half_s": s["duration_s"] / 2, "verdict": "fine"} for s in batch]
"""


def test_what_further_stages_say_is_shown(tmp_path: Path) -> None:
    (tmp_path / "stage.py").write_text(STAGE)
    (tmp_path / "r.yaml").write_text("process: [video_split_by_scene_mapper, stage.py:Halves]\n")
    file = str(REAL_SAMPLES / "carphone_pristine.mp4")
    done = cliplake("try", "--recipe", "r.yaml", "--json", file, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (clip,) = json.loads(done.stdout)["videos"][0]["clips"]
    assert clip["operator_stats"] == {"half_s": pytest.approx(clip["duration_s"] / 2)}
    assert clip["operator_outputs"] == {"verdict": '"fine"'}
    table = cliplake("try", "--recipe", "r.yaml", file, cwd=tmp_path)
    assert "half_s 2.00" in table.stdout


def test_real_clips_have_the_scenes_that_pyscenedetect_finds(
    tried: dict[str, dict[str, Any]],
) -> None:
    starts = [clip["start_frame"] for clip in tried["bikes.mp4"]["clips"]]
    assert starts == [0, 30, 76, 137, 187, 242]
    assert len(tried["bigbuckbunny.mp4"]["clips"]) == 1


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (NO_VIDEO, "not_a_video"),
        (TRUNCATED, "truncated"),
        (EMPTY, "empty_file"),
        ("gone.mp4", "not_found"),
    ],
)
def test_a_broken_file_is_a_dead_letter_with_its_reason(
    tried: dict[str, dict[str, Any]], name: str, reason: str
) -> None:
    assert tried[name]["clips"] == []
    assert tried[name]["dead_letter"]["reason"] == reason
    assert tried[name]["dead_letter"]["error"]


def test_a_table_shows_clips_and_dead_letters(samples: Path) -> None:
    done = cliplake("try", CUTS.name, EMPTY, cwd=samples)
    assert done.returncode == 0
    for shown in ("too_short", "low_motion", "kept", "empty_file", "nothing was written"):
        assert shown in done.stdout


def test_clips_that_fail_are_dead_letters_with_their_error(samples: Path, tmp_path: Path) -> None:
    (tmp_path / "stage.py").write_text(STAGE.replace("/ 2", "/ 0"))
    (tmp_path / "r.yaml").write_text("process: [video_split_by_scene_mapper, stage.py:Halves]\n")
    file = (REAL_SAMPLES / "carphone_pristine.mp4").as_uri()
    table = cliplake("try", "--recipe", "r.yaml", file, cwd=tmp_path)
    assert table.returncode == 1
    assert "1 dead letter;" in table.stdout
    assert "ZeroDivisionError" in table.stdout
    read = cliplake("try", "--recipe", "r.yaml", "--json", file, "gone/x.mp4", cwd=tmp_path)
    first, second = json.loads(read.stdout)["videos"]
    assert first["clips"][0]["failed_stage"] == "halves"
    assert second["dead_letter"]["reason"] == "not_found"


def test_an_error_that_nobody_foresaw_costs_its_own_file_only(
    samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = trial.split_video

    def failing(path: Path, *arguments: Any) -> Any:
        if path.resolve() == first.resolve():
            raise OverflowError("too many frames")
        return split(path, *arguments)

    monkeypatch.setattr(trial, "split_video", failing)
    first, second = samples / LONG_TAKE.name, samples / CUTS.name
    recipe = parse_recipe("process: [video_split_by_scene_mapper]", where="t", default_name="t")
    tried = trial.try_files([str(first), str(second)], recipe, Settings(), tmp_path)
    assert tried[0].dead_letter == {
        "stage": "split",
        "reason": "stage_error",
        "error": "OverflowError: too many frames",
    }
    assert len(tried[1].clips) == 4


def test_a_folder_is_a_dead_letter_too(samples: Path) -> None:
    done = cliplake("try", "--json", str(samples), cwd=samples)
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["videos"][0]["dead_letter"]["reason"] == "not_found"


def test_a_recipe_of_one_s_own_is_followed(samples: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "loose.yaml"
    recipe.write_text(
        "process:\n  - video_split_by_scene_mapper\n"
        "  - video_duration_filter: {min_duration: 0.5}\n  - video_motion_score_filter\n"
    )
    done = cliplake(
        "try", "--json", "--recipe", str(recipe), str(samples / CUTS.name), cwd=tmp_path
    )
    clips = json.loads(done.stdout)["videos"][0]["clips"]
    assert [clip["reject_reason"] for clip in clips] == [None, None, "low_motion", None]
    assert all(clip["nsfw_score"] is None for clip in clips)


def test_a_model_that_is_not_there_stops_the_start_with_one_line(
    samples: Path, tmp_path: Path
) -> None:
    done = cliplake(
        "try",
        str(samples / CUTS.name),
        cwd=tmp_path,
        CLIPLAKE__MODELS__DIR=str(tmp_path / "nothing"),
    )
    assert done.returncode == 2
    assert done.stdout == ""
    error = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(error) == 1
    assert "Traceback" not in done.stderr


def test_a_recipe_with_a_stage_that_is_not_there_is_refused(samples: Path) -> None:
    article = CHECKOUT / "recipes" / "article.yaml"
    done = cliplake("try", "--recipe", str(article), CUTS.name, cwd=samples)
    assert done.returncode == 2
    assert done.stdout == ""


def test_samples_come_out_the_same_every_time(samples: Path, tmp_path: Path) -> None:
    names = [path.name for path in write_samples(tmp_path) if path.parent == tmp_path]
    assert names == [CUTS.name, LONG_TAKE.name, NO_VIDEO, TRUNCATED, EMPTY]
    for name in names:
        assert (tmp_path / name).read_bytes() == (samples / name).read_bytes()
