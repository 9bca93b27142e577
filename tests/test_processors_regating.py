"""A verdict from stored scores is the one that scoring again would give, or none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from processors.errors import MediaError
from processors.planning import custom_stages
from processors.regating import Undecided, Verdict, regated, verdict_of
from processors.results import duration_rejected, failed, passed, rejected
from schemas.reasons import MediaReason, RejectReason
from schemas.recipe import Recipe, parse_recipe
from tests import pool_lake

OCR = "video_ocr_area_ratio_filter"
ALL = {
    "frame_count": 3,
    "nsfw_score": 0.1,
    "motion_score": 1.0,
    "aesthetics_score": 0.6,
    "caption": "a cat",
    "frames_seq": 7,
}
UNTIL_SAFETY = {"frame_count": 3, "nsfw_score": 0.4, "motion_score": 1.0}


def recipe(
    *, nsfw: float = 0.5, motion: float = 0.25, durations: str = "{}", head: str = ""
) -> Recipe:
    return parse(
        f"video_duration_filter: {durations}",
        "video_extract_frames_mapper",
        f"video_nsfw_filter: {{max_score: {nsfw}}}",
        f"video_motion_score_filter: {{min_score: {motion}}}",
        "video_captioning_from_video_mapper",
        "video_aesthetics_filter",
        head=head,
    )


def parse(*operators: str, head: str = "") -> Recipe:
    lines = [head, "process:", "  - video_split_by_scene_mapper", *(f"  - {o}" for o in operators)]
    return parse_recipe("\n".join(lines), where="test", default_name="test")


def kept(**changes: Any) -> dict[str, Any]:
    return passed(pool_lake.clip(0), recipe(), {**ALL, **changes}).enriched


def dropped(reason: str, scores: dict[str, Any], **clip: Any) -> dict[str, Any]:
    return rejected(pool_lake.clip(0, **clip), recipe(), reason, scores).enriched


def judge(row: dict[str, Any], wanted: Recipe) -> Verdict | Undecided:
    return verdict_of(row, wanted, custom_stages(wanted))


def test_thresholds_judge_the_stored_scores_in_the_recipes_order() -> None:
    row = kept()
    assert judge(row, recipe()) == Verdict(None)
    assert judge(row, recipe(nsfw=0.05)) == Verdict("unsafe")
    assert judge(row, recipe(motion=2)) == Verdict("low_motion")
    assert judge(row, recipe(nsfw=0.05, motion=2)) == Verdict("unsafe")
    assert judge(row, recipe(durations="{max_duration: 1}")) == Verdict("too_long")


def test_a_clip_that_a_gate_stopped_has_no_verdict_beyond_what_was_measured() -> None:
    row = dropped(RejectReason.UNSAFE, UNTIL_SAFETY)
    assert judge(row, recipe(nsfw=0.3)) == Verdict("unsafe")
    # Motion is measured while decoding, so it can still reject.
    assert judge(row, recipe(motion=9)) == Verdict("low_motion")
    assert judge(row, recipe()) is Undecided.NEEDS_SCORING


def test_a_score_that_no_gate_looks_at_must_be_there_before_a_clip_is_kept() -> None:
    without = dropped(RejectReason.LOW_MOTION, {**ALL, "caption": None})
    assert judge(without, recipe()) is Undecided.NEEDS_SCORING
    assert judge(dropped(RejectReason.LOW_MOTION, ALL), recipe()) == Verdict(None)


def test_a_clip_that_was_of_the_wrong_length_was_never_decoded() -> None:
    row = duration_rejected(
        pool_lake.clip(0, duration_s=3.0), recipe(durations="{min_duration: 5}")
    ).enriched
    assert not row["duration_ok"]
    assert judge(row, recipe()) is Undecided.NEEDS_SCORING
    assert judge(row, parse()) is Undecided.NEEDS_SCORING
    assert judge(row, recipe(durations="{min_duration: 4}")) == Verdict("too_short")


def test_a_failed_clip_has_no_verdict() -> None:
    error = MediaError(MediaReason.DECODE_ERROR, "it is broken", stage="decode")
    row = failed(pool_lake.clip(0), recipe(), error).enriched
    assert judge(row, recipe(durations="{min_duration: 9}")) is Undecided.FAILED


def test_a_clip_is_not_kept_without_the_frames_that_kept_clips_have() -> None:
    row = dropped(RejectReason.UNSAFE, {**ALL, "frames_seq": None})
    assert judge(row, recipe()) is Undecided.NEEDS_SCORING
    assert judge(row, recipe(head="store_frames: false")) == Verdict(None)


def test_rows_that_were_scored_after_their_rejection_can_be_kept() -> None:
    row = dropped(RejectReason.UNSAFE, {**ALL, "nsfw_score": 0.45})
    assert judge(row, recipe(head="score_rejected: true")) == Verdict(None)


def test_what_is_written_is_the_row_with_another_verdict() -> None:
    row, stricter = kept(), recipe(motion=2)
    new = regated(row, Verdict("low_motion"), stricter)
    changed = {name for name in row if new[name] != row[name]}
    assert changed == {"status", "kept", "reject_reason", "gates_fingerprint"}
    assert (new["status"], new["kept"]) == ("rejected", False)
    again = regated(new, Verdict(None), recipe())
    assert again == row


def test_frames_of_a_clip_that_is_unsafe_now_are_not_to_be_found() -> None:
    assert regated(kept(), Verdict("unsafe"), recipe(nsfw=0.05))["frames_seq"] is None
    told = recipe(nsfw=0.05, head="store_unsafe_frames: true")
    assert regated(kept(), Verdict("unsafe"), told)["frames_seq"] == 7


@pytest.mark.parametrize(
    ("verdict", "nsfw", "stays"),
    [
        ("low_motion", 0.1, True),
        ("low_motion", 0.6, False),
        ("low_motion", None, False),
        ("too_long", 0.6, False),
    ],
)
def test_frames_of_a_clip_that_safety_would_not_pass_are_not_to_be_found_whatever_rejects_it(
    verdict: str, nsfw: float | None, stays: bool
) -> None:
    row = kept(nsfw_score=nsfw)
    assert regated(row, Verdict(verdict), recipe())["frames_seq"] == (7 if stays else None)
    told = recipe(head="store_unsafe_frames: true")
    assert regated(row, Verdict(verdict), told)["frames_seq"] == 7
    unguarded = parse("video_extract_frames_mapper", "video_motion_score_filter")
    assert regated(row, Verdict(verdict), unguarded)["frames_seq"] == 7


def test_a_length_that_is_wrong_now_says_so() -> None:
    assert regated(kept(), Verdict("too_long"), recipe())["duration_ok"] is False


@pytest.mark.parametrize(
    ("parameters", "value", "passes"),
    [
        ("{max_area_ratio: 0.5}", 0.5, True),
        ("{max_area_ratio: 0.5, max_closed_interval: false}", 0.5, False),
        ("{min_area_ratio: 0.5}", 0.5, True),
        ("{min_area_ratio: 0.5, min_closed_interval: false}", 0.5, False),
        ("{min_area_ratio: 0.2, max_area_ratio: 0.4, reversed_range: true}", 0.3, False),
        ("{min_area_ratio: 0.2, max_area_ratio: 0.4, reversed_range: true}", 0.5, True),
        # Reversing opens a closed bound, so the bound itself passes.
        ("{min_area_ratio: 0.2, max_area_ratio: 0.4, reversed_range: true}", 0.4, True),
        ("{}", None, None),
        ("{}", float("nan"), None),
    ],
)
def test_ranges_of_datajuicers_filters_are_judged_as_it_judges_them(
    parameters: str, value: float | None, passes: bool | None
) -> None:
    wanted = parse(f"{OCR}: {parameters}")
    stats = {} if value is None else {"video_ocr_area_ratio": value}
    row = passed(pool_lake.clip(0), wanted, {"frame_count": 1, "operator_stats": stats}).enriched
    expected = {None: Undecided.NEEDS_SCORING, True: Verdict(None), False: Verdict(OCR)}
    assert judge(row, wanted) == expected[passes]


def test_a_filter_whose_verdict_is_no_range_has_to_run_again() -> None:
    wanted = parse("video_tagging_from_frames_filter: {tags: [cat]}")
    row = passed(pool_lake.clip(0), wanted, {"frame_count": 1}).enriched
    assert judge(row, wanted) is Undecided.NEEDS_SCORING
    early = {**row, "duration_s": 1.0}
    strict = parse("video_duration_filter: {min_duration: 2}", "video_tagging_from_frames_filter")
    assert judge(early, strict) == Verdict("too_short")


def test_what_was_found_for_many_pictures_is_not_judged_by_their_mean() -> None:
    wanted = parse("image_size_filter")
    scores = {"frame_count": 2, "operator_stats": {"image_sizes": 9e9}}
    row = passed(pool_lake.clip(0), wanted, scores).enriched
    assert judge(row, wanted) is Undecided.NEEDS_SCORING


MINE = """
from processors.stage import Stage
class Mine(Stage):
    name = "mine"
    def inputs(self): return ("fps",)
    def outputs(self): return ("twice",)
    def process(self, batch): return [{"twice": 2 * s["fps"]} for s in batch]
    def judge(self, scores): return "slow" if scores["twice"] < 40 else None
"""


def test_a_gate_of_the_users_own_is_asked_about_what_its_stage_gave(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    wanted = parse(f"{tmp_path}/mine.py:Mine")
    stages = custom_stages(wanted)
    given = {"operator_stats": {"twice": 30.0}, "operator_versions": {"mine.py:Mine": "sha256:…"}}
    clip = pool_lake.clip(0, fps=15.0)
    measured = rejected(clip, wanted, "too_short", {"frame_count": 1, **given}).enriched
    assert verdict_of(measured, wanted, stages) == Verdict("slow")
    fast = {**measured, "operator_stats": {"twice": 50.0}}
    assert verdict_of(fast, wanted, stages) == Verdict(None)
    never = rejected(clip, wanted, "too_short", {"frame_count": 1}).enriched
    assert verdict_of(never, wanted, stages) is Undecided.NEEDS_SCORING


CLEANED = "clean_email_mapper"


def with_own_gate(folder: Path, column: str, judge: str) -> Recipe:
    """A gate of the user's own by a column, and after it a mapper that may rewrite captions."""
    head, _ = MINE.replace('("fps",)', f'("{column}",)').split("    def judge")
    source = head.replace('2 * s["fps"]', "1.0") + f"    def judge(self, scores): return {judge}\n"
    (folder / "mine.py").write_text(source)
    mine = f"{folder}/mine.py:Mine"
    return parse("video_captioning_from_video_mapper", mine, CLEANED)


def by_own_gate(wanted: Recipe, reason: str | None, *ran: str, **clip: Any) -> Verdict | Undecided:
    scores = {
        "frame_count": 3,
        "caption": "a cat",
        "operator_stats": {"twice": 1.0},
        "operator_versions": dict.fromkeys(("mine.py:Mine", *ran), "1"),
    }
    row = pool_lake.clip(0, **clip)
    result = (
        passed(row, wanted, scores) if reason is None else rejected(row, wanted, reason, scores)
    )
    return judge(result.enriched, wanted)


def test_a_gate_is_not_asked_about_a_caption_that_was_written_after_it(tmp_path: Path) -> None:
    wanted = with_own_gate(tmp_path, "caption", "'cat' if 'cat' in scores['caption'] else None")
    assert by_own_gate(wanted, None, CLEANED) is Undecided.NEEDS_SCORING
    # It was rejected before the mapper ran: the row has the caption that the gate saw.
    assert by_own_gate(wanted, "too_long") == Verdict("cat")


def test_a_gate_that_looks_at_no_caption_does_not_care_who_writes_it(tmp_path: Path) -> None:
    wanted = with_own_gate(tmp_path, "fps", "'fast' if scores['fps'] > 20 else None")
    assert by_own_gate(wanted, None, CLEANED, fps=15.0) == Verdict(None)
    assert by_own_gate(wanted, None, CLEANED, fps=25.0) == Verdict("fast")


def test_a_gate_that_looks_at_the_length_is_told_of_this_recipes_filter(tmp_path: Path) -> None:
    wanted = with_own_gate(tmp_path, "duration_ok", "None if scores['duration_ok'] else 'length'")
    # The recipe that judged the row last had a filter which this length did not pass.
    assert by_own_gate(wanted, "too_long", CLEANED) == Verdict(None)
