"""`cliplake recipe check` says what would happen, and its exit code whether it could."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli import cliplake

from cliplake.recipe_plan import steps_of
from schemas.operators import OPERATORS
from schemas.recipe import Recipe, load_recipe, parse_recipe
from schemas.settings import CHECKOUT
from schemas.tables import ENRICHED_CLIPS

ARTICLE = CHECKOUT / "recipes" / "article.yaml"
SPLIT = "process:\n  - video_split_by_scene_mapper\n"


def parse(text: str) -> Recipe:
    return parse_recipe(text, where="r.yaml", default_name="r")


def test_the_plan_has_every_stage_in_order_with_its_place_model_and_gate(tmp_path: Path) -> None:
    done = cliplake("recipe", "check", str(ARTICLE), "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    recipe = load_recipe(ARTICLE)
    assert plan["fingerprints"] == {
        "split": recipe.split_fingerprint,
        "scores": recipe.scores_fingerprint,
        "gates": recipe.gates_fingerprint,
    }
    stages = plan["stages"]
    assert [(s["stage"], s["runs_on"].split(",")[0], s["reject_reasons"]) for s in stages] == [
        ("split", "Flink", []),
        ("duration", "Flink", ["too_short", "too_long"]),
        ("frames", "CPU worker", []),
        ("safety", "GPU worker", ["unsafe"]),
        ("motion", "CPU worker", ["low_motion", "high_motion"]),
        ("aesthetics", "GPU worker", ["low_aesthetics", "high_aesthetics"]),
        ("caption", "GPU worker", []),
    ]
    safety = plan["stages"][3]
    assert safety["model"] == "Falconsai/nsfw_image_detection"
    assert safety["gate"] == {"min_score": 0.0, "max_score": 0.5}
    assert plan["stages"][6]["model"] == "kpyu/video-blip-opt-2.7b-ego4d"


def test_on_a_terminal_it_is_a_table_with_the_warnings_under_it(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "np: 4\n" + SPLIT + "  - video_ocr_area_ratio_filter: {max_area_ratio: 0.3}\n"
        "  - video_nsfw_filter: {engine: open_nsfw_onnx, hf_nsfw_model: '[red]mine'}\n"
    )
    done = cliplake("recipe", "check", str(file), cwd=tmp_path, COLUMNS="200")
    assert done.returncode == 0, done.stderr
    for said in (
        "DataJuicer adapter",
        "max_area_ratio=0.3 → video_ocr_area_ratio_filter",
        "hf_nsfw_model=[red]mine",
        "1 warning",
        "np has no effect: how many work",
        load_recipe(file).gates_fingerprint,
    ):
        assert said in done.stdout


def test_a_recipe_that_cannot_run_is_a_line_and_exit_code_2(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(SPLIT + "  - video_nswf_filter")
    done = cliplake("recipe", "check", str(file), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "did you mean 'video_nsfw_filter'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_recipe_that_is_not_there_is_named_without_a_number(tmp_path: Path) -> None:
    done = cliplake("recipe", "check", "gone.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: recipe gone.yaml cannot be read: No such file or directory\n"


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_what_a_stage_is_said_to_write_is_there_to_be_written(name: str) -> None:
    following = "" if name == "video_split_by_scene_mapper" else f"  - {name}"
    for step in steps_of(parse(SPLIT + following)):
        columns = [column for column in step.writes if not column.startswith("table ")]
        assert step.writes
        assert set(columns) <= set(ENRICHED_CLIPS.column_names)


def test_a_mapper_judges_nothing_and_a_filter_does() -> None:
    steps = steps_of(
        parse(SPLIT + "  - video_tagging_from_frames_mapper\n  - video_watermark_filter")
    )
    assert [step.reject_reasons for step in steps[2:]] == [(), ("video_watermark_filter",)]
    assert steps[2].gate is None
    assert steps[3].gate is not None
    assert steps[3].gate["prob_threshold"] == 0.8


def test_a_mapper_that_rewrites_the_caption_is_said_to_write_it() -> None:
    steps = steps_of(
        parse(
            SPLIT + "  - video_captioning_from_video_mapper\n  - clean_links_mapper\n"
            "  - extract_keyword_mapper\n  - text_length_filter"
        )
    )
    assert ["caption" in step.writes for step in steps[3:]] == [True, False, False]


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("text_length_filter", "no operator before it writes one"),
        ("general_field_filter", "reads none of video, images and text"),
        ("image_blur_mapper", "writes other images"),
        ("video_audio_ASR_mapper", "listens to the sound"),
    ],
)
def test_check_refuses_what_a_start_would(tmp_path: Path, entry: str, says: str) -> None:
    (tmp_path / "mine.yaml").write_text(SPLIT + f"  - {entry}")
    done = cliplake("recipe", "check", "mine.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr


def test_a_stage_of_the_users_own_is_shown_by_what_its_class_declares(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from processors.stage import Resources, Stage\n"
        "class Mine(Stage):\n"
        "    name = 'my_score'\n"
        "    resources = Resources(gpus=0.5)\n"
        "    batch_size = 7\n"
        "    def inputs(self): return ('fps',)\n"
        "    def outputs(self): return ('twice',)\n"
        "    def process(self, batch): return [{'twice': 2 * s['fps']} for s in batch]\n"
        "    def judge(self, scores): return None\n"
    )
    (tmp_path / "mine.yaml").write_text(SPLIT + "  - mine.py:Mine")
    step = steps_of(load_recipe(tmp_path / "mine.yaml"))[-1]
    assert step.operator == "mine.py:Mine"
    assert step.runs_on == "GPU worker, your own stage (batches of 7)"
    assert step.reject_reasons
    (tmp_path / "mine.yaml").write_text(SPLIT + "  - mine.py:Mine: {sizes: 1}")
    done = cliplake("recipe", "check", "mine.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "it has no parameter 'sizes'" in done.stderr
