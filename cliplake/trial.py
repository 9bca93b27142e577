"""A recipe over local files in this process: what the pipeline would write, written nowhere.

The same stages as in the pipeline, without broker, Flink, Ray and lake.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from cliplake.clip_table import SCORES
from processors.chain import ClipResult, EnrichmentChain, duration_rejected
from processors.errors import DependencyFault, MediaError
from processors.fetch import Fetcher
from processors.media.probe import probe
from processors.media.sandbox import Sandbox
from processors.split import MODULES, clip_rows, split_video
from schemas.ids import default_video_id, video_key
from schemas.reasons import MediaReason
from schemas.recipe import Recipe
from schemas.settings import Settings

_CLIP_FIELDS = (
    "start_s",
    "end_s",
    "kept",
    "reject_reason",
    *SCORES,
    "caption_tokens",
    "operator_stats",
    "operator_outputs",
    "status",
    "clip_index",
    "start_frame",
    "end_frame",
    "duration_s",
    "safety_model",
    "motion_model",
    "aesthetics_model",
    "caption_model",
    "clip_id",
)


@dataclass
class TriedVideo:
    """One file's end: its clips, every scene of it, or its dead letter; never both or none."""

    path: str
    """As it was given."""
    clips: list[dict[str, Any]] = field(default_factory=list)
    """Rows of ``enriched_clips`` without ``enrich_seq``; beside them, of a clip that failed,
    ``failed_stage`` and ``error``."""
    dead_letter: dict[str, Any] | None = None
    """``stage``, ``reason`` and ``error``."""

    def as_json(self) -> dict[str, Any]:
        """What `cliplake try --json` prints for this file."""
        return {
            "path": self.path,
            "clips": [
                {name: _plain(clip.get(name)) for name in (*_CLIP_FIELDS, "failed_stage", "error")}
                for clip in self.clips
            ],
            "dead_letter": self.dead_letter,
        }


def try_files(
    paths: Sequence[str],
    recipe: Recipe,
    settings: Settings,
    scratch_dir: Path,
    on_done: Callable[[int], None] = lambda done: None,
) -> list[TriedVideo]:
    """One result a path, in order. ``on_done`` hears how many are done.

    The only folders that may be read are those in which the files are. Raises
    `StageStartError` if a stage of the recipe cannot start; then no file was touched.
    """
    files = [_file_of(path) for path in paths]
    fetch = settings.fetch.model_copy(
        update={
            "file_roots": tuple(sorted({str(file.parent) for file in files})),
            "scratch_dir": str(scratch_dir),
        }
    )
    settings = settings.model_copy(update={"fetch": fetch})
    chain = EnrichmentChain(recipe, settings)
    tried = []
    try:
        chain.setup()
        with Sandbox(settings.decode, modules=MODULES) as sandbox:
            for path, file in zip(paths, files, strict=True):
                tried.append(_try_file(path, file, recipe, settings, chain, sandbox))
                on_done(len(tried))
    finally:
        chain.close()
    return tried


def _file_of(path: str) -> Path:
    """A path, or a `file:` URI as `submit` takes it."""
    if path.startswith("file:"):
        path = url2pathname(urlsplit(path).path)
    return Path(path).expanduser().resolve()


def _try_file(
    path: str,
    file: Path,
    recipe: Recipe,
    settings: Settings,
    chain: EnrichmentChain,
    sandbox: Sandbox,
) -> TriedVideo:
    try:
        if not file.parent.is_dir():
            raise MediaError(
                MediaReason.NOT_FOUND, f"there is no folder {file.parent}", stage="fetch"
            )
        rows = _split(file, recipe, settings, sandbox)
    except DependencyFault:
        raise
    except Exception as error:
        # As in the split job: scores are data from outside, and what they bring about in the
        # detector costs this file only.
        letter = error if isinstance(error, MediaError) else _unforeseen(error)
        return TriedVideo(
            path,
            dead_letter={
                "stage": letter.stage,
                "reason": letter.reason.value,
                "error": letter.error,
            },
        )
    results = {r.clip_id: r for r in chain.run([row for row in rows if row["duration_ok"]])}
    for row in rows:
        if not row["duration_ok"]:
            results[row["clip_id"]] = duration_rejected(row, recipe)
    return TriedVideo(path, clips=[_clip(results[row["clip_id"]]) for row in rows])


def _unforeseen(error: Exception) -> MediaError:
    return MediaError(MediaReason.STAGE_ERROR, f"{type(error).__name__}: {error}", stage="split")


def _split(
    file: Path, recipe: Recipe, settings: Settings, sandbox: Sandbox
) -> list[dict[str, Any]]:
    """The rows of ``clips`` of one file."""
    uri = file.as_uri()
    video_id = default_video_id(uri)
    video = {"video_key": video_key(video_id, uri), "video_id": video_id, "uri": uri}
    with Fetcher(settings.fetch, settings.scratch_dir).fetch(uri) as media:
        info = sandbox.run(
            probe, str(media.path), deadline_s=sandbox.deadline_for(0.0), stage="probe"
        )
        scenes = split_video(media.path, info, recipe.split, settings.decode, sandbox)
        return clip_rows(
            video,
            info,
            scenes,
            recipe=recipe,
            content_sha256=media.sha256,
            created_at=datetime.now(UTC),
        )


def _clip(result: ClipResult) -> dict[str, Any]:
    failure: Mapping[str, Any] = result.failure or {}
    return {
        **result.enriched,
        "failed_stage": failure.get("stage"),
        "error": failure.get("error"),
    }


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
