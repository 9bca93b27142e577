"""What is measured on which input: the jobs of a benchmark, group by group.

Both sides of a comparison get the same files, the same parameters and the same tiny models. No
gate lets a clip go, so that all stages see all clips.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.inputs import Video, cut
from benchmarks.runs import Job
from processors.media.sandbox import Sandbox
from processors.split import MODULES, split_video
from schemas.operators import SplitByScene
from schemas.settings import DecodeSettings
from tests.servers import Served, serve

if TYPE_CHECKING:
    # With it comes torch.
    from tests.tiny_models import TinyCheckpoints

NEW_TOKENS = 16
_GREEDY = {
    "num_beams": 1,
    "do_sample": False,
    "temperature": None,
    "top_p": None,
    "repetition_penalty": None,
}
_ANY = {"min_score": -1e9, "max_score": 1e9}
_KEYFRAMES: dict[str, Any] = {"frame_sampling_method": "all_keyframes"}
_UNIFORM: dict[str, Any] = {"frame_sampling_method": "uniform", "frame_num": 3}
_SPLIT = {"detector": "ContentDetector", "threshold": 27.0, "min_scene_len": 15}
_SHORTEST_FRAMES = 10
"""Shorter scenes are no clips of a benchmark: one pair of frames says nothing."""
_PIXELS_OF_A_RUN = 600e6
"""Of decoded frames: about a second of decoding."""
_MOST_PASSES = 30
_DEADLINE_S = 600.0
"""A busy machine is no failure."""

STAGES = ("frames", "safety", "motion", "aesthetics", "caption")
"""Ours, one after the other; the first is decoding with stored frames and their quality."""


@dataclass(frozen=True)
class Store:
    """A server of videos, and how much it was asked for."""

    served: Served
    pages: dict[str, bytes]

    @property
    def bytes_sent(self) -> int:
        """Of all answers so far."""
        return sum(len(self.pages[path]) for path, _ in self.served.requests)


@dataclass
class Input:
    """One thing to measure on, and the jobs that are compared on it, by name."""

    group: str
    name: str
    seconds: float
    """Of video."""
    size: int
    """Bytes of it."""
    frames: int
    jobs: dict[str, Job] = field(default_factory=dict)
    store: Store | None = None
    """Where ours fetches from; None: files are read in place."""


def split_inputs(videos: Sequence[Video]) -> list[Input]:
    """Bare decoding, PySceneDetect and our split, a video at a time."""
    return [
        Input(
            "split",
            video.name,
            video.info.duration_s,
            video.size,
            video.info.frame_count,
            {
                task: Job(task, {"videos": [str(video.path)], "passes": _passes(video)})
                for task in ("decode", "scenedetect", "split")
            },
        )
        for video in videos
    ]


def _passes(video: Video) -> int:
    """How often a video is worked on in one run: a child's CPU time is counted in hundredths of a
    second, and a machine's speed changes within seconds."""
    pixels = video.info.frame_count * video.info.width * video.info.height
    return min(_MOST_PASSES, max(1, round(_PIXELS_OF_A_RUN / max(1, pixels))))


def make_clips(videos: Sequence[Video], folder: Path) -> list[Path]:
    """The scenes of some videos as files."""
    folder.mkdir(parents=True, exist_ok=True)
    clips = []
    settings = DecodeSettings(deadline_base_s=_DEADLINE_S)
    with Sandbox(settings, modules=MODULES) as sandbox:
        for video in videos:
            scenes = split_video(video.path, video.info, SplitByScene(), settings, sandbox)
            for number, scene in enumerate(scenes):
                if scene.end_frame - scene.start_frame >= _SHORTEST_FRAMES:
                    path = folder / f"{video.path.stem}-{number}.mp4"
                    clips.append(cut(video, scene.start_frame, scene.end_frame, path))
    return clips


def enrichment_input(name: str, clips: Sequence[Video], checkpoints: TinyCheckpoints) -> Input:
    """The stages after the split on clips that are files, ours one more at a time."""
    paths = [str(clip.path) for clip in clips]
    common = {"clips": paths}
    jobs = {"decode": Job("decode", {"videos": paths})}
    for name_, mended in (("datajuicer", False), ("datajuicer-mended", True)):
        theirs = {**common, **datajuicer_side(checkpoints), "mended": mended}
        jobs[name_] = Job("enrich", theirs, datajuicer=True)
    for count, stage in enumerate(STAGES, start=1):
        process = our_process(checkpoints, STAGES[1:count])
        jobs["ours" if stage == STAGES[-1] else f"ours-to-{stage}"] = Job(
            "enrich", {**common, "process": process}
        )
    return Input("enrichment", name, *_sums(clips), jobs)


@contextmanager
def chain_input(
    name: str,
    videos: Sequence[Video],
    clips: Sequence[Video],
    checkpoints: TinyCheckpoints,
) -> Iterator[Input]:
    """The article's whole chain; ``clips`` are for starting up. Ours fetches from a server."""
    pages = {f"/{number}": video.path.read_bytes() for number, video in enumerate(videos)}
    with serve(pages) as served:
        common = {"clips": [str(clip.path) for clip in clips[:1]]}
        paths = [str(video.path) for video in videos]
        jobs = {"decode": Job("decode", {"videos": paths})}
        for name_, mended in (("datajuicer", False), ("datajuicer-mended", True)):
            theirs = {**common, **datajuicer_side(checkpoints), "mended": mended, "split": _SPLIT}
            jobs[name_] = Job("whole", {**theirs, "videos": paths}, datajuicer=True)
        uris = [f"{served.url}{path}" for path in pages]
        process = our_process(checkpoints, STAGES[1:])
        jobs["ours"] = Job("whole", {**common, "process": process, "uris": uris})
        yield Input("chain", name, *_sums(videos), jobs, Store(served, dict(pages)))


def _sums(videos: Sequence[Video]) -> tuple[float, int, int]:
    return (
        sum(video.info.duration_s for video in videos),
        sum(video.size for video in videos),
        sum(video.info.frame_count for video in videos),
    )


def _operators(checkpoints: TinyCheckpoints) -> dict[str, dict[str, Any]]:
    """Parameters by stage, as in the article's recipe, with gates that let everything pass."""
    return {
        "frames": _KEYFRAMES,
        "safety": {"hf_nsfw_model": str(checkpoints.safety), **_ANY, **_KEYFRAMES},
        "motion": _ANY,
        "aesthetics": {"hf_scorer_model": str(checkpoints.aesthetics), **_ANY, **_UNIFORM},
        "caption": {"hf_video_blip": str(checkpoints.video_blip), **_KEYFRAMES},
    }


def datajuicer_side(checkpoints: TinyCheckpoints, new_tokens: int = NEW_TOKENS) -> dict[str, Any]:
    """What its operators are made with; captions are greedy, of ``new_tokens`` at most."""
    generate = {**_GREEDY, "max_new_tokens": new_tokens}
    return {"operators": _operators(checkpoints), "generate": generate}


def our_process(
    checkpoints: TinyCheckpoints, stages: Sequence[str], new_tokens: int = NEW_TOKENS
) -> list[Any]:
    """Our recipe with some of the model stages."""
    names = {
        "safety": "video_nsfw_filter",
        "motion": "video_motion_score_filter",
        "aesthetics": "video_aesthetics_filter",
        "caption": "video_captioning_from_video_mapper",
    }
    parameters = _operators(checkpoints)
    parameters["caption"] = {**parameters["caption"], "max_new_tokens": new_tokens}
    return [
        {"video_split_by_scene_mapper": _SPLIT},
        {"video_extract_frames_mapper": parameters["frames"]},
        *({names[stage]: parameters[stage]} for stage in stages),
    ]
