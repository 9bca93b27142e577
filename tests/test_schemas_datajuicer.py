"""DataJuicer's recipes as they are: read by signature, refused by reason, nothing run."""

from __future__ import annotations

import pytest

from schemas.datajuicer import signatures
from schemas.operators import OPERATORS, DataJuicerOperator
from schemas.problems import ConfigError
from schemas.recipe import Recipe, dump_recipe, parse_recipe
from schemas.recipe_keys import REFUSED, WITHOUT_EFFECT

SPLIT = "process:\n  - video_split_by_scene_mapper\n"
OCR = "video_ocr_area_ratio_filter"

DEMO = """
project_name: 'demo-process'
dataset_path: './demos/process_video_on_ray/data/demo-dataset.jsonl'
export_path: './outputs/demo/demo-processed'
np: 4
text_keys: 'text'
video_key: 'videos'
executor_type: 'ray'
ray_address: 'auto'
open_tracer: true
use_cache: false
ds_cache_dir: null
op_fusion: false
skip_op_error: false
process:
  - video_split_by_scene_mapper:
      detector: 'ContentDetector'
      threshold: 27.0
      min_scene_len: 15
      show_progress: true
      save_dir: './clips'
  - video_duration_filter:
      min_duration: 2
      max_duration: 60
      video_backend: 'ffmpeg'
  - video_extract_frames_mapper:
      frame_sampling_method: 'uniform'
      frame_num: 5
      duration: 0
      frame_dir: './frames'
      frame_field: 'video_frames'
  - video_nsfw_filter:
      hf_nsfw_model: 'Falconsai/nsfw_image_detection'
      max_score: 0.5
      frame_field: 'video_frames'
      num_proc: 2
      min_closed_interval: true
  - video_resolution_filter:
      min_width: 640
      max_width: 4096
      any_or_all: 'any'
      accelerator: 'cuda'
  - video_tagging_from_frames_mapper:
      frame_num: 3
  - video_captioning_from_video_mapper:
      keep_original_sample: false
      caption_num: 1
"""


def parse(text: str) -> Recipe:
    return parse_recipe(text, where="r.yaml", default_name="r")


def last(entry: str, before: str = "") -> DataJuicerOperator:
    operator = parse(SPLIT + before + f"  - {entry}").operators[-1]
    assert isinstance(operator, DataJuicerOperator)
    return operator


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert str(caught.value).startswith("r.yaml")
    return str(caught.value)


def test_a_recipe_of_datajuicer_is_read_as_it_is() -> None:
    recipe = parse(DEMO)
    assert recipe.name == "demo-process"
    assert [o.op for o in recipe.operators] == [
        "video_extract_frames_mapper",
        "video_nsfw_filter",
        "video_resolution_filter",
        "video_tagging_from_frames_mapper",
        "video_captioning_from_video_mapper",
    ]
    assert recipe.split_fingerprint == parse(SPLIT).split_fingerprint
    resolution, tagging = recipe.operators[2:4]
    assert isinstance(resolution, DataJuicerOperator)
    assert (resolution.kind, resolution.stage) == ("filter", "video_resolution_filter")
    # What has its default is left out: it is one value, written or not.
    assert resolution.parameters == {"min_width": 640, "max_width": 4096}
    assert isinstance(tagging, DataJuicerOperator)
    assert (tagging.kind, tagging.parameters) == ("mapper", {})


def test_what_means_nothing_in_a_stream_is_named_and_nothing_else_is() -> None:
    named = {warning.split(" has no effect")[0] for warning in parse(DEMO).warnings}
    assert named == {
        *("dataset_path", "export_path", "np", "executor_type", "ray_address"),
        *("open_tracer", "use_cache", "ds_cache_dir", "op_fusion"),
        "video_split_by_scene_mapper: show_progress",
        "video_split_by_scene_mapper: save_dir",
        "video_duration_filter: video_backend",
        "video_extract_frames_mapper: frame_dir",
        "video_nsfw_filter: num_proc",
        "video_resolution_filter: accelerator",
        "video_captioning_from_video_mapper: keep_original_sample",
    }


def test_a_recipe_with_other_operators_goes_to_another_process_unchanged() -> None:
    recipe = parse(DEMO)
    again = parse_recipe(dump_recipe(recipe), where="the driver's recipe", default_name="x")
    assert again == recipe
    assert again.scores_fingerprint == recipe.scores_fingerprint


def test_every_key_of_datajuicers_configuration_is_known() -> None:
    assert signatures().config_keys - {"process", "project_name"} == {*WITHOUT_EFFECT, *REFUSED}


@pytest.mark.parametrize("name", sorted(set(OPERATORS) & set(signatures().operators)))
def test_a_built_in_operator_knows_every_parameter_of_datajuicers(name: str) -> None:
    kind, theirs = OPERATORS[name], signatures().operators[name].parameters
    assert theirs.keys() <= {*kind.model_fields, *kind.without_effect, *kind.refused}
    differing = {
        parameter
        for parameter, field in kind.model_fields.items()
        if parameter in theirs and theirs[parameter].default != field.default
    }
    # Frames are always stored as JPEG; the path of a file would lead nowhere.
    assert differing <= {"output_format"}


def test_a_built_in_operator_has_no_reason_for_what_datajuicer_does_not_have() -> None:
    for name, kind in OPERATORS.items():
        if name in signatures().operators:
            theirs = {*signatures().operators[name].parameters, *signatures().base_parameters}
            assert {*kind.without_effect, *kind.refused} <= theirs


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (f"{OCR}x: {{}}", f"did you mean '{OCR}'?"),
        (f"{OCR}: {{min_area_ration: 0.1}}", "did you mean 'min_area_ratio'?"),
        (f"{OCR}: {{num_procs: 2}}", "did you mean 'num_proc'?"),
        (f"{OCR}: {{min_area_ratio: low}}", "min_area_ratio should be number (got 'low')"),
        (f"{OCR}: {{min_area_ratio: true}}", "min_area_ratio should be number"),
        (f"{OCR}: {{min_area_ratio: .nan}}", "min_area_ratio should be a finite number"),
        (f"{OCR}: {{min_area_ratio: 1{'0' * 400}}}", "min_area_ratio should be"),
        (f"{OCR}: {{frame_sample_num: 0}}", "frame_sample_num should be 1 or more"),
        (f"{OCR}: {{languages_to_detect: 2026-01-31}}", "languages_to_detect"),
        ("video_watermark_filter: {trust_remote_code: true}", "model's own code"),
        ("video_watermark_filter: {skip_op_error: true}", "skip_op_error: true is refused"),
        ("video_nsfw_filter: {skip_op_error: true}", "skip_op_error: true is refused"),
        ("video_nsfw_filter: {reversed_range: true}", "reversed_range cannot be True"),
        ("video_nsfw_filter: {text_kye: a}", "did you mean 'text_key'?"),
        ("video_extract_frames_mapper: {duration: 2}", "duration cannot be 2"),
        ("video_motion_score_filter: {winsize: 9}", "winsize cannot be 9"),
        ("text_length_filter", "reads the caption, and no operator before it writes one"),
        ("video_nsfw_filter: {frame_field: video_frames}", "video_extract_frames_mapper before"),
    ],
)
def test_what_would_not_happen_is_refused_with_the_nearest_name(entry: str, says: str) -> None:
    assert says in refused(SPLIT + f"  - {entry}")


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("video_deduplicator", "needs the whole data set"),
        ("random_selector", "needs the whole data set"),
        ("key_value_grouper", "needs the whole data set"),
        ("nested_aggregator", "groups of a grouper"),
        ("ray_repartition_pipeline", "Ray Data"),
        ("general_fused_op", "name the operators themselves"),
        ("text_embd_similarity_filter", "needs the whole data set"),
        ("text_chunk_mapper", "a clip is one row"),
        ("video_split_by_duration_mapper", "there is one cut"),
        ("video_resize_resolution_mapper", "nothing is encoded"),
        ("audio_duration_filter", "reads audio files"),
        *(
            (name, "listens to the sound")
            for name in (
                "video_active_speaker_detect_mapper",
                "video_audio_ASR_mapper",
                "video_audio_detect_age_gender_mapper",
                "video_audio_speech_emotion_mapper",
                "video_captioning_from_audio_mapper",
                "video_captioning_from_summarizer_mapper",
                "video_tagging_from_audio_mapper",
            )
        ),
        ("image_blur_mapper", "writes other images"),
        ("general_field_filter", "reads none of video, images and text"),
        ("python_lambda_mapper", "reads none of video, images and text"),
        ("python_file_mapper", "my_stage.py:MyStage"),
        ("video_split_by_scene_mapper", "a video is cut once"),
    ],
)
def test_what_cannot_run_on_a_stream_of_clips_is_refused_with_its_reason(
    entry: str, says: str
) -> None:
    assert says in refused(SPLIT + f"  - {entry}")


LLM = "  - video_captioning_from_video_mapper\n  - llm_condition_filter: "


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ("{model_params: {trust_remote_code: true}}", "model_params.trust_remote_code: true is"),
        ("{model_params: {a: [{trust_remote_code: 'yes'}]}}", "trust_remote_code: 'yes' is"),
        ("{model_params: {trust-remote-code: 1}}", "trust-remote-code: 1 is refused"),
        ("{sampling_params: {custom_generate: a/b}}", "model's own code is never run"),
        ("{enable_vllm: true}", "write enable_vllm: false"),
        ("{model_params: {api_key: sk-1}}", "model_params.api_key: keys and passwords"),
        ("{model_params: {default_headers: {a: b}}}", "default_headers: keys and passwords"),
        ("{model_params: {a: {Authorization: Bearer 1}}}", "CLIPLAKE_KEY_DATAJUICER"),
        ("{model_params: {token: 1}}", "model_params.token: keys and passwords"),
        ("{api_endpoint: 'https://me:1@example.org/'}", "api_endpoint: keys and passwords"),
    ],
)
def test_neither_a_models_code_nor_a_key_hides_in_a_parameter(parameters: str, says: str) -> None:
    assert says in refused(SPLIT + LLM + parameters)


@pytest.mark.parametrize("value", ["'yes'", "1", "0", "'false'", "[]"])
def test_what_is_true_for_a_library_is_not_taken_for_false(value: str) -> None:
    entry = f"  - video_watermark_filter: {{trust_remote_code: {value}}}"
    assert "trust_remote_code" in refused(SPLIT + entry)


def test_a_server_may_be_named_and_a_model_that_is_not_trusted() -> None:
    server = "base_url: 'http://localhost:8000/v1', trust_remote_code: false, max_tokens: 9"
    operator = parse(SPLIT + LLM + f"{{model_params: {{{server}}}}}").operators[-1]
    assert isinstance(operator, DataJuicerOperator)
    assert operator.parameters["model_params"]["max_tokens"] == 9
    # Names that only look like those of a secret.
    parse(SPLIT + LLM + "{sampling_params: {max_new_tokens: 5, stop_token_ids: [1]}}")


def test_a_mapper_of_texts_follows_what_writes_one() -> None:
    recipe = parse(
        SPLIT + "  - video_captioning_from_video_mapper\n  - clean_links_mapper\n"
        "  - text_length_filter"
    )
    assert len(recipe.operators) == 3
    early = "  - clean_links_mapper\n  - video_captioning_from_video_mapper"
    assert "put video_captioning_from_video_mapper before it" in refused(SPLIT + early)


def test_nothing_stands_before_the_split() -> None:
    before = "process:\n  - %s\n  - video_split_by_scene_mapper"
    assert "would judge whole videos" in refused(before % "video_resolution_filter")
    assert "would change the video before it is cut" in refused(
        before % "video_tagging_from_frames_mapper"
    )
    assert "nothing is encoded" in refused(before % "video_resize_resolution_mapper")


@pytest.mark.parametrize(
    ("head", "says"),
    [
        ("skip_op_error: true", "would drop clips without a word"),
        ("encrypt_before_export: true", "nothing would be encrypted"),
        ("custom_operator_paths: [a.py]", "my_stage.py:MyStage"),
        ("export_pth: x", "did you mean 'export_path'?"),
        ("1: x", "unknown key '1'"),
    ],
)
def test_a_key_whose_effect_would_be_missed_is_refused(head: str, says: str) -> None:
    assert says in refused(f"{head}\n{SPLIT}")


def test_thresholds_of_further_filters_are_gates_and_the_rest_are_scores() -> None:
    prints = [
        parse(SPLIT + f"  - {OCR}: {parameters}")
        for parameters in ("{}", "{max_area_ratio: 0.5}", "{reversed_range: true}")
    ]
    assert len({r.gates_fingerprint for r in prints}) == 3
    assert len({r.scores_fingerprint for r in prints}) == 1
    sampled = parse(SPLIT + f"  - {OCR}: {{frame_sample_num: 9}}")
    assert sampled.scores_fingerprint != prints[0].scores_fingerprint
    assert sampled.gates_fingerprint == prints[0].gates_fingerprint
    # The largest size of a frame is no threshold, whatever its name begins with.
    raft = last("video_motion_score_raft_filter: {max_size: 512, max_score: 9}")
    assert raft.score_parameters()["parameters"] == {"max_size": 512}
    assert raft.gates()["parameters"] == {"max_score": 9.0}


def test_a_value_that_is_written_otherwise_or_is_the_default_changes_no_fingerprint() -> None:
    texts = ["{}", "{min_area_ratio: 0}", "{min_area_ratio: 0.0, max_area_ratio: 1}"]
    recipes = [parse(SPLIT + f"  - {OCR}: {text}") for text in texts]
    assert len({r.gates_fingerprint for r in recipes}) == 1
    one, other = (
        parse(SPLIT + f"  - video_watermark_filter: {{prob_threshold: {t}}}") for t in ("1", "1.0")
    )
    assert one.gates_fingerprint == other.gates_fingerprint


def test_a_mapper_that_would_add_a_sample_gives_the_clip_its_one() -> None:
    captioner = "  - video_captioning_from_video_mapper\n"
    captions = last("video_captioning_from_frames_mapper: {frame_num: 5}", captioner)
    assert captions.parameters == {"frame_num": 5, "keep_original_sample": False}
    asked = parse(
        SPLIT + captioner + "  - video_captioning_from_frames_mapper: {keep_original_sample: true}"
    )
    assert asked.operators[1].entry() == {
        "video_captioning_from_frames_mapper": {"keep_original_sample": False}
    }
    assert "a clip has one row" in asked.warnings[0]


def test_the_ranges_that_make_a_verdict_are_known_by_statistic() -> None:
    operators = signatures().operators
    assert operators["video_resolution_filter"].bounds == (
        ("video_width", "min_width", "max_width"),
        ("video_height", "min_height", "max_height"),
    )
    assert operators["video_watermark_filter"].bounds == (
        ("video_watermark_prob", None, "prob_threshold"),
    )
    # Its verdict is more than ranges.
    assert operators["video_tagging_from_frames_filter"].bounds == ()
