"""Verdicts: DataJuicer's bounds, the recipe's order, and nothing passes unjudged."""

from __future__ import annotations

import pytest

from processors.gates import gate_of, gates_of
from schemas.operators import (
    AestheticsFilter,
    ExtractFrames,
    FrameQualityFilter,
    MotionScoreFilter,
    NsfwFilter,
    Operator,
)
from schemas.reasons import RejectReason
from schemas.recipe import load_recipe
from schemas.settings import CHECKOUT

QUALITY = {"sharpness": 50.0, "black_fraction": 0.2, "overexposed_fraction": 0.1}


def verdict(operator: Operator, **scores: float | None) -> RejectReason | None:
    gate = gate_of(operator)
    assert gate is not None
    return gate.verdict(scores)


@pytest.mark.parametrize(
    ("score", "expected"),
    [(0.0, None), (0.5, None), (0.5000001, RejectReason.UNSAFE), (1.0, RejectReason.UNSAFE)],
)
def test_safety_passes_up_to_its_threshold(score: float, expected: RejectReason | None) -> None:
    assert verdict(NsfwFilter(max_score=0.5), nsfw_score=score) is expected


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (-1.0, RejectReason.LOW_MOTION),
        (0.2499, RejectReason.LOW_MOTION),
        (0.25, None),
        (9.0, None),
        (9.1, RejectReason.HIGH_MOTION),
    ],
)
def test_motion_passes_between_both_bounds(score: float, expected: RejectReason | None) -> None:
    gate = MotionScoreFilter(min_score=0.25, max_score=9.0)
    assert verdict(gate, motion_score=score) is expected


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (0.39, RejectReason.LOW_AESTHETICS),
        (0.4, None),
        (1.0, None),
        (1.01, RejectReason.HIGH_AESTHETICS),
    ],
)
def test_aesthetics_passes_between_both_bounds(score: float, expected: RejectReason | None) -> None:
    assert verdict(AestheticsFilter(), aesthetics_score=score) is expected


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ({}, None),
        ({"min_sharpness": 50.0}, None),
        ({"min_sharpness": 50.1}, RejectReason.LOW_QUALITY),
        ({"max_black_fraction": 0.2}, None),
        ({"max_black_fraction": 0.19}, RejectReason.LOW_QUALITY),
        ({"max_overexposed_fraction": 0.1}, None),
        ({"max_overexposed_fraction": 0.09}, RejectReason.LOW_QUALITY),
    ],
)
def test_quality_is_a_gate_only_by_its_limits(
    limit: dict[str, float], expected: RejectReason | None
) -> None:
    assert verdict(FrameQualityFilter(**limit), **QUALITY) is expected


@pytest.mark.parametrize("score", [None, float("nan")])
def test_nothing_passes_without_a_score(score: float | None) -> None:
    with pytest.raises(ValueError, match="gate safety: nsfw_score is"):
        verdict(NsfwFilter(), nsfw_score=score)


def test_a_score_that_is_not_there_does_not_pass() -> None:
    with pytest.raises(ValueError, match="motion_score is None"):
        verdict(MotionScoreFilter())


def test_frames_are_no_gate() -> None:
    assert gate_of(ExtractFrames()) is None


def test_gates_stand_in_the_recipes_order() -> None:
    recipe = load_recipe(CHECKOUT / "recipes" / "article.yaml")
    assert [gate.stage for gate in gates_of(recipe)] == ["safety", "motion", "aesthetics"]
