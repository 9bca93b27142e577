"""The parts of the GPU benchmark that run in this project's environment, with its own stages.

``stages``: each model alone and all of them in one actor, on decoded frames, for each size of
batches. ``pipeline``: fetching, split, decoding and all stages. ``decode``: what a GPU's decoder
would save. ``static``: captions with a static cache. One process runs the parts that it is told,
one after the other, and ends with the first that fails: `benchmarks.gpu` starts the rest anew.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import cycle, islice
from multiprocessing import get_context
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from benchmarks.gpu_meter import Done, Lines, window
from benchmarks.meter import Meter

if TYPE_CHECKING:
    from benchmarks.gpu_chain import OnDecodedFrames
    from processors.stage import Sample
    from schemas.recipe import Recipe
    from schemas.settings import Settings
    from tests.tiny_models import TinyCheckpoints

Job = dict[str, Any]
_MICRO_BATCH = 8
"""Clips of one call, where calls are many: as many as the clips of a video or two."""


def stages(job: Job, lines: Lines) -> None:
    """Each size of batches: the models one by one, then all of them in one actor."""
    for size in job["sizes"]:
        _one_size(job, lines, size, first=size == job["sizes"][0])
        _forget_models()


def _one_size(job: Job, lines: Lines, size: tuple[int, int], *, first: bool) -> None:
    from benchmarks.gpu_chain import OnDecodedFrames, alone, ready, recipe_of, settings_of

    frames, clips = size
    named = {"frames_per_batch": frames, "clips_per_batch": clips}
    # The first are the settings' own: two calls at a time. Others get calls enough to fill the
    # models' batches while as many clips are on their way between them.
    calls = 2 if first else max(2, 3 * clips // _MICRO_BATCH)
    chain = OnDecodedFrames(recipe_of(job), settings_of(job, size, calls=calls))
    started = time.perf_counter()
    with ready(chain):
        rows = chain.give(job["clips"])
        lines.add(what="set up", seconds=time.perf_counter() - started, **named)
        samples = [chain.sample(row) for row in rows]
        if first:
            _scores(chain, rows, lines)
        for name, batches in chain.models().items():
            done, took = alone(batches, samples, job["seconds"])
            lines.rate(f"{name} alone", done, took, on_gpu=batches.stage.on_gpu, **named)
        _actor(chain, rows, lines, job, calls, named)


def _actor(
    chain: OnDecodedFrames,
    rows: list[dict[str, Any]],
    lines: Lines,
    job: Job,
    calls: int,
    named: dict[str, int],
) -> None:
    """All stages side by side, as an actor of the pool runs its calls."""
    from benchmarks.gpu_chain import done_of, kept_busy

    clips = list(islice(cycle(rows), 32 if calls == 2 else _MICRO_BATCH))
    done, took = kept_busy(lambda: done_of(chain.run(clips)), calls, 2 * job["seconds"])
    more = {"calls_in_flight": calls, "micro_batch_clips": len(clips)}
    lines.rate("actor", done, took, **named, **more)


def _scores(chain: OnDecodedFrames, rows: list[dict[str, Any]], lines: Lines) -> None:
    """What the models say of each clip, to be compared with what DataJuicer's operators say."""
    from benchmarks.tasks import scores_of

    for row, result in zip(rows, chain.run(rows), strict=True):
        found = {**scores_of(result), "caption": result.enriched["caption"]}
        lines.add(what="scores", side="ours", clip=Path(row["uri"]).name, **found)


def _forget_models() -> None:
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def pipeline(job: Job, lines: Lines) -> None:
    """From a file to scores and a caption: fetched and split in processes of their own, as Flink's
    workers do it, then fetched again, decoded and scored in one actor."""
    from benchmarks.gpu_chain import done_of, kept_busy, ready, recipe_of, settings_of
    from processors.chain import EnrichmentChain

    cpus, size = job["cpus"], _best_size(job, lines)
    decoders = max(1, cpus - 1)
    # Calls wait for a decoder, for one another in the models' batches, or for the split.
    calls = 2 * decoders + 8
    recipe, settings = recipe_of(job), settings_of(job, size, decoders=decoders, calls=calls)
    chain = EnrichmentChain(recipe, settings)
    splitters = max(1, cpus // 4)
    uris, turn = cycle([Path(path).as_uri() for path in job["videos"]]), Lock()
    with (
        ready(chain),
        ProcessPoolExecutor(
            splitters, get_context("spawn"), _start_splitter, (recipe, settings)
        ) as pool,
    ):

        def one_video() -> Done:
            with turn:
                uri = next(uris)
            return done_of(chain.run(pool.submit(_split, uri).result()))

        done, took = kept_busy(one_video, calls, job["pipeline_seconds"])
    lines.rate(
        "pipeline",
        done,
        took,
        cpus=cpus,
        cpu_busy=took.cpu_cores / cpus,
        cpu_s_per_video_s=took.cpu_cores * took.wall_s / done.video_s,
        frames_per_batch=size[0],
        clips_per_batch=size[1],
        calls_in_flight=calls,
        decoders_per_actor=decoders,
        split_processes=splitters,
    )


def _best_size(job: Job, lines: Lines) -> tuple[int, int]:
    """The sizes of batches with which the actor was fastest; the settings' own before that."""
    actors = [line for line in lines.read() if line.get("what") == "actor"]
    if not actors:
        frames, clips = job["sizes"][0]
        return frames, clips
    best = max(actors, key=lambda line: line["video_s_per_s"])
    return best["frames_per_batch"], best["clips_per_batch"]


_splitter: Any = None
"""In a process of the split: recipe, settings, fetcher and sandbox."""


def _start_splitter(recipe: Recipe, settings: Settings) -> None:
    global _splitter
    from processors.fetch import Fetcher
    from processors.media.sandbox import Sandbox
    from processors.split import MODULES

    fetcher = Fetcher(settings.fetch, settings.scratch_dir)
    _splitter = (recipe, settings, fetcher, Sandbox(settings.decode, modules=MODULES))


def _split(uri: str) -> list[dict[str, Any]]:
    from benchmarks.tasks import split_rows

    recipe, settings, fetcher, sandbox = _splitter
    return split_rows(uri, recipe, settings.decode, fetcher, sandbox)


def decode(job: Job, lines: Lines) -> None:
    """The probe for hardware decoding: every frame of a video to memory, by one thread of a CPU and
    by the GPU's decoder. It is worth having if a frame costs less CPU time."""
    import av
    from av.codec.hwaccel import HWAccel, hwdevices_available

    path = job["videos"][0]

    def frames(hardware: Any) -> tuple[int, bool]:
        with av.open(path, hwaccel=hardware) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            count = sum(1 for frame in container.decode(stream) if frame.to_ndarray().size)
            return count, bool(stream.codec_context.is_hwaccel)

    ways: dict[str, Any] = {"software": None}
    if "cuda" in hwdevices_available():
        ways["hardware"] = HWAccel("cuda", allow_software_fallback=False)
    for name, hardware in ways.items():
        try:
            frames(hardware)
        except Exception as error:  # whatever libav says of a driver that is not there
            lines.add(what=f"decode {name}", error=f"{type(error).__name__}: {error}")
            continue
        count, ends = 0, time.monotonic() + job["seconds"]
        with window() as took:
            while not count or time.monotonic() < ends:
                some, used = frames(hardware)
                count += some
        lines.add(
            what=f"decode {name}",
            frames_per_s=count / took.wall_s,
            cpu_ms_per_frame=1000 * took.cpu_cores * took.wall_s / count,
            on_gpu=used,
        )


def static(job: Job, lines: Lines) -> None:
    """Captions with transformers' static cache, which it compiles into CUDA graphs on a GPU."""
    from benchmarks.gpu_chain import OnDecodedFrames, alone, ready, recipe_of, settings_of

    size = _best_size(job, lines)
    chain = OnDecodedFrames(recipe_of(job), settings_of(job, size))
    with ready(chain):
        samples: list[Sample] = [chain.sample(row) for row in chain.give(job["clips"])]
        batches = chain.models()["caption"]
        named = {"frames_per_batch": size[0], "clips_per_batch": size[1]}
        texts = {}
        for cache in ("dynamic", "static"):
            _with_cache(batches.stage, cache)
            began = time.perf_counter()
            texts[cache] = [one.outcome for one in batches.run(samples)]
            done, took = alone(batches, samples, job["seconds"])
            warm_up_s = time.perf_counter() - began - took.wall_s
            lines.rate(f"caption, {cache} cache", done, took, warm_up_s=warm_up_s, **named)
        lines.add(what="static cache", equal_captions=texts["dynamic"] == texts["static"])


def _with_cache(stage: Any, cache: str) -> None:
    """Have the stage's language model generate with that kind of cache."""
    model = stage._model.language_model
    plain = type(model).generate

    def generate(**how: Any) -> Any:
        return plain(model, cache_implementation=cache, **how)

    model.generate = generate


PARTS: dict[str, Callable[[Job, Lines], None]] = {
    part.__name__: part for part in (stages, pipeline, decode, static)
}


def prepare(job: Job) -> None:
    """Make the videos, clips and checkpoints as far as they are not there."""
    from benchmarks import gpu_inputs, gpu_models, random_weights
    from benchmarks.cases import STAGES, datajuicer_side, our_process

    inputs = Path(job["inputs"])
    job |= gpu_inputs.make(inputs, tiny=job["tiny"], height=job["height"])
    made: TinyCheckpoints = gpu_models.make(inputs / "models", tiny=job["tiny"])
    job["process"] = our_process(made, STAGES[1:], job["new_tokens"])
    theirs = datajuicer_side(made, job["new_tokens"])
    Path(job["made"]).write_text(
        json.dumps({"clips": job["clips"], "seconds_of": job["seconds_of"], **theirs}),
        encoding="utf-8",
    )
    random_weights.install()


def main(order: str, answer: str) -> None:
    """Do the parts that the file ``order`` names; figures go to its ``lines``."""
    job: Job = json.loads(Path(order).read_text(encoding="utf-8"))
    os.environ["HF_HUB_OFFLINE"] = "1"
    prepare(job)
    for part in job["parts"]:
        lines = Lines(Path(job["lines"]), {"part": part})
        lines.add(what="begun")
        PARTS[part](job, lines)
        lines.add(what="ended")
    Meter().write(answer, None)


if __name__ == "__main__":
    main(*sys.argv[1:])
