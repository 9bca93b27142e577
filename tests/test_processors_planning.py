"""From a recipe to stages and one decoding pass; nothing is left out silently."""

from __future__ import annotations

from processors.frames import FrameSampling
from processors.motion import MotionParameters
from processors.planning import decode_plan, stages_of
from processors.safety import FRAMES_COLUMN
from schemas.operators import OPERATORS
from schemas.recipe import Recipe, parse_recipe
from schemas.settings import load_settings

SETTINGS = load_settings()


def recipe(*operators: str, head: str = "") -> Recipe:
    lines = [head, "process:", "  - video_split_by_scene_mapper"]
    lines += [f"  - {operator}" for operator in operators]
    return parse_recipe("\n".join(lines), where="test", default_name="test")


def plan_of(wanted: Recipe):  # type: ignore[no-untyped-def]
    return decode_plan(wanted, list(stages_of(wanted, SETTINGS).values()))


def test_every_operator_contributes_what_it_needs() -> None:
    plan = plan_of(
        recipe(
            "video_extract_frames_mapper: {frame_sampling_method: uniform, frame_num: 5}",
            "video_nsfw_filter: {engine: open_nsfw_onnx}",
            "video_motion_score_filter: {sampling_fps: 4, size: 200, relative: true}",
        )
    )
    assert plan.frames == FrameSampling("uniform", 5)
    assert plan.jpeg
    (request,) = plan.requests
    assert (request.column, request.sampling.method) == (FRAMES_COLUMN, "all_keyframes")
    assert plan.motion == MotionParameters(sampling_fps=4, size=200, relative=True)


def test_no_other_operator_decides_on_which_frames_quality_is_measured() -> None:
    plan = plan_of(
        recipe(
            "video_nsfw_filter: "
            "{engine: open_nsfw_onnx, frame_sampling_method: uniform, frame_num: 4}"
        )
    )
    assert plan.frames == FrameSampling("all_keyframes")
    assert [request.sampling for request in plan.requests] == [FrameSampling("uniform", 4)]
    assert not plan.jpeg
    assert plan.motion is None


def test_quality_is_measured_even_if_nothing_else_is() -> None:
    plan = plan_of(recipe())
    assert plan.frames == FrameSampling("all_keyframes")
    assert plan.requests == ()


def test_frames_that_are_not_stored_are_not_encoded() -> None:
    wanted = recipe("video_extract_frames_mapper", head="store_frames: false")
    assert not plan_of(wanted).jpeg


def test_a_stage_may_look_at_the_frames_that_were_extracted() -> None:
    wanted = recipe(
        "video_extract_frames_mapper: "
        "{frame_sampling_method: uniform, frame_num: 7, frame_field: sampled}",
        "video_nsfw_filter: {engine: open_nsfw_onnx, frame_field: sampled, frame_num: 3}",
    )
    (request,) = plan_of(wanted).requests
    assert request.sampling == FrameSampling("uniform", 7, at_most=3)
    assert request.sampling.chosen(7) == [0, 3, 6]
    assert request.sampling.chosen(2) == [0, 1]


def test_every_operator_that_a_recipe_may_name_is_run() -> None:
    for name in sorted(OPERATORS.keys() - {"video_split_by_scene_mapper"}):
        assert name in stages_of(recipe(name), SETTINGS) or name in {
            "video_duration_filter",
            "video_extract_frames_mapper",
            "video_motion_score_filter",
            "cliplake_frame_quality_filter",
        }


def test_an_operator_of_datajuicer_may_be_tried_twice_and_its_process_start_for_each() -> None:
    settings = load_settings(pool={"operator_timeout_s": 100, "actor_start_timeout_s": 70})
    stages = stages_of(
        recipe("video_nsfw_filter: {engine: open_nsfw_onnx}", "image_size_filter"), settings
    )
    assert [stage.longest_s() for stage in stages.values()] == [0, 2 * (100 + 70)]
