"""The measured work that runs in DataJuicer's environment: its operators, called one by one.

They are called directly, without its executor and that one's processes, which is in DataJuicer's
favour. Imports nothing that its environment lacks. Run by `benchmarks.runs`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import torch
from data_juicer.ops.filter import video_motion_score_filter
from data_juicer.ops.filter.video_aesthetics_filter import VideoAestheticsFilter
from data_juicer.ops.filter.video_duration_filter import VideoDurationFilter
from data_juicer.ops.filter.video_nsfw_filter import VideoNSFWFilter
from data_juicer.ops.mapper.video_captioning_from_video_mapper import (
    VideoCaptioningFromVideoMapper,
)
from data_juicer.ops.mapper.video_extract_frames_mapper import VideoExtractFramesMapper
from data_juicer.ops.mapper.video_split_by_scene_mapper import VideoSplitBySceneMapper
from data_juicer.utils.constant import Fields, StatsKeys
from data_juicer.utils.mm_utils import SpecialTokens, load_video
from data_juicer.utils.model_utils import get_model
from loguru import logger

from benchmarks.meter import Meter
from tests.datajuicer_reference import NumpyWithoutStack

Operator = Callable[[str], Any]


def enrich(job: dict[str, Any], meter: Meter) -> Any:
    """Each operator over all clips: scores by clip. Parts are the operators."""
    stages = operators(job)
    for run in stages.values():
        # Loads its model.
        run(job["clips"][0])
    with meter.working():
        return _scores(stages, job["clips"], meter)


def whole(job: dict[str, Any], meter: Meter) -> Any:
    """The chain: scenes cut out and encoded anew, then each operator over the clips."""
    splitter = VideoSplitBySceneMapper(save_dir=job["folder"], **job["split"])
    stages = operators(job)
    for run in stages.values():
        run(job["clips"][0])
    with meter.working():
        clips: list[str] = []
        with meter.part("split"):
            for path in job["videos"]:
                done = splitter.process_single({"videos": [path], "text": ""})
                clips += done["videos"]
        return _scores(stages, clips, meter)


def _scores(stages: dict[str, Operator], clips: list[str], meter: Meter) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{} for _ in clips]
    for name, run in stages.items():
        with meter.part(name):
            for scores, path in zip(found, clips, strict=True):
                scores[name] = run(path)
    return found


def operators(job: dict[str, Any]) -> dict[str, Operator]:
    """The operators of the article's chain after the split, by our stages' names."""
    if job["mended"]:
        video_motion_score_filter.np = NumpyWithoutStack()
    parameters = job["operators"]
    motion = video_motion_score_filter.VideoMotionScoreFilter(**parameters["motion"])
    filters = {
        "durations": (VideoDurationFilter(video_backend="av"), StatsKeys.video_duration),
        "safety": (VideoNSFWFilter(**parameters["safety"]), StatsKeys.video_nsfw_score),
        "motion": (motion, StatsKeys.video_motion_score),
        "aesthetics": (
            VideoAestheticsFilter(**parameters["aesthetics"]),
            StatsKeys.video_frames_aesthetics_score,
        ),
    }
    stages = {name: _filter(operator, key) for name, (operator, key) in filters.items()}
    return {
        "durations": stages["durations"],
        "frames": _frames(parameters["frames"]),
        "safety": stages["safety"],
        "motion": stages["motion"],
        "aesthetics": stages["aesthetics"],
        "caption": _captions(parameters["caption"], job["generate"]),
    }


def _filter(operator: Any, key: str) -> Operator:
    def run(path: str) -> float:
        sample = operator.compute_stats_single({"videos": [path], Fields.stats: {}})
        (score,) = map(float, sample[Fields.stats][key])
        return score

    return run


def _frames(parameters: dict[str, Any]) -> Operator:
    operator = VideoExtractFramesMapper(output_format="bytes", **parameters)

    def run(path: str) -> int:
        # It looks only at videos that the text stands for.
        sample = operator.process_single({"videos": [path], "text": SpecialTokens.video})
        return len(sample[operator.frame_field][0])

    return run


def _captions(parameters: dict[str, Any], generate: dict[str, Any]) -> Operator:
    """``generate``: arguments in place of the operator's own, which sample without a seed."""
    operator = VideoCaptioningFromVideoMapper(**parameters)
    model, processor = get_model(operator.model_key, use_cuda=operator.use_cuda())
    original = model.generate

    def generate_as_asked(**arguments: Any) -> Any:
        arguments = {k: v for k, v in (arguments | generate).items() if v is not None}
        return original(**arguments)

    model.generate = generate_as_asked

    def run(path: str) -> str:
        container = load_video(path)
        ((text,),) = operator._gen_caption_from_frames(True, container, model, processor, None)
        container.close()
        return str(text)

    return run


TASKS: dict[str, Callable[[dict[str, Any], Meter], Any]] = {
    task.__name__: task for task in (enrich, whole)
}


def main(order: str, answer: str) -> None:
    """Do what is in the file ``order``, and write to ``answer`` what it took."""
    logger.remove()
    logger.add(sys.stderr, level="ERROR")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    job = json.loads(Path(order).read_text(encoding="utf-8"))
    meter = Meter()
    found = TASKS[job["task"]](job, meter)
    meter.write(answer, found)


if __name__ == "__main__":
    main(*sys.argv[1:])
