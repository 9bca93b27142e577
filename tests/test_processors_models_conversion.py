"""Pickled weights become the same tensors as safetensors, and nothing else is let through."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import make_safety
from transformers import AutoModelForImageClassification

from processors.errors import StageStartError
from processors.models.conversion import ConversionError, convert
from processors.models.device import Device
from processors.models.loading import load_model

CPU = Device(torch.device("cpu"), torch.float32)


def converted(folder: Path, target: Path, *names: str) -> dict[str, torch.Tensor]:
    made = convert(folder, ["config.json"], names, target)
    assert (target / "config.json").is_file()
    tensors: dict[str, torch.Tensor] = {}
    for file in made:
        if file.name.endswith(".safetensors"):
            tensors |= load_file(target / file.name)
    return tensors


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text("{}")
    return source


def test_shards_of_any_age_and_tensors_that_share_memory_come_out_as_they_were(
    folder: Path, tmp_path: Path
) -> None:
    shared = torch.arange(12, dtype=torch.float16).reshape(3, 4)
    one = {"a": shared, "tied": shared, "turned": shared.T}
    two = {"b": torch.randn(5), "number": torch.tensor(7), "empty": torch.zeros(0, 3)}
    torch.save(one, folder / "pytorch_model-00001-of-00002.bin")
    torch.save(
        two, folder / "pytorch_model-00002-of-00002.bin", _use_new_zipfile_serialization=False
    )
    names = [f"pytorch_model-0000{n}-of-00002.bin" for n in (1, 2)]
    found = converted(folder, tmp_path / "made", *names)
    assert found.keys() == {*one, *two}
    for name, tensor in {**one, **two}.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_the_loader_reads_what_was_made_and_no_pickle(tmp_path: Path) -> None:
    source = make_safety(tmp_path / "source")
    pickled = tmp_path / "pickled"
    shutil.copytree(source, pickled)
    torch.save(load_file(source / "model.safetensors"), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    made = tmp_path / "made"
    convert(pickled, ["config.json"], ["pytorch_model.bin"], made)
    pixels = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        logits = [
            load_model(AutoModelForImageClassification, place, CPU, stage="safety")(pixels).logits
            for place in (source, made)
        ]
    assert torch.equal(logits[0], logits[1])
    with pytest.raises(StageStartError, match="cannot be loaded"):
        load_model(AutoModelForImageClassification, pickled, CPU, stage="safety")


@pytest.mark.parametrize(
    ("holds", "words"),
    [
        ({"a": 1}, "holds a int under 'a'"),
        ({"model": {"a": torch.zeros(1)}}, "holds a dict under 'model'"),
        ([torch.zeros(1)], "holds list"),
        ({}, "holds dict"),
        ({"a": torch.zeros(2, 2).to_sparse()}, "as torch.sparse_coo"),
        ({"a": len}, "no file of tensors alone, and is not read: it asks for .*len"),
        (Path("of a class"), "no file of tensors alone"),
    ],
)
def test_what_is_no_tensor_is_refused(holds: Any, words: str, folder: Path, tmp_path: Path) -> None:
    torch.save(holds, folder / "pytorch_model.bin")
    with pytest.raises(ConversionError, match=words) as refused:
        convert(folder, ["config.json"], ["pytorch_model.bin"], tmp_path / "made")
    assert "\n" not in str(refused.value)
    assert str(folder / "pytorch_model.bin") in str(refused.value)


@pytest.mark.parametrize("data", [b"", b"\x80\x02", b"PK\x03\x04 no archive", b"not a pickle"])
def test_a_broken_file_is_refused(data: bytes, folder: Path, tmp_path: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(data)
    with pytest.raises(ConversionError, match=r"pytorch_model\.bin"):
        convert(folder, ["config.json"], ["pytorch_model.bin"], tmp_path / "made")
