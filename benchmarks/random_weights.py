"""Checkpoints that hold a seed in place of weights: the weights are drawn where they are used.

`write` makes one of a folder with a configuration; after `install`, `from_pretrained` of
transformers draws the weights of such a folder on the device, so that gigabytes are neither saved
nor copied. A tensor's numbers depend on the seed and its name alone: every class that has the
checkpoint's names has the same weights. DataJuicer's environment uses this as well: it imports
nothing of ours.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import GenerationConfig, PreTrainedModel

_FILE = "model.safetensors"
"""As real weights are called: whoever looks for a checkpoint's files finds all."""
_SEED, _SCALE = "random_seed", "random_scale"
_STD = 0.02
_END_OF_CAPTION = 2
"""OPT's token that begins and ends a text."""


def write(folder: Path, *, seed: int, scale: float = 1.0) -> None:
    """Leave a seed in a folder. ``scale``: times the standard deviation, which is 0.02."""
    told = {"format": "pt", _SEED: str(seed), _SCALE: str(scale)}
    save_file({"seed": torch.tensor([seed])}, folder / _FILE, metadata=told)


def install(default: torch.dtype = torch.float32) -> None:
    """From now on `from_pretrained` draws weights. ``default``: of models for which none is asked,
    as the one that a checkpoint's tensors are saved in is otherwise."""

    def drawn(kind: Any, folder: Any, *_: Any, **how: Any) -> Any:
        return _draw(kind, Path(folder), default, how)

    PreTrainedModel.from_pretrained = classmethod(drawn)


def _draw(kind: Any, folder: Path, default: torch.dtype, how: dict[str, Any]) -> Any:
    seed, scale = _read(folder)
    config = how.get("config") or kind.config_class.from_pretrained(folder)
    dtype = how.get("dtype") or how.get("torch_dtype")
    dtype = dtype if isinstance(dtype, torch.dtype) else default
    device = how.get("device_map") or ("cuda" if torch.cuda.is_available() else "cpu")
    with torch.device(device):
        model = kind._from_config(config, dtype=dtype)
    with torch.no_grad():
        _fill(model, seed, scale)
    if model.can_generate():
        model.generation_config = GenerationConfig.from_model_config(config)
    model.eval()
    if not how.get("output_loading_info"):
        return model
    return model, {"missing_keys": set(), "mismatched_keys": set(), "unexpected_keys": set()}


def _read(folder: Path) -> tuple[int, float]:
    with safe_open(folder / _FILE, "pt") as file:
        told = file.metadata() or {}
    if _SEED not in told:
        raise ValueError(f"{folder} holds weights, and no seed for random ones")
    return int(told[_SEED]), float(told[_SCALE])


def _fill(model: Any, seed: int, scale: float) -> None:
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
        elif parameter.dim() == 1 and name.endswith("weight"):
            # Of a normalisation.
            parameter.fill_(1)
        else:
            # In single precision whatever the model's: the same numbers, rounded.
            generator = torch.Generator(parameter.device)
            generator.manual_seed(_seed_of(seed, name))
            numbers = torch.empty(parameter.shape, device=parameter.device)
            parameter.copy_(numbers.normal_(std=_STD * scale, generator=generator))
        if name.endswith("embed_tokens.weight"):
            # The input's own token is the likeliest next one of such a model, and the first input
            # is the token that ends a caption: all would be empty.
            parameter[_END_OF_CAPTION].zero_()


def _seed_of(seed: int, name: str) -> int:
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return int.from_bytes(digest[:6], "big")
