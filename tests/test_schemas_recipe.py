"""What a recipe says is what happens: everything else in it is refused, with the nearest name."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.operators import (
    DEFAULT_SCORER,
    OPERATORS,
    AestheticsFilter,
    CaptionFromVideo,
    MotionScoreFilter,
    NsfwFilter,
)
from schemas.problems import ConfigError
from schemas.recipe import dump_recipe, load_recipe, parse_recipe, read_dumped
from schemas.settings import CHECKOUT

SPLIT = "process:\n  - video_split_by_scene_mapper\n"


def parse(text: str):  # type: ignore[no-untyped-def]
    return parse_recipe(text, where="r.yaml", default_name="r")


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert str(caught.value).startswith("r.yaml")
    return str(caught.value)


def test_the_article_s_chain_has_its_operators_thresholds_and_checkpoints() -> None:
    recipe = load_recipe(CHECKOUT / "recipes" / "article.yaml")
    assert (recipe.split.threshold, recipe.split.min_scene_len) == (27.0, 15)
    assert (recipe.duration.min_duration, recipe.duration.max_duration) == (2, 60)
    assert [o.stage for o in recipe.operators] == [
        "frames",
        "safety",
        "motion",
        "aesthetics",
        "caption",
    ]
    safety, motion, aesthetics, caption = recipe.operators[1:]
    assert isinstance(safety, NsfwFilter)
    assert isinstance(motion, MotionScoreFilter)
    assert isinstance(aesthetics, AestheticsFilter)
    assert isinstance(caption, CaptionFromVideo)
    assert safety.hf_nsfw_model == "Falconsai/nsfw_image_detection"
    assert (safety.min_score, safety.max_score) == (0.0, 0.5)
    assert motion.min_score == 0.25
    assert (
        aesthetics.hf_scorer_model
        == "shunk031/aesthetics-predictor-v2-sac-logos-ava1-l14-linearMSE"
    )
    assert (aesthetics.min_score, aesthetics.max_score) == (0.4, 1.0)
    assert caption.hf_video_blip == "kpyu/video-blip-opt-2.7b-ego4d"


def test_the_laptop_recipe_cuts_and_filters_as_the_article_s_does() -> None:
    laptop = load_recipe(CHECKOUT / "recipes" / "laptop.yaml")
    article = load_recipe(CHECKOUT / "recipes" / "article.yaml")
    assert laptop.split == article.split
    assert laptop.split_fingerprint == article.split_fingerprint
    assert laptop.duration == article.duration
    assert [o.stage for o in laptop.operators] == ["frames", "safety", "motion"]


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_an_operator_runs_with_its_defaults(name: str) -> None:
    following = "" if name == "video_split_by_scene_mapper" else f"  - {name}: {{}}\n"
    recipe = parse(SPLIT + following)
    assert recipe.name == "r"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- a", "mapping"),
        ("process: [", "not YAML"),
        ("proces: []", "did you mean 'process'?"),
        ("process: []", "first operator should be video_split_by_scene_mapper"),
        ("process:\n  - video_nsfw_filter", "first operator should be"),
        (SPLIT + "  - video_nswf_filter", "did you mean 'video_nsfw_filter'?"),
        (SPLIT + "  - my_stage.py:", "write a stage of your own as my_stage.py:ClassName"),
        ("process: [\n a: b: c", "got ':' (line 2, column 6)"),
        (SPLIT + "  - my_own_thing", "unknown operator 'my_own_thing', here and in DataJuicer"),
        (SPLIT + "  - video_nsfw_filter: {max_scor: 1}", "did you mean 'max_score'?"),
        (SPLIT + "  - video_nsfw_filter: {max_score: high}", "max_score"),
        (SPLIT + "  - video_nsfw_filter: {max_score: .nan}", "max_score"),
        (SPLIT + "  - video_nsfw_filter: {min_score: .nan}", "min_score"),
        (SPLIT + "  - video_nsfw_filter: {min_score: 0.9}", "nothing could pass"),
        (SPLIT + "  - video_nsfw_filter: {trust_remote_code: true}", "trust_remote_code"),
        (SPLIT + "  - video_nsfw_filter: {max_score: 0.5, max_score: 5}", "there twice"),
        (SPLIT + "  - video_nsfw_filter\n  - video_nsfw_filter", "there twice"),
        (SPLIT + "  - video_nsfw_filter\n  - video_duration_filter", "should follow"),
        (SPLIT + "  - video_duration_filter: {min_duration: 9, max_duration: 2}", "nothing could"),
        (SPLIT + "  - {video_nsfw_filter: {}, video_motion_score_filter: {}}", "one operator"),
        (SPLIT + "skip_op_error: true", "skip_op_error"),
        (SPLIT + "process: []", "there twice"),
        ("process:\n  - video_split_by_scene_mapper: {detector: AdaptiveDetector}", "detector"),
        ("[" * 5000, "not YAML"),
        ("a: \x00", "not YAML"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_way_out(text: str, says: str) -> None:
    assert says in refused(text)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.yaml"):
        load_recipe(tmp_path / "gone.yaml")


def test_a_threshold_changes_the_verdicts_fingerprint_and_no_other() -> None:
    loose = parse(SPLIT + "  - video_nsfw_filter: {max_score: 0.9}")
    tight = parse(SPLIT + "  - video_nsfw_filter: {max_score: 0.1}")
    assert loose.gates_fingerprint != tight.gates_fingerprint
    assert loose.scores_fingerprint == tight.scores_fingerprint
    assert loose.split_fingerprint == tight.split_fingerprint


def test_a_model_or_its_sampling_changes_the_scores_fingerprint() -> None:
    uniform = "frame_sampling_method: uniform"
    texts = [
        *("{}", "{hf_nsfw_model: other/model}", "{reduce_mode: max}"),
        *(f"{{{uniform}}}", f"{{{uniform}, frame_num: 5}}"),
    ]
    assert len({scores(f"video_nsfw_filter: {text}") for text in texts}) == len(texts)


EXTRACT = "video_extract_frames_mapper: {frame_sampling_method: uniform%s}"


@pytest.mark.parametrize(
    "alike",
    [
        [[EXTRACT % more] for more in ("", ", output_format: path", ", frame_field: mine")],
        [
            [
                EXTRACT % f", frame_field: {name}",
                f"video_nsfw_filter: {{frame_field: {own}}}",
            ]
            for name, own in (("a", "a"), ("b", "b"), ("b", "b, frame_sampling_method: uniform"))
        ],
        [["video_nsfw_filter: {frame_num: 7}"], ["video_nsfw_filter"]],
        [["video_extract_frames_mapper: {frame_num: 7}"], ["video_extract_frames_mapper"]],
        [
            [f"video_nsfw_filter: {{engine: open_nsfw_onnx{more}}}"]
            for more in ("", ", hf_nsfw_model: other/model")
        ],
        [
            [f"video_aesthetics_filter: {{hf_scorer_model: {model}}}"]
            for model in ("''", DEFAULT_SCORER)
        ],
        [
            [f"video_captioning_from_video_mapper{more}"]
            for more in ("", ": {caption_num: 3}", ": {frame_num: 7}")
        ],
    ],
)
def test_what_nothing_looks_at_changes_no_scores_fingerprint(alike: list[list[str]]) -> None:
    assert len({scores(*operators) for operators in alike}) == 1


def test_frames_that_were_extracted_are_others_than_an_operators_own() -> None:
    extract = "video_extract_frames_mapper"
    asked = ["", ": {frame_field: video_frames}", ": {frame_field: video_frames, frame_num: 2}"]
    assert len({scores(extract, f"video_nsfw_filter{more}") for more in asked}) == 3


def test_compat_changes_scores_only_where_a_model_of_the_hub_is_asked() -> None:
    for operators, prints in ((["video_nsfw_filter"], 2), (["video_motion_score_filter"], 1)):
        found = {scores(*operators, head=f"compat: {c}\n") for c in ("dj", "fixed")}
        assert len(found) == prints


def scores(*operators: str, head: str = "") -> str:
    lines = "\n".join(f"  - {operator}" for operator in operators)
    found: str = parse(head + SPLIT + lines).scores_fingerprint
    return found


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1: x\na: y\nprocess: []", "unknown key '1'"),
        (SPLIT + "  - {1: x, a: y}", "process.1"),
        (SPLIT + "  - video_nsfw_filter: {1: x, a: y}", "process.1"),
        (SPLIT + "  - video_watermark_filter: {model_params: {1: x}}", "model_params"),
        (SPLIT + "  - llm_condition_filter: {model_params: {1: x, a: y}}", "has the key 1"),
        (
            SPLIT + "  - llm_condition_filter: {model_params: {a: &a [*a]}}",
            "model_params is nested",
        ),
        (SPLIT + "  - '~nobody-of-this-name/x.py:Stage'", "cannot be found"),
        (SPLIT + '  - "a\\0.py:Stage"', "process[1]"),
        ("process: 2026-13-45", "month must be"),
        (f"process: 1{'0' * 5000}", "not YAML that can be read"),
        (SPLIT + f"  - video_nsfw_filter: {{frame_num: 0x{'f' * 5000}}}", "frame_num should be"),
    ],
)
def test_keys_of_other_kinds_and_odd_paths_are_a_line_like_all_else(text: str, says: str) -> None:
    assert says in refused(text)


def test_a_recipe_in_the_home_of_nobody_cannot_be_read() -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_recipe("~nobody-of-this-name/recipe.yaml")


def test_durations_are_a_gate_and_the_split_is_of_its_own() -> None:
    short = parse(SPLIT + "  - video_duration_filter: {min_duration: 1}")
    long = parse(SPLIT + "  - video_duration_filter: {min_duration: 2}")
    assert short.gates_fingerprint != long.gates_fingerprint
    assert short.scores_fingerprint == long.scores_fingerprint
    other = parse("process:\n  - video_split_by_scene_mapper: {threshold: 30}")
    assert other.split_fingerprint != short.split_fingerprint


def test_a_recipe_reaches_another_process_as_it_is() -> None:
    text = """
project_name: "caf\\u00e9 \\U0001F3AC"
process:
  - video_split_by_scene_mapper
  - video_motion_score_filter: {min_score: 0.00001, max_score: 1.0e+16}
  - video_captioning_from_video_mapper: {prompt: "\\U0001F3AC what is shown?"}
"""
    recipe = parse_recipe(text, where="r.yaml", default_name="r")
    again = read_dumped(dump_recipe(recipe))
    assert again == recipe
    assert again.scores_fingerprint == recipe.scores_fingerprint
    assert again.gates_fingerprint == recipe.gates_fingerprint
