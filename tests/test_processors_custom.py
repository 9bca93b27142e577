"""Stages of the user's own: every wrong file and declaration is one clear line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from processors.custom import load_stage_class, stage_of
from processors.planning import custom_stages
from schemas.problems import ConfigError
from schemas.recipe import load_recipe
from tests.own_stage import (
    AVAILABLE,
    FRAMES,
    HEAD,
    WHOLE,
    changed,
    framed,
    hosted,
    operator,
    problem,
)

# Loading.


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("\nMine = 3\n", "it is no stage: write `class … (Stage)`"),
        ("\nclass Mine: ...\n", "it is no stage"),
        ("\nMine = Stage\n", "it is no whole stage: define name, inputs, outputs, process"),
        ("\nclass Mine(Stage): ...\n", "it is no whole stage: define name, inputs, outputs"),
        (
            "\nclass Mine(Stage):\n    name = 'mine'\n    def inputs(self): return ()\n",
            "running the file fails in line 6: TypeError: stage Mine: define outputs, process",
        ),
        (changed("Mine", "Mime"), "the file has no class of that name; did you mean 'Mime'?"),
        ("\nMine = \n", "running the file fails in line 6: SyntaxError: invalid syntax; mend"),
        ("\n1 / 0\n", "running the file fails in line 6: ZeroDivisionError: division by zero"),
        ("\nimport not_there\n", "line 6: ModuleNotFoundError: No module named 'not_there'"),
        ("\nraise SystemExit('bye')\n", "running the file fails in line 6: SystemExit: bye"),
        ("\n\0\n", "running the file fails"),
        (changed('"mine"', '"My Stage"'), "stage Mine: name is 'My Stage'; give it a class value"),
        (
            WHOLE + "    batch_size = 0\n",
            "stage Mine: batch_size is 0, and should be an integer from 1 on",
        ),
        (WHOLE + "    resources = {'cpus': 1}\n", "resources is {'cpus': 1}; use Resources("),
        (WHOLE + "    resources = Resources(gpus=-1)\n", "resources cannot be negative"),
        (WHOLE + "    resources = Resources(cpus='2')\n", "cpus and gpus are numbers"),
    ],
)
def test_a_file_that_holds_no_such_stage_is_refused(tmp_path: Path, source: str, text: str) -> None:
    assert text in problem(tmp_path, source)


def test_a_file_that_failed_leaves_no_module_behind(tmp_path: Path) -> None:
    before = set(sys.modules)
    problem(tmp_path, "\n1 / 0\n")
    assert set(sys.modules) == before


def test_a_file_that_is_gone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.py: Mine: the file cannot be read: No such file"):
        load_stage_class(tmp_path / "gone.py", "Mine")


def test_a_file_that_was_changed_since_is_refused_and_not_run(tmp_path: Path) -> None:
    made = operator(tmp_path, WHOLE)
    made.file.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')", encoding="utf-8")
    with pytest.raises(ConfigError, match="the file was changed after the recipe was read"):
        stage_of(made, AVAILABLE)
    assert not (tmp_path / "ran").exists()


def test_files_of_one_name_and_versions_of_one_file_live_side_by_side(tmp_path: Path) -> None:
    kinds = []
    for folder, factor in (("a", 2), ("b", 3), ("a", 4)):
        (tmp_path / folder).mkdir(exist_ok=True)
        kinds.append(hosted(tmp_path / folder, changed("2 * s", f"{factor} * s")))
    assert [stage.run([{"fps": 10}])[0]["operator_stats"]["twice"] for stage in kinds] == [
        20,
        30,
        40,
    ]


def test_a_file_is_run_once_however_many_of_its_classes_are_used(tmp_path: Path) -> None:
    log = tmp_path / "log"
    source = f"{WHOLE}\nwith open({str(log)!r}, 'a') as log: log.write('x')\nOther = Mine\n"
    made = operator(tmp_path, source)
    first = load_stage_class(made.file, "Mine")
    assert load_stage_class(made.file, "Other") is first
    assert log.read_text() == "x"
    assert not (tmp_path / "__pycache__").exists()


# Declarations.


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (changed('"mine"', '"safety"'), "name is 'safety', as of another stage; give it one of"),
        (changed('"mine"', '"decode"'), "name is 'decode', as of another stage"),
        (changed('"mine"', '"other"'), "name is 'other', as of another stage"),
        (
            changed('"mine"', '"video_ocr_area_ratio_filter"'),
            "name is 'video_ocr_area_ratio_filter', as of an operator of DataJuicer; give it one",
        ),
        (
            changed('("twice",)', '("text_len",)'),
            "outputs() names 'text_len', by which operators of DataJuicer leave or are given",
        ),
        (changed('("twice",)', '("clip_file",)'), "outputs() names 'clip_file', by which"),
        (
            changed('("fps",)', '("fps")'),
            "inputs() returned 'fps', and should return a tuple of names, like ('sharpness',)",
        ),
        (changed('("fps",)', "None"), "inputs() returned None, and should return a tuple"),
        (changed('("fps",)', '("fps", 3)'), "inputs() returned ('fps', 3), and should"),
        (changed('("fps",)', '("fps", "fps")'), "inputs() names 'fps' twice"),
        (
            changed('("fps",)', '("motion_scor",)'),
            "inputs() names 'motion_scor', which nothing before it in the recipe gives; did you "
            "mean 'motion_score'?",
        ),
        (changed('("fps",)', '("caption",)'), "inputs() names 'caption', which nothing before"),
        (
            changed('("fps",)', "self.model.columns"),
            "inputs fails in line 8: AttributeError: 'NoneType' object has no attribute 'columns'; "
            "it is called before setup",
        ),
        (changed('("fps",)', '("clip_file",)'), "inputs() names 'clip_file', which nothing"),
        (WHOLE + "    def files(self): return True\n", "files() returned True, and should return"),
        (changed('("twice",)', '"twice"'), "outputs() returned 'twice', and should return a"),
        (changed('("twice",)', '("Twice it",)'), "outputs() names 'Twice it'; use lower case"),
        (
            changed('("twice",)', '("caption",)'),
            "outputs() names 'caption', a column of enriched_clips with another meaning; give",
        ),
        (changed('("twice",)', "()"), "it gives no outputs() and has no judge(scores): it would"),
        (WHOLE + "    judge = 3\n", "judge should be a method judge(self, scores)"),
        (WHOLE + "    def judge(self): return None\n", "judge should be a method judge(self, sc"),
        (framed("FrameRequest(", "("), "frames() returned ('pictures', FrameSampling("),
        (framed('FrameSampling("uniform", 2)', "3"), "and should return None or FrameRequest("),
        (framed('"uniform"', '"unifrom"'), "samples by 'unifrom'; did you mean 'uniform'?"),
        (framed('"uniform", 2', '"uniform", 0'), "frames() asks for 0 frames; frame_num is from 1"),
        (framed("Fitted(64)", "len"), "frames() resizes by <built-in function len>; use Fitted"),
        (framed('FrameRequest("pictures"', 'FrameRequest("fps"'), "a column that there is already"),
        *(
            (FRAMES.replace("pictures", column), f"into '{column}', a column that there is already")
            for column in ("clip_file", "nsfw_score", "text_len")
        ),
        (
            framed('("pictures", "fps")', '("fps",)'),
            "frames() puts them into 'pictures', which inputs() does not name; add it there",
        ),
    ],
)
def test_a_wrong_declaration_is_refused(tmp_path: Path, source: str, text: str) -> None:
    assert text in problem(tmp_path, source)


def test_an_output_of_an_operator_before_is_not_given_again(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="names 'twice', which an operator before it gives"):
        stage_of(operator(tmp_path, WHOLE), (*AVAILABLE, "twice"))


def test_an_output_is_not_called_as_a_parameter_of_datajuicers_says(tmp_path: Path) -> None:
    (tmp_path / "my_stage.py").write_text(HEAD + WHOLE, encoding="utf-8")
    (tmp_path / "r.yaml").write_text(
        "process:\n  - video_split_by_scene_mapper\n  - my_stage.py:Mine\n"
        "  - video_tagging_from_frames_mapper: {tag_field_name: twice}\n"
    )
    with pytest.raises(ConfigError, match="names 'twice', by which operators of DataJuicer"):
        custom_stages(load_recipe(tmp_path / "r.yaml"))


PARAMETERS = WHOLE + "    def __init__(self, threshold, factor=2): self.x = 1 / factor\n"


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"threshold": 1, "facter": 3}, "it has no parameter 'facter'; did you mean 'factor'?"),
        ({}, "its parameters are not complete: missing a required argument: 'threshold'"),
        ({"threshold": 1, "factor": 0}, "__init__ fails in line 11: ZeroDivisionError: division"),
    ],
)
def test_wrong_parameters_are_refused(
    tmp_path: Path, parameters: dict[str, Any], text: str
) -> None:
    assert text in problem(tmp_path, PARAMETERS, **parameters)
    assert hosted(tmp_path, PARAMETERS, threshold=1).name == "mine"
