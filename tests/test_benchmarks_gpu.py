"""The GPU benchmark runs all its parts on a CPU with tiny models; no figure is judged here."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForImageClassification,
    Blip2ForConditionalGeneration,
    PreTrainedModel,
)
from transformers.core_model_loading import revert_weight_conversion

from benchmarks import gpu_bundle, gpu_models, gpu_report, random_weights
from benchmarks.gpu import main
from benchmarks.gpu_meter import Done, Gpu, Lines, Window
from processors.models.aesthetics import AestheticsPredictorV2Linear
from processors.models.device import Device
from processors.models.loading import load_model
from tests.datajuicer_cases import need_datajuicer
from tests.test_processors_models_layout import KINDS, TIED, tensors
from tests.tiny_models import make_video_blip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of made videos, for all tests."""
    return tmp_path_factory.mktemp("gpu")


def _run(folder: Path, out: Path, *parts: str, code: int = 0, more: tuple[str, ...] = ()) -> Any:
    only = [argument for part in parts for argument in ("--only", part)]
    written = out / "gpu.json"
    common = ["--tiny", "--cpus", "2", "--budget", "3000", "--folder", str(folder)]
    assert main([*common, *only, "--json", str(written), *more]) == code
    return json.loads(written.read_text(encoding="utf-8"))


def test_our_stages_are_measured_whatever_becomes_of_datajuicer(
    folder: Path, tmp_path: Path
) -> None:
    report = _run(folder, tmp_path, code=1, more=("--datajuicer-python", "/bin/false"))
    (problem,) = report["problems"]
    assert problem["part"] == "datajuicer"
    assert problem["error"].startswith("benchmarks.gpu_datajuicer ended with 1")
    assert "GPU stages: ours/DataJuicer's" not in report["derived"]
    rates = [line for line in report["figures"] if "video_s_per_s" in line]
    alone = {f"{name} alone" for name in ("safety", "aesthetics", "caption")}
    caches = {"caption, dynamic cache", "caption, static cache"}
    assert {line["what"] for line in rates} == {*alone, "actor", "pipeline", *caches}
    for line in rates:
        assert line["video_s_per_s"] > 0
        assert line["clips_per_s"] > 0
        assert line["cpu_cores"] > 0
        if line["what"] not in ("safety alone", "aesthetics alone"):
            assert line["caption_tokens_per_clip"] == 8
        if not torch.cuda.is_available():
            # What was not measured is no figure.
            assert line["gpu_busy"] is line["gpu_watts"] is line["gpu_bytes"] is None
    (static,) = [line for line in report["figures"] if line["what"] == "static cache"]
    assert static["equal_captions"]
    assert "decode software" in {line["what"] for line in report["figures"]}
    found = report["derived"]
    actors = [line for line in rates if line["what"] == "actor"]
    best = max(actors, key=lambda line: line["video_s_per_s"])
    assert found["GPU stages, video-s/s/GPU"] == best["video_s_per_s"]
    (pipeline,) = [line for line in rates if line["what"] == "pipeline"]
    assert pipeline["clips_per_batch"] == best["clips_per_batch"]


@pytest.mark.long
@pytest.mark.datajuicer
def test_datajuicers_operators_have_the_same_weights_and_settings(
    folder: Path, tmp_path: Path
) -> None:
    need_datajuicer()
    report = _run(folder, tmp_path, "stages", "datajuicer")
    ours = [line for line in report["scores"] if line["side"] == "ours"]
    found = report["differences"]
    for name in ("safety", "motion", "aesthetics"):
        apart = abs(ours[0][name] - ours[1][name])
        assert found[name] < 1e-3 * apart, "scores that do not differ prove nothing"
    assert ours[0]["caption"] != ours[1]["caption"]
    assert found["equal captions"] == found["clips"] == 2
    assert report["derived"]["GPU stages: ours/DataJuicer's"] > 0


def test_a_part_for_which_no_time_is_left_is_not_begun(folder: Path, tmp_path: Path) -> None:
    report = _run(folder, tmp_path, "static", code=1, more=("--budget", "5"))
    (problem,) = report["problems"]
    assert re.fullmatch(r"[45] s are left", problem["error"])
    assert report["figures"] == []


def test_what_a_killed_run_has_measured_is_reported(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "gpu.jsonl", {"part": "stages"})
    lines.rate("actor", Done(8, 80.0, 0, 256), Window(4.0, 1.5))
    with lines.path.open("a", encoding="utf-8") as file:
        file.write('{"part": "stages", "wh')
    assert main(["--report", "--json", str(tmp_path / "gpu.json")]) == 0
    report = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    (figure,) = report["figures"]
    assert (figure["video_s_per_s"], figure["clips_per_s"]) == (20.0, 2.0)
    assert (figure["caption_tokens_per_clip"], figure["cpu_cores"]) == (32.0, 1.5)
    assert report["derived"] == {"GPU stages, video-s/s/GPU": 20.0}


@pytest.mark.parametrize("name", KINDS)
def test_full_size_models_are_the_published_ones(tmp_path: Path, name: str) -> None:
    made = gpu_models.make(tmp_path, tiny=False)
    model_class = KINDS[name][0]
    config = model_class.config_class.from_pretrained(getattr(made, name))
    with torch.device("meta"):
        model = model_class._from_config(config, dtype=torch.bfloat16)
    asked = revert_weight_conversion(model, model.state_dict())
    found = {key: tuple(tensor.shape) for key, tensor in asked.items() if key not in TIED}
    assert found == tensors(name)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are drawn for the time of a test."""
    kept = PreTrainedModel.__dict__["from_pretrained"]
    monkeypatch.setattr(PreTrainedModel, "from_pretrained", kept)
    random_weights.install()


LOADED: dict[str, Any] = {
    "safety": AutoModelForImageClassification,
    "aesthetics": AestheticsPredictorV2Linear,
    "video_blip": Blip2ForConditionalGeneration,
}


@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize("name", LOADED)
def test_weights_are_the_same_in_every_precision(tmp_path: Path, name: str) -> None:
    folder = getattr(gpu_models.make(tmp_path, tiny=True), name)
    half = Device(torch.device("cpu"), torch.bfloat16)
    ours = load_model(LOADED[name], folder, half, stage="test")
    single = LOADED[name].from_pretrained(folder)
    for (key, weight), (other, exact) in zip(
        ours.named_parameters(), single.named_parameters(), strict=True
    ):
        assert key == other
        assert torch.equal(weight, exact.to(torch.bfloat16)), key


def test_precision_and_attention_are_those_of_a_checkpoint_with_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = Device(torch.device("cpu"), torch.bfloat16)
    kind = Blip2ForConditionalGeneration
    real = load_model(kind, make_video_blip(tmp_path / "real"), half, stage="test")
    kept = PreTrainedModel.__dict__["from_pretrained"]
    monkeypatch.setattr(PreTrainedModel, "from_pretrained", kept)
    random_weights.install()
    made = gpu_models.make(tmp_path / "drawn", tiny=True)
    drawn = load_model(kind, made.video_blip, half, stage="test")

    def how(model: Any) -> Any:
        parts = {n: m for n, m in model.named_modules() if isinstance(m, PreTrainedModel)}
        attention = {name: part.config._attn_implementation for name, part in parts.items()}
        return attention, {name: weight.dtype for name, weight in model.named_parameters()}

    assert how(drawn) == how(real)
    assert set(how(drawn)[0].values()) == {"sdpa"}


def test_packages_that_travel_are_of_the_versions_that_are_pinned() -> None:
    ours = gpu_bundle.pins("workers.txt")
    theirs = gpu_bundle.pins("datajuicer.txt", "datajuicer-no-deps.txt")
    assert ours["av"] != theirs["av"] == "av==13.1.0"
    assert set(gpu_bundle.OURS) <= ours.keys()
    assert {*gpu_bundle.DATAJUICER, *gpu_bundle.SOURCES} <= theirs.keys()


class Nvml:
    """A GPU that is half busy, and does not say what it takes of energy."""

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        self.asked = 0

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> Any:  # noqa: N802
        self.asked += 1
        return SimpleNamespace(gpu=100 * (self.asked % 2))

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:  # noqa: N802
        return SimpleNamespace(used=self.asked * 10)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> Any:  # noqa: N802
        raise self.NVMLError("not supported")


def test_what_a_gpu_does_not_say_is_no_figure() -> None:
    nvml = Nvml()
    gpu = Gpu(nvml, "the first")
    while nvml.asked < 4:
        time.sleep(0.02)
    gpu.stop()
    assert gpu.busy == pytest.approx((nvml.asked + 1) // 2 / nvml.asked)
    assert gpu.most_bytes == nvml.asked * 10
    assert gpu.watts is None


def test_rates_are_put_beside_each_other() -> None:
    line = {"part": "stages", "what": "actor", "clips": 1}
    theirs = {"safety": 20.0, "aesthetics": 20.0, "caption": 10.0, "motion": 5.0}
    lines: list[dict[str, Any]] = [{**line, "video_s_per_s": rate} for rate in (90.0, 100.0)]
    for name, rate in theirs.items():
        lines.append({"part": "datajuicer", "what": name, "video_s_per_s": rate})
    pipeline = {"cpu_busy": 0.95, "gpu_busy": 0.5, "cpu_s_per_video_s": 0.25}
    lines.append({"part": "pipeline", "what": "pipeline", "video_s_per_s": 60.0, **pipeline})
    assert gpu_report.derived(lines) == pytest.approx(
        {
            "GPU stages, video-s/s/GPU": 100.0,
            # A second of video takes 1/20 + 1/20 + 1/10 s.
            "DataJuicer's operators on the GPU, video-s/s/GPU": 5.0,
            "GPU stages: ours/DataJuicer's": 20.0,
            "DataJuicer's operators, all, video-s/s/GPU": 2.5,
            "pipeline, video-s/s/GPU": 60.0,
            "pipeline: busier of GPU and CPU": 0.95,
            "CPU cores to feed one GPU": 25.0,
        }
    )
    assert gpu_report.derived(lines[2:4]) == {}
