"""`models list | fetch | verify` against a hub on loopback, as a user runs them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hub import REVISION, Hub, hub
from safetensors.torch import load_file
from tiny_models import make_blip, make_safety

from cliplake.samples import CUTS, REAL_SAMPLES
from schemas.settings import CHECKOUT
from tests.cli import cliplake

NAME = "someone/tiny"
NEEDED = ["config.json", "model.safetensors", "preprocessor_config.json"]


class Machine:
    """A home of the hub's client, and a recipe that needs one model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "hf"
        self.recipe = self.write("r.yaml", f"video_nsfw_filter: {{hf_nsfw_model: {NAME}}}")

    def write(self, name: str, operator: str) -> Path:
        file = self.folder / name
        file.write_text(f"process:\n  - video_split_by_scene_mapper\n  - {operator}\n")
        return file

    def variables(self, served: Hub | None) -> dict[str, str]:
        return {
            "HF_HOME": str(self.home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "1" if served is None else "0",
            "HF_ENDPOINT": served.endpoint if served else "http://127.0.0.1:9",
        }

    def run(self, *arguments: str, served: Hub | None = None) -> subprocess.CompletedProcess[str]:
        return cliplake(*arguments, cwd=self.folder, **self.variables(served))

    def start(self, *arguments: str, served: Hub) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "cliplake.main", *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT), **self.variables(served)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def fetch(self, served: Hub, recipe: str = "r.yaml") -> None:
        done = self.run("models", "fetch", recipe, served=served)
        assert done.returncode == 0, done.stderr

    def row(self, recipe: str = "r.yaml") -> dict[str, Any]:
        """What `models list` says of the only model."""
        done = self.run("models", "list", recipe, "--json")
        assert done.returncode == 0, done.stderr
        (row,) = json.loads(done.stdout)["models"]
        return dict(row)

    @property
    def repository(self) -> Path:
        return self.home / "hub" / "models--someone--tiny"

    @property
    def snapshot(self) -> Path:
        return self.repository / "snapshots" / REVISION

    def record(self) -> dict[str, Any]:
        file = self.repository / "cliplake" / REVISION / "record.json"
        return dict(json.loads(file.read_text()))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_safety(tmp_path_factory.mktemp("repository"))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Words\n")
    (folder / "pytorch_model.bin").write_bytes(b"the same weights, as a pickle")
    return folder


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def as_pickle(repository: Path, folder: Path) -> Path:
    """The repository with its weights as a pickle alone."""
    shutil.copytree(repository, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_is_fetched_is_recorded_and_listed(repository: Path, machine: Machine) -> None:
    before = machine.row()
    assert (before["state"], before["commit"], before["licence"]) == ("missing", None, None)
    with hub(NAME, repository) as served:
        done = machine.run("models", "fetch", "r.yaml", served=served)
        assert done.returncode == 0, done.stderr
        assert sorted(served.fetched) == NEEDED
        endpoint = served.endpoint
    assert f"{NAME}: 0.00 GB to download, once" in done.stderr
    record = machine.record()
    assert [(f["name"], f["size"], f["sha256"]) for f in record["files"]] == [
        (name, (repository / name).stat().st_size, sha256(repository / name)) for name in NEEDED
    ]
    assert (record["model"], record["revision"], record["commit"], record["endpoint"]) == (
        NAME, "main", REVISION, endpoint,
    )  # fmt: skip
    row = machine.row()
    assert (row["state"], row["commit"], row["licence"]) == ("ready", REVISION, "apache-2.0")
    assert row["size_bytes"] == sum((repository / name).stat().st_size for name in NEEDED)
    assert row["path"] == str(machine.snapshot)
    assert row["verified_at"]
    table = machine.run("models", "list", "r.yaml").stdout
    for said in (NAME, "apache-2.0", "verified", "ready"):
        assert said in table


def test_fetching_again_fetches_nothing_and_works_without_a_network(
    repository: Path, machine: Machine
) -> None:
    with hub(NAME, repository) as served:
        machine.fetch(served)
        served.asked = 0
        machine.fetch(served)
        assert served.asked == 0
    assert machine.run("models", "fetch", "r.yaml").returncode == 0


def test_a_card_without_a_licence_states_none(repository: Path, machine: Machine) -> None:
    other = machine.folder / "other"
    shutil.copytree(repository, other)
    (other / "README.md").unlink()
    with hub(NAME, other) as served:
        machine.fetch(served)
    assert machine.row()["licence"] == "not stated"


def test_verify_names_the_file_that_differs_and_fetch_mends_it(
    repository: Path, machine: Machine
) -> None:
    with hub(NAME, repository) as served:
        machine.fetch(served)
        assert machine.run("models", "verify", "r.yaml").returncode == 0
        weights = (machine.snapshot / "model.safetensors").resolve()
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
        found = machine.run("models", "verify", "r.yaml")
        assert found.returncode == 1
        (line,) = [line for line in found.stderr.splitlines() if "differs" in line]
        assert "model.safetensors differs" in line
        assert sha256(repository / "model.safetensors") in line
        assert f"cliplake models fetch {machine.recipe}" in line
        served.fetched.clear()
        machine.fetch(served)
        assert served.fetched == ["model.safetensors"]
    assert machine.run("models", "verify", "r.yaml").returncode == 0


def test_what_was_never_recorded_is_not_taken_for_verified(
    repository: Path, machine: Machine
) -> None:
    with hub(NAME, repository) as served:
        machine.fetch(served)
    shutil.rmtree(machine.repository / "cliplake")
    assert (machine.row()["state"], machine.row()["verified_at"]) == ("ready", None)
    found = machine.run("models", "verify", "r.yaml")
    assert found.returncode == 1
    assert "no hashes are recorded" in found.stderr


@pytest.mark.parametrize("recorded", [True, False])
def test_a_cache_without_the_image_processor_is_not_whole(
    repository: Path, machine: Machine, recorded: bool
) -> None:
    with hub(NAME, repository) as served:
        machine.fetch(served)
        if not recorded:
            shutil.rmtree(machine.repository / "cliplake")
            shutil.rmtree(machine.repository / "trees", ignore_errors=True)
        (machine.snapshot / "preprocessor_config.json").unlink()
        assert machine.row()["state"] == "not ready"
        served.fetched.clear()
        machine.fetch(served)
    assert (machine.snapshot / "preprocessor_config.json").is_file()
    assert machine.row()["state"] == "ready"


def test_a_captioner_without_its_tokenizer_is_not_whole(tmp_path: Path, machine: Machine) -> None:
    machine.write(
        "caption.yaml",
        f"video_captioning_from_video_mapper: {{engine: image_text, hf_model: {NAME}}}",
    )
    with hub(NAME, make_blip(tmp_path / "blip")) as served:
        machine.fetch(served, "caption.yaml")
        shutil.rmtree(machine.repository / "cliplake")
        shutil.rmtree(machine.repository / "trees", ignore_errors=True)
        (machine.snapshot / "tokenizer.json").unlink()
        row = machine.row("caption.yaml")
        assert row["state"] == "not ready"
        assert "tokenizer" in row["lacks"]
        machine.fetch(served, "caption.yaml")
    assert (machine.snapshot / "tokenizer.json").is_file()


def test_a_pickle_is_converted_and_both_hashes_are_recorded(
    repository: Path, machine: Machine
) -> None:
    folder = as_pickle(repository, machine.folder / "pickle")
    with hub(NAME, folder) as served:
        machine.fetch(served)
    record = machine.record()
    hashes = {file["name"]: file["sha256"] for file in record["files"]}
    assert hashes["pytorch_model.bin"] == sha256(folder / "pytorch_model.bin")
    (made,) = record["converted"]
    row = machine.row()
    assert row["converted"]
    assert made["sha256"] == sha256(Path(row["path"]) / "model.safetensors")
    # What was made is enough: the pickle may go.
    (machine.snapshot / "pytorch_model.bin").resolve().unlink()
    (machine.snapshot / "pytorch_model.bin").unlink()
    assert machine.run("models", "verify", "r.yaml").returncode == 0
    video = str(REAL_SAMPLES / "carphone_pristine.mp4")
    scores = []
    local = machine.write("local.yaml", f"video_nsfw_filter: {{hf_nsfw_model: {repository}}}")
    for recipe in (machine.recipe, local):
        done = machine.run("try", "--recipe", str(recipe), "--json", video)
        assert done.returncode == 0, done.stderr
        (clip,) = json.loads(done.stdout)["videos"][0]["clips"]
        assert clip["error"] is None
        scores.append(clip["nsfw_score"])
    assert scores[0] == scores[1]


class Malicious:
    """What is run when it is unpickled in the usual way."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def test_a_pickle_that_would_run_something_is_refused(repository: Path, machine: Machine) -> None:
    folder = as_pickle(repository, machine.folder / "pickle")
    mark = machine.folder / "it ran".replace(" ", "-")
    torch.save({"weight": Malicious(mark)}, folder / "pytorch_model.bin")
    with hub(NAME, folder) as served:
        done = machine.run("models", "fetch", "r.yaml", served=served)
        started = machine.run("try", "--recipe", "r.yaml", CUTS.name, served=served)
    for result in (done, started):
        assert "pytorch_model.bin is no file of tensors alone" in result.stderr
        assert "system" in result.stderr
        assert "Traceback" not in result.stderr
    assert (done.returncode, started.returncode) == (1, 2)
    assert not mark.exists()
    assert machine.row()["state"] == "not ready"


def test_a_fetch_that_was_killed_leaves_nothing_half_and_goes_on(
    repository: Path, machine: Machine
) -> None:
    with hub(NAME, repository) as served:
        served.held = "model.safetensors"
        process = machine.start("models", "fetch", "r.yaml", served=served)
        assert served.holds.wait(timeout=60)
        process.kill()
        process.communicate()
        assert machine.row()["state"] in ("missing", "not ready")
        assert machine.run("models", "verify", "r.yaml").returncode == 1
        served.go_on.set()
        machine.fetch(served)
    assert machine.run("models", "verify", "r.yaml").returncode == 0
    assert list((machine.repository / "blobs").glob("*.incomplete")) == []


def test_two_fetches_at_once_fetch_once(repository: Path, machine: Machine) -> None:
    with hub(NAME, repository) as served:
        both = [machine.start("models", "fetch", "r.yaml", served=served) for _ in range(2)]
        for process in both:
            said, _ = process.communicate(timeout=120)
            assert process.returncode == 0, said
        assert sorted(served.fetched) == NEEDED
    assert machine.run("models", "verify", "r.yaml").returncode == 0


def test_a_disk_that_is_too_small_is_said_before_anything_is_fetched(
    repository: Path, machine: Machine
) -> None:
    with hub(NAME, repository) as served:
        served.sizes["model.safetensors"] = 10**16
        done = machine.run("models", "fetch", "r.yaml", served=served)
        assert served.fetched == []
    assert done.returncode == 1
    assert "are free" in done.stderr
    assert "HF_HOME" in done.stderr


def test_without_network_and_cache_the_start_ends_with_one_line(machine: Machine) -> None:
    done = machine.run("try", "--recipe", "r.yaml", CUTS.name)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    for said in (
        "stage safety",
        f"model {NAME}, revision main",
        str(machine.home / "hub"),
        "HF_HUB_OFFLINE is set",
        "`cliplake models fetch r.yaml`",
    ):
        assert said in line.replace(str(machine.recipe), "r.yaml")
    assert done.stderr.splitlines()[-1] == line


def test_a_folder_is_recorded_verified_and_converted_in_place(
    repository: Path, machine: Machine
) -> None:
    folder = as_pickle(repository, machine.folder / "mine")
    machine.write("mine.yaml", f"video_nsfw_filter: {{hf_nsfw_model: {folder}}}")
    refused = machine.run("try", "--recipe", "mine.yaml", CUTS.name)
    assert refused.returncode == 2
    assert "only safetensors are loaded" in refused.stderr
    assert "cliplake models fetch" in refused.stderr
    done = machine.run("models", "fetch", "mine.yaml")
    assert done.returncode == 0, done.stderr
    row = machine.row("mine.yaml")
    assert (row["state"], row["licence"], row["converted"]) == ("ready", "apache-2.0", True)
    assert machine.run("models", "verify", "mine.yaml").returncode == 0
    video = str(REAL_SAMPLES / "carphone_pristine.mp4")
    tried = machine.run("try", "--recipe", "mine.yaml", "--json", video)
    assert tried.returncode == 0, tried.stderr
    # Other weights under the same name are other weights, and not those that were converted.
    torch.save({"other": torch.zeros(3)}, folder / "pytorch_model.bin")
    assert machine.run("try", "--recipe", "mine.yaml", video).returncode == 2
    assert machine.run("models", "verify", "mine.yaml").returncode == 1


def test_the_model_that_is_built_in_is_listed_and_verified(machine: Machine) -> None:
    row = machine.row("recipes/laptop.yaml")
    assert (row["model"], row["state"]) == ("open_nsfw", "ready")
    assert row["size_bytes"] > 0
    assert machine.run("models", "verify", "recipes/laptop.yaml").returncode == 0
    assert machine.run("models", "fetch", "recipes/laptop.yaml").returncode == 0
    nowhere = {"CLIPLAKE__MODELS__DIR": str(machine.folder / "nothing")}
    for command in ("verify", "fetch"):
        done = cliplake("models", command, "recipes/laptop.yaml", cwd=machine.folder, **nowhere)
        assert done.returncode == 1
        assert "make setup" in done.stderr
