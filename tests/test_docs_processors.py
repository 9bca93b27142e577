"""The stage that docs/processors.md shows: its code is run as it stands there, on real frames."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from clip_media import clip, span
from media import SAMPLES, sample

from processors.chain import EnrichmentChain
from processors.clip_decoder import ClipDecoder
from processors.clip_pass import DecodedClip, DecodePlan
from processors.custom import COLUMNS_OF_EVERY_CLIP, stage_of
from processors.custom_host import HostedStage
from processors.frames import FrameSampling
from processors.media.sandbox import Sandbox
from processors.stage import Resources, Sample
from schemas.operators import CustomStage
from schemas.reasons import ClipStatus
from schemas.recipe import Recipe, load_recipe
from schemas.settings import CHECKOUT, DecodeSettings, load_settings

PAGE = (CHECKOUT / "docs" / "processors.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    """The page's only code block in that language."""
    (text,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return text


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    folder = tmp_path_factory.mktemp("page")
    (folder / "my_stage.py").write_text(block("python"), encoding="utf-8")
    (folder / "recipe.yaml").write_text(block("yaml"), encoding="utf-8")
    return load_recipe(folder / "recipe.yaml")


@pytest.fixture(scope="module")
def operator(recipe: Recipe) -> CustomStage:
    (operator,) = recipe.operators
    assert isinstance(operator, CustomStage)
    return operator


@pytest.fixture(scope="module")
def stage(operator: CustomStage) -> HostedStage:
    stage = stage_of(operator, COLUMNS_OF_EVERY_CLIP)
    stage.setup()
    return stage


@pytest.fixture(scope="module")
def decoded(stage: HostedStage) -> dict[str, Sample]:
    """The frames that the stage asks for, of real clips."""
    request = stage.frames()
    assert request is not None
    found = {}
    with Sandbox(DecodeSettings()) as sandbox:
        decoder = ClipDecoder(sandbox, DecodePlan(FrameSampling(), requests=(request,)))
        for name in ("bigbuckbunny.mp4", "bikes.mp4", "carphone_pristine.mp4"):
            (clip,) = decoder.decode(str(sample(name)), [span(sample(name), 0, 30)])
            assert isinstance(clip, DecodedClip)
            found[name] = dict(clip.images)
    return found


def test_the_page_shows_a_whole_stage_in_as_many_lines_as_it_says() -> None:
    assert "A whole one\nhas 30 lines" in PAGE
    assert len(block("python").splitlines()) <= 30


def test_the_page_declares_what_it_says(stage: HostedStage) -> None:
    assert stage.name == "colourfulness"
    assert stage.resources == Resources(cpus=1)
    assert stage.batch_size == 48
    assert stage.gives == ("colourfulness",)
    assert stage.has_gate


def test_real_clips_are_scored_together_and_colour_is_what_is_scored(
    stage: HostedStage, decoded: dict[str, Sample]
) -> None:
    (column,) = stage.inputs()
    clips = list(decoded.values())
    assert all(clip[column].shape[0] == 3 for clip in clips)
    vivid = [_saturated(clip[column], 2.0) for clip in clips]
    dull = [_saturated(clip[column], 0.5) for clip in clips]
    pictures = [clip[column] for clip in clips]
    results = stage.run([{column: frames} for frames in (*dull, *pictures, *vivid)])
    scores = [result["operator_stats"]["colourfulness"] for result in results]
    for low, middle, high in zip(scores[:3], scores[3:6], scores[6:], strict=True):
        assert 0 < low < middle < high


def test_its_gate_lets_a_colourful_clip_pass_and_rejects_a_grey_one(
    stage: HostedStage, decoded: dict[str, Sample]
) -> None:
    (column,) = stage.inputs()
    frames = decoded["bigbuckbunny.mp4"][column]
    samples = [{column: _saturated(frames, 2.0)}, {column: _saturated(frames, 0.0)}]
    results = stage.run(samples)
    assert [stage.rejects({**s, **r}) for s, r in zip(samples, results, strict=True)] == [
        None,
        "low_colour",
    ]
    assert results[1]["operator_stats"]["colourfulness"] == pytest.approx(0, abs=1)


def test_its_clips_can_be_judged_again_from_their_rows(
    stage: HostedStage, decoded: dict[str, Sample]
) -> None:
    (column,) = stage.inputs()
    frames = decoded["bigbuckbunny.mp4"][column]
    for saturation, verdict in ((2.0, None), (0.0, "low_colour")):
        (row,) = stage.run([{column: _saturated(frames, saturation)}])
        assert stage.verdict(row) == verdict


def test_the_version_is_the_files_hash(
    stage: HostedStage, operator: CustomStage, decoded: dict[str, Sample]
) -> None:
    (result,) = stage.run([decoded["bikes.mp4"]])
    assert result["operator_versions"] == {"my_stage.py:Colourfulness": f"sha256:{operator.sha256}"}


def test_the_pages_recipe_decides_about_real_clips(recipe: Recipe) -> None:
    chain = EnrichmentChain(recipe, load_settings(None, fetch={"file_roots": [str(SAMPLES)]}))
    chain.setup()
    names = ("bikes.mp4", "bigbuckbunny.mp4")
    dull, colourful = chain.run([clip(sample(name), 0, 40, recipe) for name in names])
    chain.close()
    assert (dull.status, dull.enriched["reject_reason"]) == (ClipStatus.REJECTED, "low_colour")
    assert colourful.status is ClipStatus.KEPT
    scores = [row.enriched["operator_stats"]["colourfulness"] for row in (dull, colourful)]
    assert 0 < scores[0] < 15 < scores[1]


def test_links_of_the_page_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#\s]+)", PAGE):
        assert (Path(CHECKOUT) / "docs" / link).exists(), link


def _saturated(frames: np.ndarray, factor: float) -> np.ndarray:
    """The pictures with their colours that much further from grey."""
    grey = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames])[..., None]
    mixed = grey + factor * (frames.astype(np.float64) - grey)
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
