"""How old a clip is when it can be queried: Kafka's timestamp → committed row of enriched_clips.

``python -m benchmarks.freshness --videos 12`` starts the whole stack with a cheap recipe (split,
durations, frames and motion), finds its capacity by a burst, then sends one sample again and
again, each time as another video, at 1, 10 and 50 % of that capacity, and says what each hop adds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pypaimon.manifest.manifest_list_manager import ManifestListManager
from pypaimon.read.scanner.file_scanner import FileScanner

from benchmarks.cluster import benchmark_settings
from cliplake.samples import REAL_SAMPLES
from deploy.local.stack import Stack
from ingest.client import jobs
from ingest.producer import Producer
from processors.pool.lake import Lake
from schemas.settings import Settings

RECIPE = """\
project_name: freshness
process:
  - video_split_by_scene_mapper: {detector: ContentDetector, threshold: 27.0, min_scene_len: 15}
  - video_duration_filter: {min_duration: 0, max_duration: 60}
  - video_extract_frames_mapper: {frame_sampling_method: uniform, frame_num: 3}
  - video_motion_score_filter: {min_score: 0.0}
"""
HOPS = ("arrivals", "videos committed", "split", "clips committed", "scored", "rows committed")
"""Where a video's time goes, in order; each from the end of the one before."""


@dataclass(frozen=True)
class Level:
    """One load."""

    share: float
    """Of the capacity."""
    videos: int
    videos_per_s: float
    p50_s: float
    p95_s: float
    hops_p50_s: dict[str, float]
    hops_p95_s: dict[str, float]


@dataclass(frozen=True)
class Result:
    """All loads of one run."""

    sample: str
    checkpoint_interval_s: float
    commit_interval_s: float
    poll_interval_s: float
    capacity_videos_per_s: float
    levels: list[Level]
    load: tuple[float, float, float]
    """The machine's load average at the end."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.freshness", description=__doc__)
    parser.add_argument("--sample", type=Path, default=REAL_SAMPLES / "carphone_pristine.mp4")
    parser.add_argument("--burst", type=int, default=60, help="videos that measure the capacity")
    parser.add_argument("--videos", type=int, default=12, help="least videos at a load")
    parser.add_argument("--seconds", type=float, default=60, help="least time at a load")
    parser.add_argument("--shares", default="0.01,0.1,0.5")
    parser.add_argument("--checkpoint-interval", type=float, default=3.0, metavar="S")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    sample = options.sample.resolve()
    with tempfile.TemporaryDirectory(prefix="cliplake-freshness-") as folder:
        recipe = Path(folder) / "freshness.yaml"
        recipe.write_text(RECIPE, encoding="utf-8")
        settings = benchmark_settings(
            Path(folder),
            flink={"checkpoint_interval_s": options.checkpoint_interval},
            fetch={"file_roots": [str(sample.parent)]},
        ).model_copy(update={"recipe": str(recipe)})
        with Stack(settings, log=lambda line: print(line, file=sys.stderr)) as stack:
            stack.watch(lambda: all(job.ready for job in jobs(stack.settings)))
            send(stack, sample, 2, 1.0)  # the first videos start processes
            burst = send(stack, sample, options.burst, float("inf"))
            capacity = _capacity(stack.settings, burst)
            levels = []
            for share in map(float, options.shares.split(",")):
                rate = share * capacity
                count = max(options.videos, round(options.seconds * rate))
                keys = send(stack, sample, count, rate)
                levels.append(_level(share, rate, count, ages(stack.settings, keys)))
            result = Result(
                sample=sample.name,
                checkpoint_interval_s=settings.flink.checkpoint_interval_s,
                commit_interval_s=settings.pool.commit_interval_s,
                poll_interval_s=settings.pool.poll_interval_s,
                capacity_videos_per_s=capacity,
                levels=levels,
                load=os.getloadavg(),
            )
    print(json.dumps(asdict(result)) if options.json else _words(result))
    return 0


def send(stack: Stack, sample: Path, count: int, per_s: float) -> list[str]:
    """Send the sample ``count`` times, evenly; their keys once all of them are in the lake."""
    settings, keys = stack.settings, []
    begun = time.monotonic()
    with Producer(settings) as producer:
        for number in range(count):
            due = begun + number / per_s
            stack.watch(lambda due=due: time.monotonic() >= due)  # type: ignore[misc]
            keys.append(producer.send(sample.as_uri(), video_id=uuid.uuid4().hex))
            producer.flush()
    lake = Lake(settings)
    stack.watch(lambda: _is_done(lake, set(keys)))
    return keys


def _is_done(lake: Lake, keys: set[str]) -> bool:
    """Whether every clip of these videos has its verdict; ends the process if a video failed."""
    if failed := keys & set(lake.read("failed_videos", ["video_key"])["video_key"].to_pylist()):
        raise SystemExit(f"{len(failed)} videos failed, which cannot be measured")
    columns = ["clip_id", "video_key"]
    clips = [row for row in lake.read("clips", columns).to_pylist() if row["video_key"] in keys]
    if {row["video_key"] for row in clips} != keys:
        return False
    enriched = set(lake.read("enriched_clips", ["clip_id"])["clip_id"].to_pylist())
    return all(row["clip_id"] in enriched for row in clips)


def ages(settings: Settings, keys: Sequence[str]) -> list[list[float]]:
    """Seconds since 1970 of each clip's way: Kafka's timestamp, then the end of every hop."""
    lake, wanted = Lake(settings), set(keys)
    videos = {row["video_key"]: row for row in committed(lake, "videos", "ingested_at")}
    clips = {row["clip_id"]: row for row in committed(lake, "clips", "created_at", "video_key")}
    found = []
    for row in committed(lake, "enriched_clips", "enriched_at", "video_key", "kafka_timestamp"):
        if row["video_key"] in wanted:
            video, clip = videos[row["video_key"]], clips[row["clip_id"]]
            times = (row["kafka_timestamp"], video["ingested_at"])
            ends = (clip["created_at"], row["enriched_at"])
            sent, arrived = (moment.timestamp() for moment in times)
            split, scored = (moment.timestamp() for moment in ends)
            found.append(
                [sent, arrived, video["at"], split, clip["at"], scored, row["at"]],
            )
    return found


def committed(lake: Lake, name: str, *columns: str) -> list[dict[str, Any]]:
    """Rows of a table with the time ``at`` of the snapshot that brought them, oldest first."""
    table = lake.table(name)
    manifests, manager = ManifestListManager(table), table.snapshot_manager()
    key = "video_key" if name == "videos" else "clip_id"
    rows: list[dict[str, Any]] = []
    for number in range(1, (lake.latest_snapshot_id(name) or 0) + 1):
        snapshot = manager.get_snapshot_by_id(number)
        if snapshot is None or snapshot.commit_kind != "APPEND":
            continue

        def delta(snapshot: Any = snapshot) -> Any:
            return manifests.read_delta(snapshot), snapshot

        splits = FileScanner(table, delta).scan().splits()
        builder = table.new_read_builder().with_projection([key, *columns])
        for row in builder.new_read().to_arrow(splits).to_pylist():
            rows.append({**row, "at": snapshot.time_millis / 1000})
    return rows


def _capacity(settings: Settings, keys: Sequence[str]) -> float:
    """Videos a second of a burst, from the first committed row to the last."""
    done = sorted(way[-1] for way in ages(settings, keys))
    clips_per_video = len(done) / len(keys)
    first = done.count(done[0])
    return (len(done) - first) / clips_per_video / (done[-1] - done[0])


def _level(share: float, rate: float, videos: int, ways: Sequence[Sequence[float]]) -> Level:
    whole = [way[-1] - way[0] for way in ways]
    hops = {name: [way[place + 1] - way[place] for way in ways] for place, name in enumerate(HOPS)}
    return Level(
        share=share,
        videos=videos,
        videos_per_s=rate,
        p50_s=statistics.median(whole),
        p95_s=_p95(whole),
        hops_p50_s={name: statistics.median(values) for name, values in hops.items()},
        hops_p95_s={name: _p95(values) for name, values in hops.items()},
    )


def _p95(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=20, method="inclusive")[-1]


def _words(result: Result) -> str:
    lines = [
        f"{result.sample}; checkpoints every {result.checkpoint_interval_s:g} s, the driver polls "
        f"every {result.poll_interval_s:g} s and commits every {result.commit_interval_s:g} s",
        f"capacity {result.capacity_videos_per_s:.2f} videos/s; load average "
        f"{', '.join(f'{value:.1f}' for value in result.load)} on {os.cpu_count()} CPUs",
        f"{'seconds, p50 / p95':20}" + "".join(f"{level.share:>16.0%}" for level in result.levels),
        f"{'videos':20}" + "".join(f"{level.videos:>16}" for level in result.levels),
    ]
    for name in HOPS:
        values = (f"{x.hops_p50_s[name]:.2f} / {x.hops_p95_s[name]:.2f}" for x in result.levels)
        lines.append(f"{name:20}" + "".join(f"{value:>16}" for value in values))
    whole = (f"{level.p50_s:.2f} / {level.p95_s:.2f}" for level in result.levels)
    lines.append(f"{'whole':20}" + "".join(f"{value:>16}" for value in whole))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
