"""The checkpoints of the article's three models, as `benchmarks.random_weights` has them.

Their configurations are those that ``docs/checkpoints.json`` publishes, at full size or tiny.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import Blip2Config, CLIPVisionConfig, ViTConfig, ViTImageProcessor

from benchmarks import random_weights
from schemas.settings import CHECKOUT
from tests.tiny_models import (
    AESTHETICS_NAME,
    TinyCheckpoints,
    save_aesthetics_processors,
    save_video_blip_processors,
)

_TINY: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
_TINY_OF: dict[str, dict[str, Any]] = {
    "safety": _TINY,
    "aesthetics": {**_TINY, "projection_dim": 16},
    "video_blip": {
        "vision_config": _TINY,
        "qformer_config": {**_TINY, "encoder_hidden_size": 32},
        "text_config": {
            "hidden_size": 32,
            "word_embed_proj_dim": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "ffn_dim": 64,
        },
    },
}
_KINDS = {"safety": ViTConfig, "aesthetics": CLIPVisionConfig, "video_blip": Blip2Config}
_TINY_SCALE = {"safety": 5.0, "aesthetics": 3.0, "video_blip": 6.0}
"""With fewer layers and narrower ones, all pictures score the same otherwise."""


def make(folder: Path, *, tiny: bool) -> TinyCheckpoints:
    """Folders below ``folder`` with everything but weights; ``tiny`` has two layers of each."""
    made = TinyCheckpoints(
        safety=folder / "Falconsai" / "nsfw_image_detection",
        aesthetics=folder / AESTHETICS_NAME,
        video_blip=folder / "kpyu" / "video-blip-opt-2.7b-ego4d",
    )
    published = json.loads((CHECKOUT / "docs" / "checkpoints.json").read_text(encoding="utf-8"))
    for seed, (name, kind) in enumerate(_KINDS.items(), start=1):
        target: Path = getattr(made, name)
        target.mkdir(parents=True, exist_ok=True)
        values = published[name]["configuration"]
        if tiny:
            values = _changed(values, _TINY_OF[name])
        _write_config(kind, values, published[name]["architecture"], target)
        random_weights.write(target, seed=seed, scale=_TINY_SCALE[name] if tiny else 1.0)
    ViTImageProcessor().save_pretrained(made.safety)
    save_aesthetics_processors(made.aesthetics)
    save_video_blip_processors(made.video_blip)
    return made


def _changed(values: dict[str, Any], by: dict[str, Any]) -> dict[str, Any]:
    changed = dict(values)
    for name, value in by.items():
        changed[name] = _changed(values[name], value) if isinstance(value, dict) else value
    return changed


def _write_config(kind: Any, values: dict[str, Any], architecture: str, folder: Path) -> None:
    """The whole configuration, defaults included, under the published type and class."""
    given = {name: value for name, value in values.items() if name != "model_type"}
    config = kind(**given).to_dict()
    config |= {"model_type": values["model_type"], "architectures": [architecture]}
    # Saved before it was written into configurations.
    config.pop("image_token_index", None)
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
