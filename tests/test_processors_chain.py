"""The chain over real videos, models and child processes: verdicts, provenance, failures."""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
from clip_media import clip, panning, texture
from media import SAMPLES, encode, sample

from processors.chain import ClipResult, EnrichmentChain, duration_rejected
from processors.errors import DependencyFault, StageStartError
from schemas.reasons import ClipStatus
from schemas.recipe import Recipe, load_recipe, parse_recipe
from schemas.settings import CHECKOUT, Settings, load_settings
from schemas.tables import CLIP_FRAMES, ENRICHED_CLIPS, FAILED_CLIPS, Table

RECIPES = CHECKOUT / "recipes"
LAPTOP = load_recipe(RECIPES / "laptop.yaml")


def recipe(*operators: str, **head: Any) -> Recipe:
    """A recipe with the operators given as YAML, after the split."""
    lines = [f"{key}: {str(value).lower()}" for key, value in head.items()]
    steps = ["video_split_by_scene_mapper", "video_extract_frames_mapper", *operators]
    lines += ["process:", *(f"  - {step}" for step in steps)]
    return parse_recipe("\n".join(lines), where="test", default_name="test")


SAFETY = "video_nsfw_filter: {{engine: open_nsfw_onnx, max_score: {0}}}"
MOTION = "video_motion_score_filter: {{min_score: {0}}}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("chain")


@pytest.fixture(scope="module")
def settings(folder: Path) -> Settings:
    return load_settings(
        fetch={"file_roots": (str(SAMPLES), str(folder))},
        local={"state_dir": str(folder / "state")},
    )


@pytest.fixture(scope="module")
def moving(folder: Path) -> Path:
    return encode(folder / "moving.mp4", panning(60, 96, 128, 2), options={"g": "20"})


@pytest.fixture(scope="module")
def still(folder: Path) -> Path:
    return encode(folder / "still.mp4", [texture(96, 128)] * 60, options={"g": "20"})


@pytest.fixture(scope="module")
def laptop(settings: Settings) -> Iterator[EnrichmentChain]:
    chain = EnrichmentChain(LAPTOP, settings)
    chain.setup()
    yield chain
    chain.close()


def run(settings: Settings, wanted: Recipe, *clips: dict[str, Any]) -> list[ClipResult]:
    chain = EnrichmentChain(wanted, settings)
    chain.setup()
    try:
        return chain.run(clips)
    finally:
        chain.close()


def fits(table: Table, row: dict[str, Any]) -> bool:
    """Whether a row has exactly the table's columns but enrich_seq, with values that it takes."""
    pa.Table.from_pylist([{**row, "enrich_seq": 1}], schema=table.arrow_schema()).validate(
        full=True
    )
    return set(row) == set(table.column_names) - {"enrich_seq"}


def test_a_real_clip_is_scored_kept_and_says_what_judged_it(laptop: EnrichmentChain) -> None:
    row = clip(sample("bikes.mp4"), 76, 137, LAPTOP)
    (result,) = laptop.run([row])
    assert (result.clip_id, result.status) == (row["clip_id"], ClipStatus.KEPT)
    assert result.failure is None
    enriched = result.enriched
    assert fits(ENRICHED_CLIPS, enriched)
    assert enriched["kept"] is True
    assert enriched["reject_reason"] is None
    assert 0 < enriched["nsfw_score"] < 0.1
    assert 5 < enriched["motion_score"] < 12
    assert enriched["frame_count"] == 1
    assert enriched["sharpness"] > 10
    assert 40 < enriched["brightness"] < 120
    assert enriched["safety_model"] == "open_nsfw"
    assert enriched["safety_model_revision"].startswith("sha256:")
    assert enriched["motion_model"] == "farneback"
    assert enriched["motion_model_revision"] == f"2-opencv-{cv2.__version__}"
    assert enriched["aesthetics_model"] is None
    assert enriched["cpu_s"] > 0.05
    assert enriched["gpu_s"] == 0
    assert enriched["attempts"] == 1
    assert enriched["enriched_at"].tzinfo is UTC
    assert {n for n, s in enriched["stage_seconds"].items() if float(s) >= 0} == {
        "fetch",
        "decode",
        "frames",
        "quality",
        "motion",
        "safety",
    }
    assert enriched["scores_fingerprint"] == LAPTOP.scores_fingerprint
    assert {name: enriched[name] for name in ("uri", "start_pts", "end_pts", "kafka_offset")} == {
        name: row[name] for name in ("uri", "start_pts", "end_pts", "kafka_offset")
    }


def test_frames_are_stored_with_their_times_and_quality(
    laptop: EnrichmentChain, moving: Path
) -> None:
    (result,) = laptop.run([clip(moving, 10, 55, LAPTOP)])
    assert result.frames is not None
    assert fits(CLIP_FRAMES, result.frames)
    assert result.frames["frame_times_s"] == pytest.approx([0.4, 0.8, 1.6])
    pictures = [
        cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        for data in result.frames["video_frames"]
    ]
    assert [picture.shape for picture in pictures] == [(96, 128, 3)] * 3
    assert len(result.frames["frame_sharpness"]) == result.enriched["frame_count"] == 3


def test_results_come_in_the_order_of_the_clips(
    laptop: EnrichmentChain, moving: Path, still: Path
) -> None:
    rows = [clip(moving, 0, 20, LAPTOP), clip(moving, 20, 60, LAPTOP), clip(still, 0, 60, LAPTOP)]
    results = laptop.run(rows)
    assert [r.clip_id for r in results] == [row["clip_id"] for row in rows]
    assert [r.status for r in results] == ["kept", "kept", "rejected"]
    assert results[2].enriched["reject_reason"] == "low_motion"
    assert laptop.run([]) == []


def test_scores_do_not_depend_on_the_batch(
    laptop: EnrichmentChain, moving: Path, still: Path
) -> None:
    rows = [clip(moving, n, n + 15, LAPTOP) for n in (0, 15, 30)] + [clip(still, 5, 40, LAPTOP)]
    together = laptop.run(rows)
    for row, one in zip(rows, together, strict=True):
        (alone,) = laptop.run([row])
        for column in ("nsfw_score", "motion_score", "sharpness", "brightness"):
            assert one.enriched[column] == pytest.approx(alone.enriched[column], abs=1e-6)
        assert one.frames is not None
        assert alone.frames is not None
        assert one.frames["video_frames"] == alone.frames["video_frames"]


def test_unsafe_clips_are_rejected_and_their_frames_are_not_stored(
    settings: Settings, moving: Path
) -> None:
    wanted = recipe(SAFETY.format(1e-9), MOTION.format(0.25))
    (result,) = run(settings, wanted, clip(moving, 0, 60, wanted))
    assert result.status is ClipStatus.REJECTED
    assert result.enriched["reject_reason"] == "unsafe"
    assert result.enriched["nsfw_score"] > 1e-9
    assert result.frames is None


def test_a_recipe_may_ask_for_the_frames_of_unsafe_clips(settings: Settings, moving: Path) -> None:
    wanted = recipe(SAFETY.format(1e-9), store_unsafe_frames=True)
    (result,) = run(settings, wanted, clip(moving, 0, 60, wanted))
    assert result.status is ClipStatus.REJECTED
    assert result.frames is not None


def test_the_first_failed_gate_of_the_recipe_gives_the_reason(
    settings: Settings, still: Path
) -> None:
    safety_first = recipe(SAFETY.format(1e-9), MOTION.format(0.25))
    motion_first = recipe(MOTION.format(0.25), SAFETY.format(1e-9))
    (first,) = run(settings, safety_first, clip(still, 0, 60, safety_first))
    (second,) = run(settings, motion_first, clip(still, 0, 60, motion_first))
    assert first.enriched["reject_reason"] == "unsafe"
    assert second.enriched["reject_reason"] == "low_motion"


def test_a_rejected_clip_is_scored_no_further_and_what_was_not_judged_is_not_stored(
    settings: Settings, still: Path
) -> None:
    wanted = recipe(MOTION.format(0.25), SAFETY.format(0.5))
    (result,) = run(settings, wanted, clip(still, 0, 60, wanted))
    assert result.enriched["nsfw_score"] is None
    assert result.enriched["safety_model"] is None
    assert result.frames is None


def test_a_recipe_may_ask_for_all_scores_of_rejected_clips(settings: Settings, still: Path) -> None:
    wanted = recipe(MOTION.format(0.25), SAFETY.format(0.5), score_rejected=True)
    (result,) = run(settings, wanted, clip(still, 0, 60, wanted))
    assert result.enriched["reject_reason"] == "low_motion"
    assert result.enriched["nsfw_score"] is not None
    assert result.frames is not None


def test_a_recipe_without_frame_storage_still_measures_quality(
    settings: Settings, moving: Path
) -> None:
    wanted = recipe(SAFETY.format(0.5), store_frames=False)
    (result,) = run(settings, wanted, clip(moving, 0, 60, wanted))
    assert result.status is ClipStatus.KEPT
    assert result.frames is None
    assert result.enriched["sharpness"] > 0
    assert result.enriched["motion_score"] is None


def test_quality_rejects_only_where_the_recipe_says_so(settings: Settings, folder: Path) -> None:
    black = encode(folder / "black.mp4", [np.zeros((64, 96, 3), np.uint8)] * 30)
    wanted = recipe("cliplake_frame_quality_filter: {max_black_fraction: 0.5}")
    (result,) = run(settings, wanted, clip(black, 0, 30, wanted))
    assert result.enriched["reject_reason"] == "low_quality"
    assert result.enriched["black_fraction"] == 1.0
    (unjudged,) = run(settings, recipe(), clip(black, 0, 30, recipe()))
    assert unjudged.status is ClipStatus.KEPT


def test_a_clip_that_cannot_be_decoded_fails_alone(laptop: EnrichmentChain, moving: Path) -> None:
    good, bad = clip(moving, 0, 20, LAPTOP), clip(moving, 20, 60, LAPTOP)
    bad.update(start_pts=10**9, end_pts=10**9 + 1000, clip_id="beyond")
    bad["uri"] = good["uri"]
    first, second = laptop.run([good, bad])
    assert first.status is ClipStatus.KEPT
    assert second.status is ClipStatus.FAILED
    assert fits(ENRICHED_CLIPS, second.enriched)
    assert second.failure is not None
    assert fits(FAILED_CLIPS, second.failure)
    assert second.failure["stage"] == "decode"
    assert second.failure["reason"] == second.enriched["reject_reason"] == "no_frames"
    assert second.failure["kafka_offset"] == 7
    assert second.frames is None
    assert second.enriched["kept"] is False


def test_a_video_that_is_gone_fails_its_clips_and_no_others(
    laptop: EnrichmentChain, folder: Path, moving: Path
) -> None:
    gone = encode(folder / "gone.mp4", panning(20, 64, 96, 1))
    rows = [clip(gone, 0, 20, LAPTOP), clip(moving, 0, 60, LAPTOP)]
    gone.unlink()
    first, second = laptop.run(rows)
    assert first.failure is not None
    assert (first.failure["stage"], first.failure["reason"]) == ("fetch", "not_found")
    assert second.status is ClipStatus.KEPT


def test_clips_whose_store_is_out_are_held_and_others_are_judged(
    settings: Settings, moving: Path
) -> None:
    with socket.socket() as taken:
        # Bound and not listening: every connection is refused.
        taken.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{taken.getsockname()[1]}"
        allowed = {"https_hosts": (host,), "allow_private_addresses": True, "attempts": 1}
        fetch = settings.fetch.model_copy(update=allowed)
        rows = [clip(moving, 0, 60, recipe()), clip(moving, 0, 60, recipe())]
        rows[0].update(uri=f"https://{host}/v.mp4", video_key="elsewhere")
        first, second = run(settings.model_copy(update={"fetch": fetch}), recipe(), *rows)
    assert f"https://{host} is out" in str(first.held)
    assert (second.held, second.status) == (None, ClipStatus.KEPT)


def test_a_video_that_changed_since_the_split_is_not_judged(
    laptop: EnrichmentChain, folder: Path
) -> None:
    path = encode(folder / "changing.mp4", panning(20, 64, 96, 1))
    row = clip(path, 0, 20, LAPTOP)
    encode(path, panning(20, 64, 96, 2))
    (result,) = laptop.run([row])
    assert result.failure is not None
    assert result.failure["reason"] == "source_changed"


def test_a_broken_model_blames_no_clip(settings: Settings, moving: Path) -> None:
    chain = EnrichmentChain(LAPTOP, settings)
    chain.setup()
    try:
        (stage,) = (batches.stage for batches in chain._stages.values())
        stage._session = None  # type: ignore[attr-defined]
        with pytest.raises(DependencyFault, match="stage safety is broken"):
            chain.run([clip(moving, 0, 60, LAPTOP)])
    finally:
        chain.close()


def test_a_clip_that_a_stage_cannot_score_fails_alone(
    settings: Settings, moving: Path, still: Path
) -> None:
    chain = EnrichmentChain(recipe(SAFETY.format(0.5)), settings)
    chain.setup()
    good, bad = clip(moving, 0, 60, LAPTOP), clip(still, 0, 60, LAPTOP)
    try:
        (stage,) = (batches.stage for batches in chain._stages.values())
        process = stage.process

        def refusing(batch: Any) -> Any:
            # Frames of a picture that does not move are all but equal.
            if any(np.ptp(s["safety_frames"].astype(int), axis=0).max() < 40 for s in batch):
                raise RuntimeError("cannot look at this")
            return process(batch)

        stage.process = refusing  # type: ignore[method-assign]
        first, second = chain.run([good, bad])
    finally:
        chain.close()
    assert first.status is ClipStatus.KEPT
    assert second.failure is not None
    assert second.failure["stage"] == "safety"
    assert second.failure["error"] == "RuntimeError: cannot look at this"
    assert second.frames is None


def test_a_clip_outside_the_duration_filter_is_rejected_without_decoding(folder: Path) -> None:
    path = encode(folder / "short.mp4", panning(20, 64, 96, 1))
    row = clip(path, 0, 20, LAPTOP)
    assert not row["duration_ok"]
    result = duration_rejected(row, LAPTOP)
    assert fits(ENRICHED_CLIPS, result.enriched)
    assert result.status is ClipStatus.REJECTED
    assert result.enriched["reject_reason"] == "too_short"
    assert result.enriched["nsfw_score"] is None
    with pytest.raises(ValueError, match="passes the duration filter"):
        duration_rejected({**row, "duration_s": 5.0}, LAPTOP)


def test_results_cross_processes(laptop: EnrichmentChain, moving: Path) -> None:
    (result,) = laptop.run([clip(moving, 0, 60, LAPTOP)])
    assert pickle.loads(pickle.dumps(result)) == result


def test_credentials_do_not_reach_the_dead_letters(laptop: EnrichmentChain, moving: Path) -> None:
    row = clip(moving, 0, 60, LAPTOP)
    row["uri"] = "https://user:secret@videos.example.org/a.mp4?X-Amz-Signature=secret"
    (result,) = laptop.run([row])
    assert result.failure is not None
    assert result.failure["uri"] == "https://videos.example.org/a.mp4"
    assert "secret" not in result.failure["error"]


def test_a_set_up_chain_describes_its_stages(laptop: EnrichmentChain) -> None:
    lines = [(d.stage, d.operator, d.model) for d in laptop.describe()]
    assert lines == [
        ("frames", "video_extract_frames_mapper", None),
        ("safety", "video_nsfw_filter", "open_nsfw"),
        ("motion", "video_motion_score_filter", "farneback"),
    ]


def test_a_checkpoint_that_cannot_be_had_stops_the_start_in_one_line(settings: Settings) -> None:
    with pytest.raises(StageStartError) as caught:
        EnrichmentChain(load_recipe(RECIPES / "article.yaml"), settings).setup()
    text = str(caught.value)
    assert "\n" not in text
    for name in ("stage safety", "Falconsai/nsfw_image_detection", "HF_HUB_OFFLINE"):
        assert name in text


def test_a_missing_model_stops_the_start(settings: Settings, tmp_path: Path) -> None:
    elsewhere = load_settings(models={"dir": str(tmp_path)})
    with pytest.raises(StageStartError, match="make setup"):
        EnrichmentChain(LAPTOP, elsewhere).setup()


def test_closing_ends_the_decoders_process(settings: Settings, moving: Path) -> None:
    before = _children()
    chain = EnrichmentChain(LAPTOP, settings)
    chain.setup()
    chain.run([clip(moving, 0, 60, LAPTOP)])
    assert _children() - before
    chain.close()
    assert not _children() - before


def _children() -> set[str]:
    tasks = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return {child for task in tasks for child in task.read_text().split()}
