"""Actors of the pool: calls side by side, and real stages over real clips in the lake."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from clip_media import clip, panning
from media import encode
from tiny_models import make_blip, make_small_aesthetics

from processors.errors import MediaError
from processors.pool.driver import Driver
from processors.pool.verdicts import from_ipc, to_dicts, to_ipc, verdicts_of
from processors.results import failed, passed
from schemas.reasons import ClipStatus, MediaReason
from schemas.recipe import parse_recipe
from schemas.settings import load_settings
from schemas.tables import CLIPS
from tests import pool_lake

STAGE = """
from processors.frames import FrameRequest, FrameSampling
from processors.resize import Fitted
from processors.stage import Stage


class Brightest(Stage):
    name = "brightest"

    def inputs(self):
        return ("pictures", "motion_score")

    def outputs(self):
        return ("brightest",)

    def frames(self):
        return FrameRequest("pictures", FrameSampling("uniform", 2), Fitted(64))

    def process(self, batch):
        return [{"brightest": int(sample["pictures"].max())} for sample in batch]

    def judge(self, scores):
        return None if scores["motion_score"] > 0.25 else "does_not_move"
"""
RECIPE = """
process:
  - video_split_by_scene_mapper
  - video_extract_frames_mapper
  - video_nsfw_filter: {{engine: open_nsfw_onnx, max_score: 1.0}}
  - video_motion_score_filter: {{min_score: 0}}
  - {stage}:Brightest
  - video_aesthetics_filter: {{hf_scorer_model: {aesthetics}, min_score: -100, max_score: 100}}
  - video_captioning_from_video_mapper:
      {{engine: image_text, hf_model: {blip}, frame_num: 1, frame_sampling_method: uniform}}
"""


def test_calls_run_side_by_side_in_one_actor(tmp_path: Path, ray_address: str) -> None:
    settings = pool_lake.settings(tmp_path, ray_address=ray_address, calls_in_flight=2)
    lake = pool_lake.new_lake(settings)
    pool_lake.append_clips(lake, [pool_lake.clip(number) for number in range(8)])
    driver = Driver(settings, pool_lake.recipe(), chain="tests.pool_chains:Together")
    driver.run(until_idle=True)
    rows = lake.read("enriched_clips", ["status"]).to_pylist()
    assert [row["status"] for row in rows] == ["kept"] * 8


def test_models_and_a_stage_of_the_users_own_enrich_the_lake(
    tmp_path: Path, ray_address: str
) -> None:
    (tmp_path / "stage.py").write_text(STAGE)
    recipe = parse_recipe(
        RECIPE.format(
            stage=tmp_path / "stage.py",
            aesthetics=make_small_aesthetics(tmp_path / "aesthetics"),
            blip=make_blip(tmp_path / "blip"),
        ),
        where="test",
        default_name="test",
    )
    settings = load_settings(
        None,
        local={"state_dir": str(tmp_path / "state")},
        fetch={"file_roots": [str(tmp_path)]},
        pool={"ray_address": ray_address, "cpus_per_actor": 0.5, "micro_batch_clips": 2},
        models={"device": "cpu"},
    )
    lake = pool_lake.new_lake(settings)
    moving = encode(tmp_path / "moving.mp4", panning(60, 96, 128, 2))
    still = encode(tmp_path / "still.mp4", panning(60, 96, 128, 0))
    rows = [clip(moving, 0, 30, recipe), clip(moving, 30, 60, recipe), clip(still, 0, 60, recipe)]
    pool_lake.append_clips(lake, rows)
    Driver(settings, recipe).run(until_idle=True)

    found = {row["clip_id"]: row for row in lake.read("enriched_clips").to_pylist()}
    first, second, third = (found[row["clip_id"]] for row in rows)
    for row in (first, second):
        assert (row["status"], row["attempts"]) == ("kept", 1)
        assert row["aesthetics_score"] is not None
        assert row["caption"]
        assert dict(row["operator_stats"])["brightest"] > 100
        assert dict(row["operator_versions"])["stage.py:Brightest"].startswith("sha256:")
        assert row["caption_model"] == str(tmp_path / "blip")
    assert (third["status"], third["reject_reason"]) == ("rejected", "does_not_move")
    assert (third["caption"], third["aesthetics_score"]) == (None, None)
    assert lake.read("clip_frames", ["clip_id"]).num_rows == 3


def test_clips_pass_to_the_actors_and_back_as_they_were() -> None:
    odd = [
        pool_lake.clip(0),
        pool_lake.clip(1, kafka_timestamp=None, kafka_partition=None, fps=None, etag="é"),
        pool_lake.clip(2, width=640, rotation=0, fps=29.97, duration_ok=False),
    ]
    rows = pa.Table.from_pylist(odd, schema=CLIPS.arrow_schema())
    for part in (rows, rows.slice(1), rows.slice(1, 1), pa.concat_tables([rows, rows]), rows[:0]):
        passed_on = from_ipc(to_ipc(part))
        assert passed_on.equals(part)
        assert to_dicts(passed_on) == part.to_pylist()
        for ours, plain in zip(to_dicts(part), part.to_pylist(), strict=True):
            assert list(map(type, ours.values())) == list(map(type, plain.values()))


def test_verdicts_that_are_picked_out_keep_their_failures() -> None:
    recipe = pool_lake.recipe()
    error = MediaError(MediaReason.NOT_FOUND, "it is not there", stage="fetch")
    results = [failed(pool_lake.clip(n), recipe, error) for n in range(3)]
    results[1] = passed(pool_lake.clip(1), recipe, {})
    picked = verdicts_of(results, [5, 6, 7]).select([1, 2])
    assert picked.rows.column("enrich_seq").to_pylist() == [6, 7]
    assert picked.statuses == [ClipStatus.KEPT, ClipStatus.FAILED]
    assert {place: row["clip_id"] for place, row in picked.failures.items()} == {
        1: pool_lake.clip_id(2)
    }
