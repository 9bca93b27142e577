"""Measures what each stage costs here: the split and a recipe's stages over a few real files.

The same stages as in the pipeline, in this process and its decoders, without broker, Flink, Ray
and lake; what those take is not in here.
"""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cliplake.costs import Costs, Origin, StageCost, parameters_of
from cliplake.samples import REAL_SAMPLES
from processors.chain import EnrichmentChain
from processors.errors import MediaError
from processors.fetch import Fetcher
from processors.media.probe import VideoInfo, probe
from processors.media.sandbox import Sandbox
from processors.scenes import detect_scenes
from processors.split import (
    MODULES,
    clip_rows,
    join_scores,
    plan_segments,
    score_segment,
    segment_seconds,
)
from processors.timed import cpu_timed
from schemas.ids import default_video_id, video_key
from schemas.reasons import MediaReason
from schemas.recipe import Recipe
from schemas.settings import Settings

SAMPLE = REAL_SAMPLES / "bigbuckbunny.mp4"
HEIGHTS = (360, 720, 1080)
"""Of the copies of the sample that are measured if no files are named."""
_REPEATS = 3
_PACKAGES = ("av", "numpy", "opencv-python-headless", "onnxruntime")


def measure(
    files: Sequence[Path],
    recipe: Recipe,
    settings: Settings,
    scratch_dir: Path,
    on_done: Callable[[int], None] = lambda done: None,
) -> Costs:
    """Costs of the split and of every stage of the recipe, at the files' resolutions.

    No file: copies of a sample at `HEIGHTS`. Each is done once to warm up, then ``_REPEATS``
    times, of which the median counts; of files of one resolution the mean by length. Every clip
    is scored by every stage. Raises `MediaError` for a file or clip of which nothing can be made,
    `StageStartError` if a stage of the recipe cannot start.
    """
    inputs = ", ".join(file.name for file in files)
    if not files:
        files = [_copy(SAMPLE, height, scratch_dir) for height in HEIGHTS]
        inputs = f"{SAMPLE.name}, encoded as H.264 at {', '.join(f'{h}p' for h in HEIGHTS)}"
    roots = tuple(sorted({str(file.resolve().parent) for file in files}))
    fetch = settings.fetch.model_copy(update={"file_roots": roots, "scratch_dir": str(scratch_dir)})
    settings = settings.model_copy(update={"fetch": fetch})
    recipe = replace(recipe, score_rejected=True)
    chain = EnrichmentChain(recipe, settings)
    measured: dict[str, list[_Measured]] = {}
    try:
        chain.setup()
        with Sandbox(settings.decode, modules=MODULES) as sandbox:
            for done, file in enumerate(files, start=1):
                found = _measure_file(file.resolve(), recipe, settings, chain, sandbox)
                measured.setdefault(found.resolution, []).append(found)
                on_done(done)
        on_gpu = {stage.stage for stage in chain.describe() if stage.on_gpu}
    finally:
        chain.close()
    parameters = {operator.stage: parameters_of(operator) for operator in recipe.operators}
    everything = [found for group in measured.values() for found in group]
    clips = sum(found.clips for found in everything)
    return Costs(
        origin=origin(inputs),
        clip_seconds=sum(found.clip_seconds for found in everything) / clips,
        resolutions={
            resolution: {
                stage: StageCost(
                    seconds=seconds,
                    unit="gpu" if stage in on_gpu else "cpu",
                    parameters=parameters.get(stage, ""),
                )
                for stage, seconds in _mean(group, on_gpu).items()
            }
            for resolution, group in measured.items()
        },
    )


def origin(inputs: str) -> Origin:
    """Today, this machine as it is now, and the versions of what computes."""
    return Origin(
        date=datetime.now(UTC).date().isoformat(),
        machine=f"{_processor()}, {os.cpu_count()} CPUs",
        load=round(os.getloadavg()[0], 2),
        versions={
            "python": platform.python_version(),
            **{name: version(name) for name in _PACKAGES},
        },
        inputs=inputs,
    )


class _Measured:
    """One file's numbers: medians over the repeats."""

    def __init__(self, info: VideoInfo, split_s: float, runs: list[list[Any]]) -> None:
        self.resolution = f"{min(info.width, info.height)}p"
        self.video_seconds = float((info.last_pts_end - info.start_pts) * info.time_base)
        self.split_s = split_s
        self.clips = len(runs[0])
        self.clip_seconds = sum(result.enriched["duration_s"] for result in runs[0])
        self._runs = runs

    def stages(self, on_gpu: set[str]) -> dict[str, float]:
        """Seconds of the file's clips together, by stage.

        Of the CPU time of a clip each stage gets the share that it has of the wall time.
        """
        found: dict[str, list[float]] = {}
        for results in self._runs:
            run: dict[str, float] = {}
            for result in results:
                row = result.enriched
                wall = {name: float(text) for name, text in row["stage_seconds"].items()}
                on_cpu = sum(s for name, s in wall.items() if name not in on_gpu)
                for name, seconds in wall.items():
                    cost = seconds if name in on_gpu else row["cpu_s"] * seconds / on_cpu
                    run[name] = run.get(name, 0.0) + cost
            for name, seconds in run.items():
                found.setdefault(name, []).append(seconds)
        return {name: statistics.median(values) for name, values in found.items()}


def _measure_file(
    file: Path, recipe: Recipe, settings: Settings, chain: EnrichmentChain, sandbox: Sandbox
) -> _Measured:
    uri = file.as_uri()
    video_id = default_video_id(uri)
    video = {"video_key": video_key(video_id, uri), "video_id": video_id, "uri": uri}
    with Fetcher(settings.fetch, settings.scratch_dir).fetch(uri) as media:
        deadline_s = sandbox.deadline_for(0.0)
        info = sandbox.run(probe, str(media.path), deadline_s=deadline_s, stage="probe")
        times = []
        for _ in range(1 + _REPEATS):
            parts, seconds = [], 0.0
            for segment in plan_segments(info, settings.decode.segment_s):
                part, took = sandbox.run(
                    cpu_timed,
                    score_segment,
                    str(media.path),
                    info,
                    segment,
                    deadline_s=sandbox.deadline_for(segment_seconds(info, segment)),
                    stage="split",
                )
                parts.append(part)
                seconds += took
            times.append(seconds)
        joined = join_scores(parts)
        scenes = detect_scenes(
            joined.pts, joined.scores, info, recipe.split, end_pts=joined.end_pts
        )
        rows = clip_rows(
            video,
            info,
            scenes,
            recipe=recipe,
            content_sha256=media.sha256,
            created_at=datetime.now(UTC),
        )
    runs = [chain.run(rows) for _ in range(1 + _REPEATS)]
    for result in runs[0]:
        if failure := result.failure:
            reason, stage = MediaReason(failure["reason"]), str(failure["stage"])
            raise MediaError(reason, f"{file}: {failure['error']}", stage=stage)
    return _Measured(info, statistics.median(times[1:]), runs[1:])


def _mean(group: Sequence[_Measured], on_gpu: set[str]) -> Mapping[str, float]:
    """Seconds for each second of video, by stage, over files of one resolution."""
    seconds: dict[str, float] = {}
    for found in group:
        for name, value in found.stages(on_gpu).items():
            seconds[name] = seconds.get(name, 0.0) + value
    clips_s = sum(found.clip_seconds for found in group)
    return {
        "split": sum(found.split_s for found in group) / sum(f.video_seconds for f in group),
        **{name: value / clips_s for name, value in seconds.items()},
    }


def _copy(sample: Path, height: int, folder: Path) -> Path:
    """The sample, encoded again at another height."""
    import av

    if not sample.is_file():
        raise MediaError(
            MediaReason.NOT_FOUND,
            f"{sample} is not there: run `make setup`, or name files of your own with --video",
            stage="fetch",
        )
    path = folder / f"{sample.stem}-{height}p.mp4"
    with av.open(str(sample)) as source, av.open(str(path), "w", format="mp4") as target:
        video = source.streams.video[0]
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        stream: Any = target.add_stream(codec, rate=video.average_rate)
        stream.width, stream.height = 2 * round(video.width * height / video.height / 2), height
        stream.pix_fmt = "yuv420p"
        stream.options = {"threads": "1", "preset": "veryfast", "crf": "23"}
        for frame in source.decode(video):
            scaled = frame.reformat(stream.width, stream.height, "yuv420p")
            scaled.pict_type = av.video.frame.PictureType.NONE
            target.mux(stream.encode(scaled))
        target.mux(stream.encode())
    return path


def _processor() -> str:
    """The processor's name, as the system has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
