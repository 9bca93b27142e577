"""Stages of the user's own at work: what they see, where outputs go, what their gate says."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from processors.custom import stage_of
from processors.custom_host import HostedStage
from processors.errors import DependencyFault, MediaError, StageStartError
from processors.stage import FileRequest, Resources
from tests.own_stage import (
    AVAILABLE,
    WHOLE,
    blamed,
    changed,
    framed,
    hosted,
    operator,
    run,
)

# Running.


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


def test_how_long_a_clip_may_take_is_asked_when_it_is_set_up(tmp_path: Path) -> None:
    limit = "    def setup(self): self.limit = 300\n    def longest_s(self): return self.limit\n"
    assert hosted(tmp_path, WHOLE + limit).longest_s() == 300
    assert hosted(tmp_path, WHOLE).longest_s() == 0


@pytest.mark.parametrize("value", ["'long'", "-1", "float('inf')", "None"])
def test_a_limit_that_is_no_time_ends_the_start(tmp_path: Path, value: str) -> None:
    with pytest.raises(StageStartError, match=r"my_stage.py:Mine\) cannot start: longest_s\(\) r"):
        hosted(tmp_path, f"{WHOLE}    def longest_s(self): return {value}\n")
