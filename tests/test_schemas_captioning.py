"""The captioner's parameters: which engine has which, and what would change nothing is refused."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from schemas.operators import CaptionFromVideo
from schemas.recipe import Recipe, parse_recipe

SERVER = {"engine": "openai", "base_url": "http://h:1/v1", "model": "m"}


def caption(**parameters: object) -> CaptionFromVideo:
    return CaptionFromVideo.model_validate(parameters)


def recipe(parameters: str) -> Recipe:
    text = (
        "process:\n  - video_split_by_scene_mapper\n"
        f"  - video_captioning_from_video_mapper: {parameters}"
    )
    return parse_recipe(text, where="r.yaml", default_name="r")


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"engine": "image_text"}, "needs hf_model"),
        ({"engine": "openai"}, "needs base_url and model"),
        ({"hf_model": "a/b"}, "hf_model is for engine image_text"),
        ({"attempts": 5}, "attempts is for engine openai"),
        ({**SERVER, "num_beams": 4}, "num_beams is for engine video_blip and image_text"),
        ({**SERVER, "hf_video_blip": "a/b"}, "hf_video_blip is for engine video_blip"),
        ({**SERVER, "base_url": "h:1/v1"}, "base_url should be like"),
        ({**SERVER, "base_url": "http://user:secret@h/v1"}, "should hold no user"),
        ({**SERVER, "base_url": "http://h/v1?key=secret"}, "should hold no user"),
        ({"temperature": 0.7}, "temperature would change nothing without do_sample"),
        ({"seed": 0}, "seed would change nothing without do_sample"),
        ({"do_sample": True, "temperature": 0}, "temperature"),
        ({"caption_num": 2, "keep_candidate_mode": "all"}, "keep_candidate_mode"),
    ],
)
def test_what_would_not_happen_is_refused(parameters: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        caption(**parameters)


def test_sampling_as_datajuicer_does_it_can_be_asked_for() -> None:
    asked = caption(
        do_sample=True, num_beams=4, temperature=0.7, top_p=0.9, repetition_penalty=1.5, seed=1
    )
    assert asked.remarks() == []
    assert "without seed" in caption(do_sample=True).remarks()[0]


def test_where_the_server_is_and_how_it_is_asked_changes_no_fingerprint() -> None:
    near = recipe("{engine: openai, model: m, base_url: 'http://a:1/v1'}")
    far = recipe(
        "{engine: openai, model: m, base_url: 'https://b/v1', attempts: 9, "
        "api_key_env: CLIPLAKE_KEY_K}"
    )
    other = recipe("{engine: openai, model: n, base_url: 'http://a:1/v1'}")
    assert near.scores_fingerprint == far.scores_fingerprint != other.scores_fingerprint
    assert near.gates_fingerprint == far.gates_fingerprint


def test_a_recipe_cannot_send_other_secrets_of_the_workers_away() -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "cliplake_key_x"):
        with pytest.raises(ValueError, match="api_key_env should begin with CLIPLAKE_KEY_"):
            CaptionFromVideo(engine="openai", base_url="https://b/v1", model="m", api_key_env=name)
