"""Checkpoints: folders as they are, repositories from the cache or the hub, and clear refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hub import REVISION, hub
from tiny_models import make_safety

from processors.chain import EnrichmentChain
from processors.errors import StageStartError
from processors.models.checkpoint import ModelNeed, resolve
from schemas.recipe import parse_recipe
from schemas.settings import CHECKOUT, load_settings

NAME = "someone/tiny-safety"
SCRIPT = """
import json, sys
from processors.errors import StageStartError
from processors.models.checkpoint import ModelNeed, download_bytes, resolve
need = ModelNeed("safety", sys.argv[1], recipe="my recipe.yaml")
found = {"bytes": download_bytes(need)}
try:
    checkpoint = resolve(need)
except StageStartError as error:
    found["error"] = str(error)
else:
    found["folder"] = str(checkpoint.folder)
    found["revision"] = checkpoint.identity.revision
    found["files"] = sorted(path.name for path in checkpoint.folder.iterdir())
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository's files: what is needed, and what a hub's repositories hold besides."""
    folder = make_safety(tmp_path_factory.mktemp("repository"))
    (folder / "pytorch_model.bin").write_bytes(b"the same weights, as a pickle")
    (folder / "README.md").write_text("words")
    (folder / "code.py").write_text("raise SystemExit('this must never run')")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.safetensors").write_bytes(b"for something else")
    return folder


def ask(name: str, home: Path, **environment: str) -> dict[str, Any]:
    """What a process of its own says of a checkpoint: the hub's client reads its variables once."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, name],
        cwd=CHECKOUT,
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith("HF_")},
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_what_is_needed_is_fetched_once_and_its_size_is_known_before(
    folder: Path, tmp_path: Path
) -> None:
    with hub(NAME, folder) as served:
        first = ask(NAME, tmp_path, HF_ENDPOINT=served.endpoint)
        assert first["files"] == ["config.json", "model.safetensors", "preprocessor_config.json"]
        assert sorted(served.fetched) == first["files"]
        assert first["bytes"] == sum((folder / name).stat().st_size for name in first["files"])
        assert first["revision"] == REVISION
        served.fetched.clear()
        again = ask(NAME, tmp_path, HF_ENDPOINT=served.endpoint)
        assert served.fetched == []
    assert (again["bytes"], again["folder"]) == (0, first["folder"])
    offline = ask(NAME, tmp_path, HF_HUB_OFFLINE="1")
    assert offline["folder"] == first["folder"]


def test_a_repository_that_is_not_there_says_which_variables_matter(
    folder: Path, tmp_path: Path
) -> None:
    with hub(NAME, folder) as served:
        found = ask("someone/else", tmp_path, HF_ENDPOINT=served.endpoint)
    assert found["bytes"] == 0
    for words in ("stage safety", "someone/else", "HF_ENDPOINT", str(tmp_path)):
        assert words in found["error"]
    assert "\n" not in found["error"]


def test_offline_nothing_is_asked_for(tmp_path: Path) -> None:
    found = ask(NAME, tmp_path, HF_HUB_OFFLINE="1")
    assert found["bytes"] == 0
    assert "HF_HUB_OFFLINE is set" in found["error"]


def test_a_folder_is_named_by_what_it_holds(tmp_path: Path) -> None:
    one = make_safety(tmp_path / "one", seed=1)
    same = make_safety(tmp_path / "same", seed=1)
    other = make_safety(tmp_path / "other", seed=2)
    revisions = [
        resolve(ModelNeed("safety", str(folder))).identity.revision for folder in (one, same, other)
    ]
    assert revisions[0] == revisions[1] != revisions[2]
    assert revisions[0].startswith("sha256:")


@pytest.mark.parametrize("name", ["no such folder", "/nowhere/at/all", "a/b/c", "../up", ""])
def test_what_is_neither_folder_nor_repository_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(StageStartError, match="stage safety"):
        resolve(ModelNeed("safety", name))


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(StageStartError, match="is no checkpoint"):
        resolve(ModelNeed("safety", str(tmp_path)))


def test_all_models_are_found_before_the_first_is_loaded(tmp_path: Path) -> None:
    broken = make_safety(tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"no weights")
    text = f"""
process:
  - video_split_by_scene_mapper
  - video_nsfw_filter: {{hf_nsfw_model: {broken}}}
"""
    missing = f"  - video_aesthetics_filter: {{hf_scorer_model: {NAME}}}\n"
    for recipe, words in (
        (text + missing, f"stage aesthetics: model {NAME}, revision main, is not in"),
        (text, f"stage safety: the checkpoint in {broken} cannot be loaded"),
    ):
        chain = EnrichmentChain(
            parse_recipe(recipe, where="r.yaml", default_name="r"), load_settings()
        )
        with pytest.raises(StageStartError) as refused:
            chain.setup()
        assert str(refused.value).startswith(words)
        assert "cliplake models" in str(refused.value)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("index", ["", "[]", '{"weight_map": 3}', '{"weight_map": {"a": [1]}}'])
def test_an_index_that_cannot_be_read_is_what_a_folder_lacks(index: str, tmp_path: Path) -> None:
    folder = make_safety(tmp_path / "folder")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(StageStartError, match=r"lacks a readable model\.safetensors\.index\.json"):
        resolve(ModelNeed("safety", str(folder)))
