"""The measured work that runs in this project's environment: the limit, a peer, and ours.

Each task is run by `benchmarks.runs` in a process of its own. Its code is that of the pipeline:
nothing of it is repeated here.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.meter import Meter

if TYPE_CHECKING:
    # A task imports what it needs: the rest would count as its memory.
    from processors.chain import ClipResult, EnrichmentChain
    from processors.fetch import Fetcher
    from processors.media.sandbox import Sandbox
    from schemas.recipe import Recipe
    from schemas.settings import DecodeSettings, Settings

_DEADLINE_S = 600.0
"""Of every call of the decoder's process: a busy machine is no failure of what is measured."""


def decode(job: dict[str, Any], meter: Meter) -> Any:
    """The limit: PyAV decodes every frame in one thread, and nobody looks at it."""
    import av

    def count(path: str) -> int:
        with av.open(path) as container:
            stream = container.streams.video[0]
            stream.thread_type = "NONE"
            stream.codec_context.thread_count = 1
            return sum(1 for _ in container.decode(stream))

    return _warm(job, meter, count)


def scenedetect(job: dict[str, Any], meter: Meter) -> Any:
    """PySceneDetect's ContentDetector with its defaults: frame numbers at which scenes begin."""
    from scenedetect import ContentDetector, detect

    def starts(path: str) -> list[int]:
        scenes = detect(path, ContentDetector(), start_in_scene=True)
        return [start.frame_num for start, _ in scenes]

    return _warm(job, meter, starts)


def split(job: dict[str, Any], meter: Meter) -> Any:
    """Our split as the pipeline runs it: probe and segments in the limited child process."""
    from processors.media.probe import probe
    from processors.media.sandbox import Sandbox
    from processors.split import MODULES, split_video
    from schemas.operators import SplitByScene
    from schemas.settings import DecodeSettings

    settings = DecodeSettings(deadline_base_s=_DEADLINE_S)
    with Sandbox(settings, modules=MODULES) as sandbox:

        def starts(path: str) -> list[int]:
            info = sandbox.run(probe, path, deadline_s=_DEADLINE_S)
            scenes = split_video(path, info, SplitByScene(), settings, sandbox)
            return [scene.start_frame for scene in scenes]

        return _warm(job, meter, starts)


def split_stream(job: dict[str, Any], meter: Meter) -> Any:
    """Our split of videos of which some cannot be split: how many were, and were refused."""
    import time

    from benchmarks.poison import HANG
    from processors.errors import MediaError
    from processors.media.probe import probe
    from processors.media.sandbox import Sandbox
    from processors.split import MODULES, split_video
    from schemas.operators import SplitByScene
    from schemas.settings import DecodeSettings

    settings = DecodeSettings()
    counts = {"split": 0, "refused": 0}
    with Sandbox(settings, modules=MODULES) as sandbox:

        def take(path: str) -> None:
            deadline_s = sandbox.deadline_for(0)
            try:
                if path == HANG:
                    sandbox.run(time.sleep, 1e6, deadline_s=deadline_s)
                info = sandbox.run(probe, path, deadline_s=deadline_s)
                split_video(path, info, SplitByScene(), settings, sandbox)
            except MediaError:
                counts["refused"] += 1
            else:
                counts["split"] += 1

        take(job["videos"][0])
        counts["split"] = 0
        with meter.working():
            for path in job["videos"]:
                take(path)
    return counts


def _warm(job: dict[str, Any], meter: Meter, work: Callable[[str], Any]) -> list[Any]:
    """What ``work`` finds in each video; it has run once before the clock runs."""
    passes = job.get("passes", 1)
    work(job["videos"][0])
    with meter.working(passes):
        for _ in range(passes):
            found = [work(path) for path in job["videos"]]
    return found


def enrich(job: dict[str, Any], meter: Meter) -> Any:
    """Our stages after the split, over clips that are whole files: scores by clip."""
    clips = job["clips"]
    with _chain(job) as (chain, recipe):
        rows = [file_row(path, recipe) for path in clips]
        # Starts the decoder's process, and has the models run once.
        chain.run(rows[:1])
        with meter.working():
            results = chain.run(rows)
    return [scores_of(result) for result in results]


def whole(job: dict[str, Any], meter: Meter) -> Any:
    """Ours from a URI to scores: fetched and split, fetched and enriched. Scores by clip."""
    from processors.fetch import Fetcher
    from processors.media.sandbox import Sandbox
    from processors.split import MODULES

    uris, found = job["uris"], []
    splitter = Sandbox(_settings(job).decode, modules=MODULES)
    with _chain(job) as (chain, recipe), splitter as sandbox:
        chain.run([file_row(path, recipe) for path in job["clips"][:1]])
        sandbox.run(os.getpid, deadline_s=_DEADLINE_S)
        fetcher = Fetcher(_settings(job).fetch, Path(job["folder"]))
        with meter.working():
            for uri in uris:
                with meter.part("split"):
                    rows = split_rows(uri, recipe, _settings(job).decode, fetcher, sandbox)
                with meter.part("enrichment"):
                    found += [scores_of(result) for result in chain.run(rows)]
    return found


def split_rows(
    uri: str, recipe: Recipe, settings: DecodeSettings, fetcher: Fetcher, sandbox: Sandbox
) -> list[dict[str, Any]]:
    """Rows of ``clips`` of a video that is fetched, as the split's job makes them."""
    from processors.media.probe import probe
    from processors.split import clip_rows, split_video

    with fetcher.fetch(uri) as media:
        path = str(media.path)
        info = sandbox.run(probe, path, deadline_s=_DEADLINE_S)
        return clip_rows(
            {"video_key": uri, "video_id": uri, "uri": uri},
            info,
            split_video(path, info, recipe.split, settings, sandbox),
            recipe=recipe,
            content_sha256=media.sha256,
            created_at=datetime.now(UTC),
        )


def _settings(job: dict[str, Any]) -> Settings:
    from schemas.settings import load_settings

    return load_settings(
        None,
        fetch={
            "file_roots": sorted({str(Path(clip).parent) for clip in job["clips"]}),
            "https_hosts": ["127.0.0.1"],
            "allow_http": True,
            "allow_private_addresses": True,
        },
        decode={"deadline_base_s": _DEADLINE_S},
        local={"state_dir": job["folder"]},
        models={"device": "cpu"},
    )


@contextmanager
def _chain(job: dict[str, Any]) -> Iterator[tuple[EnrichmentChain, Recipe]]:
    """The stages of ``job["process"]``, ready."""
    import torch
    import yaml

    from processors.chain import EnrichmentChain
    from schemas.recipe import parse_recipe

    torch.set_num_threads(1)
    text = yaml.safe_dump({"process": job["process"]})
    recipe = parse_recipe(text, where="the benchmark", default_name="benchmark")
    chain = EnrichmentChain(recipe, _settings(job))
    try:
        chain.setup()
        yield chain, recipe
    finally:
        chain.close()


def file_row(path: str, recipe: Recipe) -> dict[str, Any]:
    """A row of ``clips``: a whole file."""
    from processors.media.probe import probe
    from processors.scenes import Scene
    from processors.split import clip_rows

    info, uri = probe(path), Path(path).resolve().as_uri()
    scene = Scene(info.start_pts, info.last_pts_end, 0, info.frame_count)
    (row,) = clip_rows(
        {"video_key": uri, "video_id": uri, "uri": uri},
        info,
        [scene],
        recipe=recipe,
        content_sha256=hashlib.sha256(Path(path).read_bytes()).hexdigest(),
        created_at=datetime.now(UTC),
    )
    return row


def scores_of(result: ClipResult) -> dict[str, float | None]:
    if result.failure:
        raise RuntimeError(f"a clip failed: {result.failure['error']}")
    names = {"safety": "nsfw_score", "motion": "motion_score", "aesthetics": "aesthetics_score"}
    return {name: result.enriched[column] for name, column in names.items()}


TASKS: dict[str, Callable[[dict[str, Any], Meter], Any]] = {
    task.__name__: task for task in (decode, scenedetect, split, split_stream, enrich, whole)
}


def main(order: str, answer: str) -> None:
    """Do what is in the file ``order``, and write to ``answer`` what it took."""
    job = json.loads(Path(order).read_text(encoding="utf-8"))
    meter = Meter()
    found = TASKS[job["task"]](job, meter)
    meter.write(answer, found)


if __name__ == "__main__":
    main(*sys.argv[1:])
