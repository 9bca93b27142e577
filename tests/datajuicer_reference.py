"""What DataJuicer's own operators say about given video files, as JSON and arrays.

A script for DataJuicer's environment; it imports nothing of this project. Called with a file of
requests and a folder for the results::

    .venv-datajuicer/bin/python tests/datajuicer_reference.py requests.json results/

A request names an operator, its parameters and the files: ``{"name": …, "op": …,
"parameters": {…}, "paths": […]}``. ``results.json`` then holds, by name and path, what that
operator computed: scenes as ``[start, end]`` in seconds, frames as the name of an ``.npy`` file,
scores as numbers, captions as text and tokens. A request for captions also gives ``generate``,
arguments that replace the operator's own, which sample without a seed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1"}

import numpy as np
import torch
from data_juicer.utils.constant import Fields, StatsKeys
from data_juicer.utils.lazy_loader import LazyLoader
from data_juicer.utils.mm_utils import load_video
from data_juicer.utils.model_utils import get_model
from data_juicer.utils.video_utils import create_video_reader
from loguru import logger


def _refuse(package: str, *_: Any) -> None:
    raise ImportError(f"DataJuicer lacks {package}, and would install it now")


LazyLoader._install_package = staticmethod(_refuse)


def scenes(parameters: dict[str, Any], paths: list[str], folder: Path) -> dict[str, Any]:
    """``[start, end]`` of every scene that the split operator cuts, in seconds.

    Its encoding of the cut files is left out: it calls ffmpeg, and changes no time.
    """
    from data_juicer.ops.mapper.video_split_by_scene_mapper import VideoSplitBySceneMapper

    found: list[list[float]] = []

    class Recording(VideoSplitBySceneMapper):  # type: ignore[misc]
        def _split_video(self, video_path: str, scene_list: Any, output_template: str) -> list[str]:
            return [video_path] * len(scene_list)

        def _detect_scenes_and_split_video(self, *arguments: Any) -> Any:
            scene_list, files = super()._detect_scenes_and_split_video(*arguments)
            found.extend([start.seconds, end.seconds] for start, end in scene_list)
            return scene_list, files

    operator = Recording(save_dir=str(folder), **parameters)
    results = {}
    for path in paths:
        found.clear()
        operator.process_single({"videos": [path], "text": ""})
        results[path] = list(found)
    return results


def durations(parameters: dict[str, Any], paths: list[str], _: Path) -> dict[str, Any]:
    """Seconds."""
    from data_juicer.ops.filter.video_duration_filter import VideoDurationFilter

    return _stats(VideoDurationFilter(**parameters), StatsKeys.video_duration, paths)


def frames(parameters: dict[str, Any], paths: list[str], folder: Path) -> dict[str, Any]:
    """Names of files with uint8 ``[n, height, width, 3]``: before the operator's JPEG."""
    from data_juicer.ops.mapper.video_extract_frames_mapper import VideoExtractFramesMapper

    operator = VideoExtractFramesMapper(output_format="bytes", **parameters)
    results = {}
    for path in paths:
        reader = create_video_reader(path, backend=operator.video_backend)
        pictures = [np.asarray(picture) for picture in operator.extract_frames(reader)]
        reader.close()
        name = f"frames-{len(list(folder.glob('frames-*')))}.npy"
        np.save(folder / name, np.stack(pictures))
        results[path] = name
    return results


def safety(parameters: dict[str, Any], paths: list[str], _: Path) -> dict[str, Any]:
    """Probability of the second class."""
    from data_juicer.ops.filter.video_nsfw_filter import VideoNSFWFilter

    return _stats(VideoNSFWFilter(**parameters), StatsKeys.video_nsfw_score, paths)


def motion(parameters: dict[str, Any], paths: list[str], _: Path) -> dict[str, Any]:
    """Pixels a sampled pair of frames."""
    from data_juicer.ops.filter import video_motion_score_filter
    from data_juicer.ops.filter.video_motion_score_filter import VideoMotionScoreFilter

    # The operator turns all flow fields into lists, which nobody asked for and which takes far
    # longer than the scores; it gets no fields to turn.
    video_motion_score_filter.np = NumpyWithoutStack()
    return _stats(VideoMotionScoreFilter(**parameters), StatsKeys.video_motion_score, paths)


def aesthetics(parameters: dict[str, Any], paths: list[str], _: Path) -> dict[str, Any]:
    """About 0 to 1, as the operator normalises."""
    from data_juicer.ops.filter.video_aesthetics_filter import VideoAestheticsFilter

    operator = VideoAestheticsFilter(**parameters)
    return _stats(operator, StatsKeys.video_frames_aesthetics_score, paths)


def captions(
    parameters: dict[str, Any], paths: list[str], _: Path, generate: dict[str, Any]
) -> dict[str, Any]:
    """Text and tokens, both with the prompt if there is one; one clip at a time."""
    from data_juicer.ops.mapper.video_captioning_from_video_mapper import (
        VideoCaptioningFromVideoMapper,
    )

    operator = VideoCaptioningFromVideoMapper(**parameters)
    model, processor = get_model(operator.model_key)
    model.eval()
    original = model.generate
    tokens: list[list[int]] = []

    def generate_as_asked(**arguments: Any) -> Any:
        arguments = {k: v for k, v in (arguments | generate).items() if v is not None}
        generated = original(**arguments)
        tokens.extend(generated.tolist())
        return generated

    model.generate = generate_as_asked
    results = {}
    for path in paths:
        tokens.clear()
        container = load_video(path)
        ((text,),) = operator._gen_caption_from_frames(True, container, model, processor, None)
        container.close()
        results[path] = {"text": text, "tokens": tokens[0]}
    return results


class NumpyWithoutStack:
    """What the motion operator is given for numpy, so that it has no fields to turn into lists."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def stack(self, _: Any) -> Any:
        return np.empty(0)


def _stats(operator: Any, key: str, paths: list[str]) -> dict[str, Any]:
    """A filter's statistic of each file, an error being an error."""
    results = {}
    for path in paths:
        sample = operator.compute_stats_single({"videos": [path], Fields.stats: {}})
        (results[path],) = map(float, sample[Fields.stats][key])
    return results


OPERATORS: dict[str, Callable[..., dict[str, Any]]] = {
    "video_split_by_scene_mapper": scenes,
    "video_duration_filter": durations,
    "video_extract_frames_mapper": frames,
    "video_nsfw_filter": safety,
    "video_motion_score_filter": motion,
    "video_aesthetics_filter": aesthetics,
    "video_captioning_from_video_mapper": captions,
}


def main(requests: Path, folder: Path) -> None:
    logger.remove()
    logger.add(sys.stderr, level="ERROR")
    torch.set_num_threads(1)
    results = {}
    for request in json.loads(requests.read_text(encoding="utf-8")):
        more = {"generate": request["generate"]} if "generate" in request else {}
        run = OPERATORS[request["op"]]
        results[request["name"]] = run(request["parameters"], request["paths"], folder, **more)
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
