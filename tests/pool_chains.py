"""Chains for the pool's tests: what a chain promises, without any video."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray

from processors.chain import StageDescription
from processors.errors import DependencyFault, MediaError, StageStartError
from processors.fetch import Fetcher
from processors.results import ClipResult, failed, passed
from processors.stores import StoreOut
from schemas.reasons import MediaReason
from schemas.recipe import Recipe
from schemas.settings import Settings


class NoStages:
    """What the pool asks of a chain, without any; a subclass says what becomes of clips."""

    longest_s = 0.0

    def __init__(self, recipe: Recipe, settings: Settings) -> None:
        self._recipe = recipe

    def setup(self) -> None:
        pass

    def close(self) -> None:
        pass

    def describe(self) -> list[StageDescription]:
        return []


class Scripted(NoStages):
    """Keeps every clip, unless its video's URI says what else should happen.

    ``file:///kill-worker.mp4`` ends the actor's process, ``hang``, ``raise``, ``not-found`` and
    ``store-out`` do what they say; ``store-out`` as long as ``<state_dir>/store-is-out`` exists.
    Each call leaves a line in ``<state_dir>/calls``.
    """

    def __init__(self, recipe: Recipe, settings: Settings) -> None:
        super().__init__(recipe, settings)
        self._state_dir = settings.state_dir

    def run(self, clips: Sequence[Mapping[str, Any]]) -> list[ClipResult]:
        self._log(clips)
        return [self._one(clip) for clip in clips]

    def _log(self, clips: Sequence[Mapping[str, Any]]) -> None:
        line = " ".join(clip["clip_id"] for clip in clips)
        with (self._state_dir / "calls").open("a") as file:
            file.write(line + "\n")

    def _one(self, clip: Mapping[str, Any]) -> ClipResult:
        what = Path(clip["uri"]).stem
        if what == "kill-worker":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "hang":
            time.sleep(3600)
        if what == "slow":
            time.sleep(0.1)
        if what == "raise":
            raise ValueError("this chain has a bug")
        if what == "store-out" and (self._state_dir / "store-is-out").exists():
            raise DependencyFault("the store does not answer")
        if what == "not-found":
            error = MediaError(MediaReason.NOT_FOUND, "it is not there", stage="fetch")
            return failed(clip, self._recipe, error)
        result = passed(clip, self._recipe, {"nsfw_score": 0.1, "stage_seconds": {"safety": "1"}})
        result.frames = {
            "clip_id": clip["clip_id"],
            "video_frames": [b"jpeg"],
            "frame_times_s": [clip["start_s"]],
        }
        return result


class Fetching(Scripted):
    """Fetches each clip's video and keeps the clip, as the real chain does without its stages."""

    def __init__(self, recipe: Recipe, settings: Settings) -> None:
        super().__init__(recipe, settings)
        self._fetcher = Fetcher(settings.fetch, settings.scratch_dir, keep_for="enrichment")

    def close(self) -> None:
        self._fetcher.close()

    def run(self, clips: Sequence[Mapping[str, Any]]) -> list[ClipResult]:
        return [self._fetched(clip) for clip in clips]

    def _fetched(self, clip: Mapping[str, Any]) -> ClipResult:
        try:
            with self._fetcher.fetch(clip["uri"], expected_sha256=clip["content_sha256"]):
                return passed(clip, self._recipe, {})
        except StoreOut as fault:
            result = failed(clip, self._recipe, fault.as_media_error())
            result.held = str(fault)
            return result
        except MediaError as error:
            return failed(clip, self._recipe, error)


class OnNodes(Scripted):
    """Slow; leaves a line in ``<scratch folder>/nodes`` of the node where each call ran."""

    def __init__(self, recipe: Recipe, settings: Settings) -> None:
        super().__init__(recipe, settings)
        self._scratch_dir = settings.scratch_dir

    def run(self, clips: Sequence[Mapping[str, Any]]) -> list[ClipResult]:
        self._scratch_dir.mkdir(parents=True, exist_ok=True)
        with (self._scratch_dir / "nodes").open("a") as file:
            file.write(f"{ray.get_runtime_context().get_node_id()}\n")
        time.sleep(0.2)
        return super().run(clips)


class Together(Scripted):
    """Holds the first call of an actor until a second one has come to the same actor."""

    def __init__(self, recipe: Recipe, settings: Settings) -> None:
        super().__init__(recipe, settings)
        self._calls = itertools.count(1)
        self._second = threading.Event()

    def run(self, clips: Sequence[Mapping[str, Any]]) -> list[ClipResult]:
        if next(self._calls) == 2:
            self._second.set()
        if not self._second.wait(60):
            raise TimeoutError("no second call came while the first one was under way")
        return super().run(clips)


class MayTakeLong(Scripted):
    """Takes longer than the settings give to a clip, as its stages may by limits of their own."""

    longest_s = 60.0

    def run(self, clips: Sequence[Mapping[str, Any]]) -> list[ClipResult]:
        time.sleep(8)
        return super().run(clips)


class CannotStart(Scripted):
    """A stage's model is missing."""

    def setup(self) -> None:
        raise StageStartError("safety: model file open-nsfw.onnx is not there; run `make setup`")
