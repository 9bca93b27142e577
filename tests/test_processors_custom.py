"""Stages of the user's own: every wrong declaration is one clear line, and a right one runs."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from processors.custom import COLUMNS_OF_EVERY_CLIP, load_stage_class, stage_of
from processors.custom_host import HostedStage
from processors.errors import DependencyFault, MediaError, StageStartError
from processors.planning import custom_stages
from processors.stage import FileRequest, Resources
from schemas.operators import CustomStage
from schemas.plugins import custom_stage
from schemas.problems import ConfigError
from schemas.reasons import MediaReason
from schemas.recipe import load_recipe

HEAD = """\
from processors.errors import DependencyFault, StageStartError
from processors.frames import FrameRequest, FrameSampling
from processors.resize import Fitted
from processors.stage import ModelIdentity, Resources, Stage
"""
WHOLE = """
class Mine(Stage):
    name = "mine"
    def inputs(self): return ("fps",)
    def outputs(self): return ("twice",)
    def process(self, batch): return [{"twice": 2 * s["fps"]} for s in batch]
"""
AVAILABLE = (*COLUMNS_OF_EVERY_CLIP, "motion_score")


def operator(folder: Path, source: str, **parameters: Any) -> CustomStage:
    (folder / "my_stage.py").write_text(HEAD + source, encoding="utf-8")
    return custom_stage("my_stage.py:Mine", parameters, folder)


def changed(old: str, new: str) -> str:
    assert old in WHOLE
    return WHOLE.replace(old, new)


def hosted(folder: Path, source: str, **parameters: Any) -> HostedStage:
    stage = stage_of(operator(folder, source, **parameters), AVAILABLE)
    stage.setup()
    return stage


def problem(folder: Path, source: str, **parameters: Any) -> str:
    """What is wrong, without the file and the class, which every such line begins with."""
    made = operator(folder, source, **parameters)
    with pytest.raises(ConfigError) as caught:
        stage_of(made, AVAILABLE, names=("other",))
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{made.file}: Mine: ")
    assert "cliplake_custom" not in text
    return text.removeprefix(f"{made.file}: Mine: ")


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


FRAMES = """
class Mine(Stage):
    name = "mine"
    def inputs(self): return ("pictures", "fps")
    def outputs(self): return ("count",)
    def frames(self): return FrameRequest("pictures", FrameSampling("uniform", 2), Fitted(64))
    def process(self, batch): return [{"count": len(s["pictures"])} for s in batch]
"""


def framed(old: str, new: str) -> str:
    assert old in FRAMES
    return FRAMES.replace(old, new)


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


# Running.


def run(stage: HostedStage, **columns: Any) -> Any:
    (result,) = stage.run([{"fps": 10.0, **columns}])
    return result


def blamed(stage: HostedStage) -> str:
    error = run(stage)
    assert isinstance(error, MediaError)
    assert error.reason is MediaReason.STAGE_ERROR
    assert error.stage == "mine"
    return error.error


def test_it_runs_under_its_own_name_with_its_resources_and_batch_size(tmp_path: Path) -> None:
    source = WHOLE + "    resources = Resources(cpus=2, gpus=0.5)\n    batch_size = 7\n"
    stage = hosted(tmp_path, source)
    assert (stage.name, stage.resources, stage.batch_size) == ("mine", Resources(2, 0.5), 7)
    assert stage.frames() is None
    assert not stage.has_gate
    stage.ping()
    assert stage.rejects({**run(stage)}) is None


def test_it_sees_what_it_asked_for_and_its_frames_and_nothing_else(tmp_path: Path) -> None:
    source = framed('{"count": len(s["pictures"])}', '{"count": sorted(s)}')
    stage = hosted(tmp_path, source)
    (column,) = stage.inputs()
    assert column == "mine.pictures"
    result = run(stage, **{column: np.zeros((2, 4, 4, 3), np.uint8), "caption": "secret"})
    assert result["operator_outputs"] == {"count": '["fps", "pictures"]'}


def test_files_that_it_opens_are_asked_for_and_given_to_it(tmp_path: Path) -> None:
    source = "\nfrom processors.stage import FileRequest" + changed(
        '("fps",)', '("fps", "clip_file")'
    ).replace('2 * s["fps"]', 's["clip_file"]')
    source += "    def files(self): return FileRequest(cut=True)\n"
    source += "    def judge(self, scores): return '_'.join(scores)\n"
    stage = hosted(tmp_path, source)
    assert stage.files() == FileRequest(cut=True)
    assert stage.inputs() == ("clip_file",)
    result = run(stage, clip_file="/scratch/clip.mp4")
    assert result["operator_outputs"] == {"twice": '"/scratch/clip.mp4"'}
    assert stage.rejects(result) == "fps_twice"


def test_a_clip_that_it_cannot_process_leaves_the_others_of_the_batch(tmp_path: Path) -> None:
    source = "\nfrom processors.errors import MediaError" + changed(
        "return [{", 'return [MediaError("stage_error", "odd") if s["fps"] == 3 else {'
    )
    first, odd, last = hosted(tmp_path, source).run([{"fps": 1}, {"fps": 3}, {"fps": 5}])
    assert isinstance(odd, MediaError)
    assert (first["operator_stats"], last["operator_stats"]) == ({"twice": 2}, {"twice": 10})


@pytest.mark.parametrize(
    ("value", "column", "stored"),
    [
        ("3", "operator_stats", 3.0),
        ("np.float32(0.5)", "operator_stats", 0.5),
        ("np.int64(7)", "operator_stats", 7.0),
        ("True", "operator_outputs", "true"),
        ("np.bool_(True)", "operator_outputs", "true"),
        ("'grün'", "operator_outputs", '"grün"'),
        ("{'a': [1, None]}", "operator_outputs", '{"a": [1, null]}'),
    ],
)
def test_numbers_are_stats_and_all_else_is_json(
    tmp_path: Path, value: str, column: str, stored: object
) -> None:
    result = run(hosted(tmp_path, "\nimport numpy as np" + changed('2 * s["fps"]', value)))
    other = {"operator_stats": "operator_outputs", "operator_outputs": "operator_stats"}[column]
    assert result[column] == {"twice": stored}
    assert result[other] == {}


def test_none_is_stored_nowhere(tmp_path: Path) -> None:
    result = run(hosted(tmp_path, changed('2 * s["fps"]', "None")))
    assert result["operator_stats"] == result["operator_outputs"] == {}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("float('nan')", "output twice is nan, and should be a finite number or None"),
        ("10 ** 400", "output twice is inf"),
        ("np.zeros(2)", "output twice is no number, text, or list or dict of them"),
        ("[float('inf')]", "output twice is no number, text"),
        ("'\\ud800'", "output twice is no number, text"),
    ],
)
def test_a_value_that_cannot_be_stored_is_the_clips_error(
    tmp_path: Path, value: str, text: str
) -> None:
    stage = hosted(tmp_path, "\nimport numpy as np" + changed('2 * s["fps"]', value))
    assert text in blamed(stage)


def test_outputs_are_put_beside_those_of_the_operators_before(tmp_path: Path) -> None:
    before = {
        "operator_stats": {"first": 1.0, "twice": 5.0},
        "operator_outputs": {"tag": '"x"'},
        "operator_versions": {"first_op": "1.0"},
    }
    made = operator(tmp_path, WHOLE)
    result = run(stage_of(made, AVAILABLE), **before)
    assert result["operator_stats"] == {"first": 1.0, "twice": 5.0, "mine.twice": 20.0}
    assert result["operator_outputs"] == {"tag": '"x"'}
    assert result["operator_versions"] == {
        "first_op": "1.0",
        "my_stage.py:Mine": f"sha256:{hashlib.sha256(made.file.read_bytes()).hexdigest()}",
    }
    assert before["operator_stats"] == {"first": 1.0, "twice": 5.0}


def test_outputs_of_a_stage_before_are_inputs_of_the_next(tmp_path: Path) -> None:
    source = """
class Mine(Stage):
    name = "mine"
    def inputs(self): return ("speed", "tags", "missing")
    def outputs(self): return ("told",)
    def process(self, batch): return [{"told": list(s.values())} for s in batch]
"""
    stage = stage_of(operator(tmp_path, source), (*AVAILABLE, "speed", "tags", "missing"))
    result = run(stage, operator_stats={"speed": 2.5}, operator_outputs={"tags": '["a"]'})
    assert result["operator_outputs"]["told"] == '[2.5, ["a"], null]'


def test_its_model_is_written_beside_the_files_hash(tmp_path: Path) -> None:
    model = '    @property\n    def model(self): return ModelIdentity("clip", "abc")\n'
    versions = run(hosted(tmp_path, WHOLE + model))["operator_versions"]
    assert versions["my_stage.py:Mine"].endswith(", clip abc")


def test_an_error_of_its_code_comes_out_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        run(hosted(tmp_path, changed('2 * s["fps"]', "1 / 0")))
    with pytest.raises(DependencyFault, match="store is out"):
        run(hosted(tmp_path, changed("return [{", "raise DependencyFault('store is out'); [{")))


def test_leaving_the_process_is_an_error_and_not_its_end(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"it called sys.exit\(3\)"):
        run(hosted(tmp_path, "\nimport sys" + changed('2 * s["fps"]', "sys.exit(3)")))


def test_a_process_that_returns_nothing_says_what_it_should(tmp_path: Path) -> None:
    stage = hosted(tmp_path, changed("return [{", "[{"))
    with pytest.raises(ValueError, match="process returned NoneType; it returns a list with one"):
        run(stage)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            "OSError('no\\nweights')",
            r"stage mine \(my_stage.py:Mine\) cannot start: OSError: no we",
        ),
        ("SystemExit(1)", "cannot start: SystemExit: 1"),
        ("StageStartError('run make')", "^run make$"),
    ],
)
def test_a_setup_that_fails_ends_the_start_in_one_line(
    tmp_path: Path, error: str, text: str
) -> None:
    with pytest.raises(StageStartError, match=text) as caught:
        hosted(tmp_path, f"{WHOLE}    def setup(self): raise {error}\n")
    assert "\n" not in str(caught.value)


# The gate.


def gated(folder: Path, returned: str) -> HostedStage:
    return hosted(folder, f"{WHOLE}    def judge(self, scores): return {returned}\n")


def test_its_gate_sees_inputs_and_outputs_and_gives_the_reason(tmp_path: Path) -> None:
    stage = gated(tmp_path, "'too_fast' if scores == {'fps': 10.0, 'twice': 20.0} else None")
    assert stage.has_gate
    for fps, reason in ((10.0, "too_fast"), (11.0, None)):
        sample = {"fps": fps, "caption": "unseen"}
        (result,) = stage.run([sample])
        assert stage.rejects({**sample, **result}) == reason
        row = {"fps": fps, **{column: result[column] for column in stage.outputs()}}
        assert stage.verdict(row) == reason
        # As a table's reader gives a map.
        row["operator_stats"] = list(row["operator_stats"].items())
        assert stage.verdict(row) == reason


def test_a_row_is_judged_by_the_stages_own_output_where_two_have_its_name(tmp_path: Path) -> None:
    stage = gated(tmp_path, "None if scores['twice'] == 20 else 'other'")
    row = run(stage, operator_stats={"twice": 5.0})
    assert stage.verdict({"fps": 10.0, **row}) is None


def test_a_stage_may_only_judge(tmp_path: Path) -> None:
    source = changed('("twice",)', "()").replace('{"twice": 2 * s["fps"]}', "{}")
    stage = hosted(tmp_path, source + "    def judge(self, scores): return 'no'\n")
    assert stage.rejects(run(stage)) == "no"


@pytest.mark.parametrize(
    ("returned", "text"),
    [
        ("False", "judge returned 'False', and should return None or a reason of letters"),
        ("'too fast'", "judge returned 'too fast', and should return None or a reason"),
        ("''", "judge returned ''"),
        ("'unsafe'", "judge returned 'unsafe', which is the reason of another gate"),
        ("scores['other']", "judge fails: KeyError: 'other'"),
        ("1 / 0", "judge fails: ZeroDivisionError: division by zero"),
        ("__import__('sys').exit(1)", "judge fails: SystemExit: 1"),
    ],
)
def test_nothing_passes_a_gate_that_gives_no_verdict(
    tmp_path: Path, returned: str, text: str
) -> None:
    assert text in blamed(gated(tmp_path, returned))
