"""How a long video is shared out: the split of one hour on one slot of Flink and on two.

``python -m benchmarks.long_video`` lengthens a sample to an hour without encoding it anew, and has
broker and Flink alone, with both jobs, split it. Each count of slots gets a cluster of its own. It
says how long the split took, from the row of ``videos`` to the rows of ``clips``, and how long the
checkpoints took meanwhile, beside what one segment took.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from benchmarks.cluster import FlinkCluster, benchmark_settings, flink_cluster
from benchmarks.committed import committed
from benchmarks.inputs import lengthened
from cliplake.samples import REAL_SAMPLES
from deploy.local.flink_cluster import ask_rest
from ingest.client import jobs, submit_jobs
from ingest.producer import Producer
from processors.media.probe import probe
from processors.pool.lake import Lake
from processors.split import plan_segments

_TIMEOUT_S = 3600.0


@dataclass(frozen=True)
class Split:
    """One video, split on so many slots."""

    slots: int
    clips: int
    wall_s: float
    """From the commit of its row in ``videos`` until its clips are there."""
    segment_s: float
    """Wall time of one segment, on one slot: ``wall_s * slots / segments``."""
    segments: int
    longest_checkpoint_s: float
    median_checkpoint_s: float
    checkpoints: int
    cpu_s: float
    """Of TaskManager and Python workers."""
    load: float


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.long_video", description=__doc__)
    parser.add_argument("--sample", type=Path, default=REAL_SAMPLES / "bikes.mp4")
    parser.add_argument("--seconds", type=float, default=3600, help="length of the long video")
    parser.add_argument("--slots", type=int, action="append", help="default: 1 and 2")
    parser.add_argument("--segment-s", type=float, help="decode.segment_s, if not the default")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args(arguments)
    found: list[Split] = []
    sample = options.sample.resolve()
    with tempfile.TemporaryDirectory(prefix="cliplake-long-") as name:
        folder = Path(name)
        video = lengthened(sample, options.seconds, folder / "media" / "long.mp4")
        for slots in options.slots or (1, 2):
            found.append(_split(video, sample, folder / str(slots), slots, options.segment_s))
            print(" ".join(f"{k}={v}" for k, v in asdict(found[-1]).items()), flush=True)
    if len(found) > 1:
        print(f"{found[-1].wall_s / found[0].wall_s:.2f} of the time of {found[0].slots} slots")
    if options.json:
        options.json.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")
    return 0


def _split(video: Path, sample: Path, folder: Path, slots: int, segment_s: float | None) -> Split:
    settings = benchmark_settings(
        folder,
        flink={"parallelism": slots},
        decode={} if segment_s is None else {"segment_s": segment_s},
        fetch={"file_roots": [str(video.parent), str(sample.parent)]},
    )
    segments = len(plan_segments(probe(video), settings.decode.segment_s))
    with flink_cluster(settings) as cluster:
        split = submit_jobs(cluster.settings)["split"]
        _wait(lambda: all(job.ready for job in jobs(cluster.settings)))
        _clips_of(cluster, sample)  # the first video starts processes
        before, begun = _cpu_s(cluster), time.time()
        clips, wall_s = _clips_of(cluster, video)
        cpu_s = _cpu_s(cluster) - before
        history = ask_rest(cluster.settings, f"/jobs/{split}/checkpoints")["history"]
    took = [
        one["end_to_end_duration"] / 1000
        for one in history
        if one["status"] == "COMPLETED" and one["trigger_timestamp"] >= 1000 * begun
    ]
    return Split(
        slots=slots,
        clips=clips,
        wall_s=round(wall_s, 1),
        segment_s=round(wall_s * slots / segments, 2),
        segments=segments,
        longest_checkpoint_s=max(took, default=0.0),
        median_checkpoint_s=round(median(took), 2) if took else 0.0,
        checkpoints=len(took),
        cpu_s=round(cpu_s, 1),
        load=round(os.getloadavg()[0], 1),
    )


def _clips_of(cluster: FlinkCluster, video: Path) -> tuple[int, float]:
    """Send a video; how many clips it has, and after how many seconds they were there."""
    lake = Lake(cluster.settings)
    before = {table: committed(lake, table) for table in ("videos", "clips", "failed_videos")}
    with Producer(cluster.settings) as producer:
        key = producer.send(video.as_uri(), video_id=uuid.uuid4().hex)
        producer.flush()

    def came(table: str) -> bool:
        return committed(lake, table) > before[table]

    _wait(lambda: came("videos"))
    begun = time.monotonic()
    _wait(lambda: came("clips") or came("failed_videos"))
    wall_s = time.monotonic() - begun
    if came("failed_videos"):
        raise SystemExit(f"{video} could not be split")
    return int(lake.read("clips", ["video_key"])["video_key"].to_pylist().count(key)), wall_s


def _cpu_s(cluster: FlinkCluster) -> float:
    return sum(cluster.cpu_seconds("taskmanager").values())


def _wait(condition: Callable[[], object]) -> None:
    end = time.monotonic() + _TIMEOUT_S
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"not done after {_TIMEOUT_S:.0f} s")
        time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
