"""Which actors a recipe needs, what one of them is given, and why one has no GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from processors.pool.placement import ActorKind, place
from schemas.recipe import Recipe, parse_recipe
from schemas.settings import Settings, load_settings

START = """
process:
  - video_split_by_scene_mapper
  - video_nsfw_filter: {engine: open_nsfw_onnx}
"""
TORCH = "  - video_aesthetics_filter\n"
STAGE = """
from processors.stage import Resources, Stage

class Mine(Stage):
    name = "%s"
    resources = Resources(%s)

    def inputs(self):
        return ("fps",)

    def outputs(self):
        return ("%s_out",)

    def process(self, batch):
        return [{"%s_out": 1} for _ in batch]
"""


def recipe(*more: str) -> Recipe:
    return parse_recipe(START + "".join(more), where="test", default_name="test")


def custom(folder: Path, name: str, resources: str) -> str:
    file = folder / f"{name}.py"
    file.write_text(STAGE % (name, resources, name, name))
    return f"  - {file}:Mine\n"


def worker(of: Recipe, cluster_gpus: float = 8.0, **sections: dict[str, object]) -> ActorKind:
    return place(of, load_settings(None, **sections), cluster_gpus)[0]


def test_all_stages_share_one_kind_of_actor(tmp_path: Path) -> None:
    whole = recipe(TORCH, custom(tmp_path, "mine", ""))
    (kind,) = place(whole, Settings(), 8.0)
    assert kind.stages == ("fetch", "decode", "safety", "aesthetics", "mine")


def test_operators_of_datajuicer_run_beside_the_worker_on_its_cpus() -> None:
    kinds = place(recipe("  - video_resolution_filter: {min_width: 100}\n"), Settings(), 8.0)
    assert [kind.name for kind in kinds] == ["worker", "DataJuicer"]
    assert kinds[1].stages == ("video_resolution_filter",)
    assert (kinds[1].cpus, kinds[1].gpus) == (0.0, 0.0)
    assert str(kinds[1]) == "DataJuicer (video_resolution_filter) on the worker's CPUs"


def test_models_by_torch_share_one_gpu_and_others_want_none() -> None:
    assert worker(recipe(TORCH)).gpus == 1.0
    kind = worker(recipe())
    assert (kind.gpus, kind.no_gpu) == (0.0, "")


@pytest.mark.parametrize(
    ("declared", "alone", "with_torch"),
    [((0.5,), 0.5, 1.0), ((0.5, 0.25), 0.75, 1.0), ((1.0,), 1.0, 2.0), ((0.75, 0.75), 2.0, 3.0)],
)
def test_gpus_of_stages_of_ones_own_are_added_up(
    tmp_path: Path, declared: tuple[float, ...], alone: float, with_torch: float
) -> None:
    own = [custom(tmp_path, f"s{n}", f"gpus={gpus}") for n, gpus in enumerate(declared)]
    assert worker(recipe(*own)).gpus == alone
    assert worker(recipe(TORCH, *own)).gpus == with_torch
    # models.device is about our models.
    assert worker(recipe(TORCH, *own), models={"device": "cpu"}).gpus == alone


def test_cpus_are_the_largest_claim_since_stages_take_turns(tmp_path: Path) -> None:
    own = [custom(tmp_path, "one", "cpus=3"), custom(tmp_path, "two", "cpus=2.5")]
    assert worker(recipe(*own)).cpus == 3.0
    assert worker(recipe(own[1])).cpus == 3.0  # Ray reserves whole ones above 1
    assert worker(recipe(*own), pool={"cpus_per_actor": 4}).cpus == 4.0


def test_a_fraction_in_the_settings_wins() -> None:
    kind = worker(recipe(TORCH), pool={"gpus_per_actor": 0.25})
    assert str(kind) == "worker (fetch, decode, safety, aesthetics) on 1 CPUs, 0.25 GPUs"


def test_why_there_is_no_gpu_is_said() -> None:
    assert worker(recipe(TORCH), cluster_gpus=0).no_gpu == "no node of the cluster has a GPU"
    kind = worker(recipe(TORCH), pool={"gpus_per_actor": 0})
    assert str(kind).endswith("on 1 CPUs, 0 GPUs (pool.gpus_per_actor is 0)")
