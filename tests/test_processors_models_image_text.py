"""Captions by BLIP, and the recipe that runs all seven stages without a GPU."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clip_media import clip, panning, texture
from media import encode
from PIL import Image
from tiny_models import make_blip, make_safety, make_small_aesthetics
from transformers import AutoTokenizer, BlipForConditionalGeneration, BlipImageProcessor

from processors.chain import EnrichmentChain
from processors.errors import MediaError, StageStartError
from processors.frames import FrameSampling
from processors.models.image_text import ImageTextStage
from schemas.operators import CaptionFromVideo
from schemas.reasons import ClipStatus
from schemas.recipe import Recipe, parse_recipe
from schemas.settings import CHECKOUT, Settings, load_settings

SETTINGS = load_settings(models={"device": "cpu"})
NEW_TOKENS = 8


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_blip(tmp_path_factory.mktemp("blip"))


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    return [texture(90 + 10 * seed, 160, seed=seed)[..., ::-1] for seed in range(6)]


def make_stage(folder: Path, **parameters: Any) -> ImageTextStage:
    values = {"engine": "image_text", "hf_model": str(folder), "max_new_tokens": NEW_TOKENS}
    operator = CaptionFromVideo(**values, **parameters)
    stage = ImageTextStage(operator, FrameSampling("uniform", 1), "upright", SETTINGS)
    stage.setup()
    return stage


def captions(stage: ImageTextStage, *clips: list[np.ndarray]) -> list[str]:
    resize = stage.frames().resize
    samples = [{"caption_frames": np.stack([resize(frame) for frame in c])} for c in clips]
    results = stage.run(samples)
    assert not any(isinstance(result, MediaError) for result in results)
    return [result["caption"] for result in results]  # type: ignore[call-overload]


def reference(folder: Path, frame: np.ndarray, prompt: str | None = None) -> str:
    """What transformers itself says of one picture, as its model's page shows it."""
    model = BlipForConditionalGeneration.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    picture = Image.fromarray(np.ascontiguousarray(frame))
    inputs = dict(BlipImageProcessor.from_pretrained(folder)(images=picture, return_tensors="pt"))
    if prompt is not None:
        inputs |= {
            name: value
            for name, value in tokenizer(prompt, return_tensors="pt").items()
            if name != "token_type_ids"
        }
    with torch.no_grad():
        tokens = model.generate(**inputs, max_new_tokens=NEW_TOKENS)
    text: str = tokenizer.decode(tokens[0], skip_special_tokens=True)
    return text


def test_captions_are_those_of_the_model_itself_alone_and_together(
    blip: Path, frames: list[np.ndarray]
) -> None:
    expected = [reference(blip, frame) for frame in frames]
    assert len(set(expected)) >= 3
    stage = make_stage(blip)
    assert captions(stage, *([frame] for frame in frames)) == expected
    assert [captions(stage, [frame])[0] for frame in frames] == expected


def test_a_caption_goes_on_from_its_prompt_and_does_not_repeat_it(
    blip: Path, frames: list[np.ndarray]
) -> None:
    prompt = "a photo of"
    stage = make_stage(blip, prompt=prompt)
    for frame, said in zip(frames, captions(stage, *([f] for f in frames)), strict=True):
        assert f"{prompt} {said}".strip() == reference(blip, frame, prompt).strip()


def test_what_is_said_of_several_frames_is_said_once(blip: Path, frames: list[np.ndarray]) -> None:
    stage = make_stage(blip)
    first, second = captions(stage, [frames[0]], [frames[1]])
    assert captions(stage, [frames[0]] * 3) == [first]
    assert captions(stage, [frames[0], frames[1]]) == ["; ".join(dict.fromkeys([first, second]))]


def test_another_architecture_is_refused(blip: Path, tmp_path: Path) -> None:
    folder = make_safety(tmp_path)
    shutil.copy(blip / "tokenizer.json", folder)
    with pytest.raises(StageStartError, match="is of type vit; engine image_text runs BLIP"):
        make_stage(folder)


def test_a_captioner_without_a_tokenizer_is_refused(blip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "blip"
    shutil.copytree(blip, folder, ignore=shutil.ignore_patterns("tokenizer*", "vocab*"))
    with pytest.raises(StageStartError, match="is no checkpoint: it lacks its tokenizer"):
        make_stage(folder)


@pytest.fixture(scope="module")
def recipe(blip: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """recipes/cpu.yaml with tiny checkpoints in place of the hub's; gates as it has them."""
    aesthetics = make_small_aesthetics(tmp_path_factory.mktemp("aesthetics"))
    text = (CHECKOUT / "recipes" / "cpu.yaml").read_text(encoding="utf-8")
    for name, folder in (
        ("shunk031/aesthetics-predictor-v1-vit-base-patch32", aesthetics),
        ("Salesforce/blip-image-captioning-base", blip),
    ):
        assert name in text
        text = text.replace(name, str(folder))
    return parse_recipe(text, where="cpu.yaml", default_name="cpu")


def test_all_seven_stages_run_without_a_gpu(recipe: Recipe, tmp_path: Path) -> None:
    path = encode(tmp_path / "moving.mp4", panning(60, 120, 160, 2))
    settings: Settings = load_settings(
        fetch={"file_roots": [str(tmp_path)]},
        local={"state_dir": str(tmp_path / "state")},
        models={"device": "cpu"},
    )
    chain = EnrichmentChain(recipe, settings)
    chain.setup()
    try:
        described = {d.stage: d.revision for d in chain.describe()}
        (result,) = chain.run([clip(path, 0, 60, recipe)])
    finally:
        chain.close()
    row = result.enriched
    assert row["nsfw_score"] is not None
    assert row["motion_score"] > 0.25
    assert isinstance(row["aesthetics_score"], float)
    if result.status is ClipStatus.KEPT:
        assert row["caption"]
        assert row["caption_tokens"] > 0
        assert row["caption_model_revision"] == described["caption"]
    else:
        # A random model's marks may lie on either side of the gate; the gate has to have judged.
        assert row["reject_reason"] in ("low_aesthetics", "high_aesthetics")
        assert row["caption"] is None
    assert row["aesthetics_model_revision"] == described["aesthetics"]
    assert set(json.loads(json.dumps(row["stage_seconds"]))) >= {"decode", "safety", "aesthetics"}
