"""A class of the user's own in a recipe: found from the recipe's folder, known by its bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from schemas.operators import CustomStage
from schemas.problems import ConfigError
from schemas.recipe import Recipe, dump_recipe, load_recipe, parse_recipe

HEAD = "process:\n  - video_split_by_scene_mapper\n  - "


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "my_stage.py").write_text("class MyStage: ...\n")
    return tmp_path


def write(folder: Path, entry: str = "stages/my_stage.py:MyStage: {size: 3}") -> Path:
    file = folder / "mine.yaml"
    file.write_text(HEAD + entry)
    return file


def in_another_process(recipe: Recipe) -> Recipe:
    return parse_recipe(dump_recipe(recipe), where="the driver's recipe", default_name="x")


def test_it_is_looked_for_from_the_recipe_and_found_from_anywhere_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    recipe = load_recipe(write(folder))
    (stage,) = recipe.operators
    assert isinstance(stage, CustomStage)
    assert stage.file == folder / "stages" / "my_stage.py"
    assert (stage.class_name, stage.parameters) == ("MyStage", {"size": 3})
    assert (stage.op, stage.stage) == ("my_stage.py:MyStage", "my_stage")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert in_another_process(recipe) == recipe


def test_its_code_and_its_parameters_are_part_of_the_scores(folder: Path) -> None:
    prints = {load_recipe(write(folder)).scores_fingerprint}
    prints.add(
        load_recipe(write(folder, "stages/my_stage.py:MyStage: {size: 4}")).scores_fingerprint
    )
    (folder / "stages" / "my_stage.py").write_text("class MyStage: size = 1\n")
    prints.add(load_recipe(write(folder)).scores_fingerprint)
    assert len(prints) == 3


def test_moving_the_file_changes_nothing_of_the_scores(folder: Path) -> None:
    before = load_recipe(write(folder))
    (folder / "stages" / "my_stage.py").rename(folder / "renamed.py")
    after = load_recipe(write(folder, "renamed.py:MyStage: {size: 3}"))
    assert before.scores_fingerprint == after.scores_fingerprint


def test_code_that_changed_since_the_recipe_was_read_does_not_run(folder: Path) -> None:
    recipe = load_recipe(write(folder))
    (folder / "stages" / "my_stage.py").write_text("class MyStage: size = 1\n")
    with pytest.raises(ConfigError, match="changed since"):
        in_another_process(recipe)


def test_a_file_that_is_not_there_is_an_error_of_the_recipe(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"process\[1\]: .*gone\.py cannot be read"):
        load_recipe(write(folder, "gone.py:MyStage"))


def test_a_recipe_goes_to_another_process_unchanged(folder: Path) -> None:
    text = (
        "compat: fixed\nscore_rejected: true\n" + HEAD + "video_nsfw_filter: {max_score: 0.25}\n"
        "  - cliplake_frame_quality_filter: {min_sharpness: 2}"
    )
    recipe = parse_recipe(text, where="r", default_name="r")
    assert in_another_process(recipe) == recipe
    assert json.loads(dump_recipe(recipe))["compat"] == "fixed"


def test_compat_is_part_of_the_scores_and_not_of_the_verdicts() -> None:
    text = HEAD + "video_nsfw_filter"
    dj, fixed = (
        parse_recipe(f"compat: {c}\n{text}", where="r", default_name="r") for c in ("dj", "fixed")
    )
    assert dj == parse_recipe(text, where="r", default_name="r")
    assert dj.scores_fingerprint != fixed.scores_fingerprint
    assert dj.gates_fingerprint == fixed.gates_fingerprint
    assert dj.split_fingerprint == fixed.split_fingerprint
