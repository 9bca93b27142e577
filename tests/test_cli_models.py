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
from transformers import AutoModelForImageClassification

from cliplake.samples import CUTS
from processors.errors import StageStartError
from processors.models.checkpoint import ModelNeed, resolve
from processors.models.device import Device
from processors.models.loading import load_model
from schemas.settings import CHECKOUT
from tests.cli import cliplake

NAME = "someone/tiny"
NEEDED = ["config.json", "model.safetensors", "preprocessor_config.json"]

CPU = Device(torch.device("cpu"), torch.float32)
FIND = """
import sys
from processors.models.checkpoint import ModelNeed, resolve
found = resolve(ModelNeed("safety", sys.argv[1]))
print(found.folder, found.identity.revision)
"""


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
        return cliplake(*arguments, cwd=self.folder, timeout=300, **self.variables(served))

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


@pytest.fixture(scope="module")
def home_after_a_fetch(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    machine = Machine(tmp_path_factory.mktemp("fetched"))
    with hub(NAME, repository) as served:
        machine.fetch(served)
    return machine.home


@pytest.fixture
def fetched(home_after_a_fetch: Path, machine: Machine) -> Machine:
    """A machine on which the repository was fetched."""
    shutil.copytree(home_after_a_fetch, machine.home, symlinks=True)
    return machine


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


def test_fetching_again_asks_nobody_and_works_without_a_network(
    repository: Path, fetched: Machine
) -> None:
    with hub(NAME, repository) as served:
        fetched.fetch(served)
        assert served.asked == 0
    assert fetched.run("models", "fetch", "r.yaml").returncode == 0


def test_a_card_without_a_licence_states_none(repository: Path, machine: Machine) -> None:
    other = machine.folder / "other"
    shutil.copytree(repository, other)
    (other / "README.md").unlink()
    with hub(NAME, other) as served:
        machine.fetch(served)
    assert machine.row()["licence"] == "not stated"


def test_verify_names_the_file_that_differs_and_fetch_mends_it(
    repository: Path, fetched: Machine
) -> None:
    with hub(NAME, repository) as served:
        weights = (fetched.snapshot / "model.safetensors").resolve()
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
        found = fetched.run("models", "verify", "r.yaml")
        assert found.returncode == 1
        (line,) = [line for line in found.stderr.splitlines() if "differs" in line]
        assert "model.safetensors differs" in line
        assert sha256(repository / "model.safetensors") in line
        assert f"cliplake models fetch {fetched.recipe}" in line
        fetched.fetch(served)
        assert served.fetched == ["model.safetensors"]
    assert fetched.run("models", "verify", "r.yaml").returncode == 0


def test_what_was_never_recorded_is_not_taken_for_verified(
    fetched: Machine,
) -> None:
    shutil.rmtree(fetched.repository / "cliplake")
    row = fetched.row()
    assert (row["state"], row["verified_at"], row["licence"]) == ("ready", None, None)
    found = fetched.run("models", "verify", "r.yaml")
    assert found.returncode == 1
    assert "no hashes are recorded" in found.stderr


@pytest.mark.parametrize("recorded", [True, False])
def test_a_cache_without_the_image_processor_is_not_whole(
    repository: Path, fetched: Machine, recorded: bool
) -> None:
    with hub(NAME, repository) as served:
        if not recorded:
            shutil.rmtree(fetched.repository / "cliplake")
            shutil.rmtree(fetched.repository / "trees", ignore_errors=True)
        (fetched.snapshot / "preprocessor_config.json").unlink()
        assert fetched.row()["state"] == "not ready"
        fetched.fetch(served)
    assert (fetched.snapshot / "preprocessor_config.json").is_file()
    assert fetched.row()["state"] == "ready"


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
    # And a start finds what was made, of which the loader makes the same model.
    found = subprocess.run(
        [sys.executable, "-c", FIND, NAME],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), **machine.variables(None)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split() == [row["path"], REVISION]
    pixels = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        one, same = (
            load_model(AutoModelForImageClassification, place, CPU, stage="safety")(pixels).logits
            for place in (repository, Path(row["path"]))
        )
    assert torch.equal(one, same)


class Malicious:
    """What is run when it is unpickled in the usual way."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def test_a_hub_that_does_not_answer_is_named(machine: Machine) -> None:
    done = cliplake(
        *("models", "fetch", str(machine.recipe)),
        cwd=machine.folder,
        **{**machine.variables(None), "HF_HUB_OFFLINE": "0"},
    )
    assert done.returncode == 1
    assert "http://127.0.0.1:9 does not answer (" in done.stderr
    assert "HF_ENDPOINT" in done.stderr
    assert "Traceback" not in done.stderr


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
    need = ModelNeed("safety", str(folder), recipe="mine.yaml")
    machine.write("mine.yaml", f"video_nsfw_filter: {{hf_nsfw_model: {folder}}}")
    refusal = "only safetensors are loaded; run `cliplake models fetch mine.yaml`"
    with pytest.raises(StageStartError, match=refusal):
        resolve(need)
    done = machine.run("models", "fetch", "mine.yaml")
    assert done.returncode == 0, done.stderr
    row = machine.row("mine.yaml")
    assert (row["state"], row["licence"], row["converted"]) == ("ready", "apache-2.0", True)
    found = resolve(need)
    assert (str(found.folder), found.identity.revision) == (row["path"], row["commit"])
    load_model(AutoModelForImageClassification, found.folder, CPU, stage="safety")
    assert machine.run("models", "verify", "mine.yaml").returncode == 0
    # Other weights under the same name are other weights, and not those that were converted.
    torch.save({"other": torch.zeros(3)}, folder / "pytorch_model.bin")
    with pytest.raises(StageStartError, match=refusal):
        resolve(need)
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
