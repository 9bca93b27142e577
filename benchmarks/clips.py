"""Rows of ``clips`` as the split writes them, in bulk, and the scores that clips are given.

Every column is filled; there are three clips a video.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pyarrow as pa

from processors.pool.keyed_write import KeyedWrite, SequenceNumbers
from processors.pool.lake import Lake
from schemas.recipe import Recipe, parse_recipe
from schemas.tables import CLIPS

RECIPE = """
process:
  - video_split_by_scene_mapper
  - video_duration_filter: {min_duration: 2, max_duration: 60}
  - video_motion_score_filter: {min_score: 0.25}
"""
CLIPS_A_VIDEO = 3
FRAMES = 8
"""Of each clip that is kept, where they are stored."""
SCORES = {
    "nsfw_score": 0.01,
    "motion_score": 2.5,
    "aesthetics_score": 0.6,
    "caption": "a person rides a bicycle along a river on a sunny day",
    "caption_tokens": 12,
    "frame_count": FRAMES,
    "sharpness": 60.0,
    "brightness": 110.0,
    "black_fraction": 0.0,
    "overexposed_fraction": 0.0,
    "safety_model": "open-nsfw",
    "safety_model_revision": "sha256:0123456789abcdef",
    "cpu_s": 0.25,
    "stage_seconds": {"decode": "0.10", "safety": "0.05", "motion": "0.10"},
}
_MOMENT = datetime(2026, 1, 31, 12, tzinfo=UTC)


def recipe() -> Recipe:
    return parse_recipe(RECIPE, where="benchmark", default_name="benchmark")


def write(lake: Lake, count: int, snapshot_rows: int) -> None:
    """Commit ``count`` rows, ``snapshot_rows`` to a snapshot."""
    table = lake.table(CLIPS.name)
    numbers = SequenceNumbers()
    commit = table.new_stream_write_builder().new_commit()
    for snapshot, start in enumerate(range(0, count, snapshot_rows), 1):
        writer = KeyedWrite(table, "split", numbers)
        writer.write_arrow(rows(range(start, min(start + snapshot_rows, count))))
        commit.commit(writer.prepare_commit(snapshot), snapshot)
        writer.close()


def clip_id(number: int) -> str:
    return _hash(f"clip {number}")


def rows(numbers: range) -> pa.Table:
    """Rows of ``clips`` with these numbers."""
    fingerprint = recipe().split_fingerprint
    columns = {
        "clip_id": [clip_id(n) for n in numbers],
        "video_key": [_hash(f"video {n // CLIPS_A_VIDEO}") for n in numbers],
        "video_id": [f"upload-{n // CLIPS_A_VIDEO}" for n in numbers],
        "uri": [f"s3://uploads/2026/01/31/{n // CLIPS_A_VIDEO:09}.mp4" for n in numbers],
        "content_sha256": [2 * _hash(f"bytes {n // CLIPS_A_VIDEO}") for n in numbers],
        "clip_index": [n % CLIPS_A_VIDEO for n in numbers],
        "start_s": [3.0 * (n % CLIPS_A_VIDEO) for n in numbers],
        "end_s": [3.0 * (n % CLIPS_A_VIDEO) + 3.0 for n in numbers],
        "start_pts": [38400 * (n % CLIPS_A_VIDEO) for n in numbers],
        "end_pts": [38400 * (n % CLIPS_A_VIDEO + 1) for n in numbers],
        "kafka_partition": [n // CLIPS_A_VIDEO % 4 for n in numbers],
        "kafka_offset": [n // CLIPS_A_VIDEO for n in numbers],
    }
    same = {
        "etag": "0f343b0931126a20f133d67c2b018a3b",
        "time_base": "1/12800",
        "start_frame": 0,
        "end_frame": 90,
        "duration_s": 3.0,
        "fps": 30.0,
        "width": 640,
        "height": 360,
        "codec": "h264",
        "rotation": 0,
        "splitter": '{"detector": "ContentDetector", "min_scene_len": 15, "threshold": 27.0}',
        "split_fingerprint": fingerprint,
        "duration_ok": True,
        "kafka_topic": "video-uploads",
        "kafka_timestamp": _MOMENT,
        "created_at": _MOMENT,
    }
    schema = CLIPS.arrow_schema()
    arrays = []
    for field in schema:
        values = columns.get(field.name)
        if values is None:
            values = [same.get(field.name)] * len(numbers)
        arrays.append(pa.array(values, field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def _hash(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
