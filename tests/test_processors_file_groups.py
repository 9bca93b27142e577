"""Files of a batch's clips are never all there at once, and a full disk ends no batch for good."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path
from typing import Any

import pytest
from clip_media import clip, panning
from media import encode

from processors import clip_files
from processors.chain import ClipResult, EnrichmentChain
from processors.errors import DependencyFault
from processors.fetch import Fetcher
from processors.media.sandbox import Sandbox
from schemas.reasons import ClipStatus
from schemas.recipe import Recipe, parse_recipe
from schemas.settings import Settings, load_settings
from tests.servers import serve

CLIPS = 6
STAGES = """
from pathlib import Path
from processors.stage import FileRequest, Stage

class Files(Stage):
    name = "files"
    batch_size = 32
    def inputs(self): return ("clip_file", "frame_files")
    def outputs(self): return ("size", "together")
    def files(self): return FileRequest(cut=True, frames=True)
    def process(self, batch):
        folder = Path(batch[0]["clip_file"]).parent
        together = len(list(folder.parent.iterdir()))
        folders = [Path(sample["clip_file"]).parent for sample in batch]
        sizes = [sum(file.stat().st_size for file in folder.iterdir()) for folder in folders]
        return [{"size": size, "together": together} for size in sizes]

class Again(Files):
    name = "again"
    def outputs(self): return ("size_again",)
    def process(self, batch): return [{"size_again": r["size"]} for r in super().process(batch)]

class Between(Stage):
    name = "between"
    def inputs(self): return ("size", "clip_index")
    def outputs(self): return ("half",)
    def process(self, batch): return [{"half": s["size"] / 2} for s in batch]
    def judge(self, scores): return "third" if scores["clip_index"] == 3 else None

class After(Stage):
    name = "after"
    batch_size = 32
    def inputs(self): return ("size",)
    def outputs(self): return ("batch",)
    def process(self, batch): return [{"batch": len(batch)} for _ in batch]
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    file = tmp_path / "stages.py"
    file.write_text(STAGES)
    stages = [f"{file}:{name}" for name in ("Files", "Between", "Again", "After")]
    lines = ["video_split_by_scene_mapper", "video_extract_frames_mapper", *stages]
    text = "\n".join(["process:", *(f"  - {line}" for line in lines)])
    return parse_recipe(text, where="test", default_name="test")


def settings_for(folder: Path, limit: int) -> Settings:
    return load_settings(
        fetch={"file_roots": (str(folder),)},
        local={"state_dir": str(folder / "state")},
        decode={"clip_files_bytes": limit},
    )


@pytest.fixture
def clips(tmp_path: Path, recipe: Recipe) -> list[dict[str, Any]]:
    path = encode(tmp_path / "v.mp4", panning(20 * CLIPS, 96, 128, 2), options={"g": "10"})
    return [
        {**clip(path, 20 * n, 20 * n + 20, recipe), "clip_index": n, "clip_id": f"clip {n}"}
        for n in range(CLIPS)
    ]


@pytest.fixture
def one_clip(tmp_path: Path, recipe: Recipe, clips: list[dict[str, Any]]) -> int:
    """Bytes of the largest clip's files."""
    results = run(settings_for(tmp_path, 2**30), recipe, clips)
    assert {stat(result, "together") for result in results} == {CLIPS}
    return int(max(stat(result, "size") for result in results))


def run(settings: Settings, recipe: Recipe, clips: list[dict[str, Any]]) -> list[ClipResult]:
    chain = EnrichmentChain(recipe, settings)
    chain.setup()
    try:
        results = chain.run(clips)
        assert list(settings.scratch_dir.glob("clips-*/*")) == []
    finally:
        chain.close()
    return results


def stat(result: ClipResult, name: str) -> float:
    value: float = result.enriched["operator_stats"][name]
    return value


def all_are_judged(results: list[ClipResult]) -> None:
    """As if all files had been there at once."""
    assert [r.clip_id for r in results] == [f"clip {n}" for n in range(CLIPS)]
    reasons = [r.enriched["reject_reason"] for r in results]
    assert reasons == [None, None, None, "third", None, None]
    for result in results:
        if result.status is ClipStatus.KEPT:
            # The same files for both stages; and those that open none have all clips at once.
            assert stat(result, "size") == stat(result, "size_again")
            assert stat(result, "batch") == CLIPS - 1


def test_files_are_written_for_as_many_clips_as_may_be_there_together(
    tmp_path: Path, recipe: Recipe, clips: list[dict[str, Any]], one_clip: int
) -> None:
    results = run(settings_for(tmp_path, one_clip), recipe, clips)
    all_are_judged(results)
    assert {stat(result, "together") for result in results} <= {1, 2}


def test_a_clip_with_larger_files_than_may_be_fails_alone(
    tmp_path: Path, recipe: Recipe, clips: list[dict[str, Any]], one_clip: int
) -> None:
    longer = {**clips[0], "end_pts": clips[4]["end_pts"], "clip_id": "longer"}
    longer["duration_s"] = 4.0
    first, failed, last = run(
        settings_for(tmp_path, one_clip), recipe, [clips[0], longer, clips[5]]
    )
    assert [first.status, last.status] == [ClipStatus.KEPT] * 2
    assert failed.failure is not None
    assert (failed.failure["stage"], failed.failure["reason"]) == ("cut", "too_large")


class SmallDisk:
    """A disk of the scratch folder's that holds so much and no more, by the system's own error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capacity: int) -> None:
        run_in_child = Sandbox.run

        def run(sandbox: Sandbox, function: Any, /, *args: Any, **options: Any) -> Any:
            if function is clip_files.write_clip_files:
                return run_in_child(sandbox, write_on_small_disk, capacity, *args, **options)
            return run_in_child(sandbox, function, *args, **options)

        monkeypatch.setattr(Sandbox, "run", run)


def write_on_small_disk(capacity: int, media: str, span: Any, folder: str, *rest: Any) -> Any:
    """What the child runs in place of `write_clip_files`."""
    real = clip_files._check_size

    def check(folder: str, *rest: Any) -> int:
        scratch = Path(folder).parent.parent
        written = sum(f.stat().st_size for f in scratch.rglob("*") if f.is_file())
        if written > capacity:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(folder, *rest)

    clip_files._check_size = check
    try:
        return clip_files.write_clip_files(media, span, folder, *rest)
    finally:
        clip_files._check_size = real


@pytest.mark.parametrize("room_for", [1.2, 2.5, 4])
def test_a_disk_that_is_full_before_the_limit_is_used_for_what_it_has_room_for(
    tmp_path: Path,
    recipe: Recipe,
    clips: list[dict[str, Any]],
    one_clip: int,
    monkeypatch: pytest.MonkeyPatch,
    room_for: float,
) -> None:
    SmallDisk(monkeypatch, int(one_clip * room_for))
    results = run(settings_for(tmp_path, 2**30), recipe, clips)
    all_are_judged(results)
    assert max(stat(result, "together") for result in results) <= room_for + 1


def test_a_full_disk_is_given_the_objects_that_are_kept_there_first(
    tmp_path: Path,
    recipe: Recipe,
    clips: list[dict[str, Any]],
    one_clip: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = settings_for(tmp_path, 2**30)
    allowed = {"https_hosts": ("127.0.0.1",), "allow_http": True, "allow_private_addresses": True}
    fetch = settings.fetch.model_copy(update=allowed)
    body = bytes(3 * one_clip)
    sha256 = hashlib.sha256(body).hexdigest()
    with serve({"/v.mp4": body}) as server:
        fetcher = Fetcher(fetch, settings.scratch_dir, keep_for="enrichment")
        with fetcher.fetch(f"{server.url}/v.mp4", expected_sha256=sha256) as media:
            pass
    assert media.path.exists()
    SmallDisk(monkeypatch, int(one_clip * 2.5))
    all_are_judged(run(settings, recipe, clips))
    assert not media.path.exists()


def test_a_disk_without_room_for_one_clip_blames_none_and_names_the_way_out(
    tmp_path: Path,
    recipe: Recipe,
    clips: list[dict[str, Any]],
    one_clip: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    SmallDisk(monkeypatch, one_clip // 3)
    with pytest.raises(DependencyFault, match=r"No space left on device; make room there, or set "):
        run(settings_for(tmp_path, 2**30), recipe, clips)
    assert list((tmp_path / "state").rglob("clip.mp4")) == []
