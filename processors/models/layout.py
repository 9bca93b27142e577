"""Which files of a checkpoint loading needs, by their names; nothing is fetched or loaded here."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from pathlib import Path

from processors.errors import in_one_line

CONFIGURATION = "config.json"
_METADATA = ("*.json", "*.txt", "*.model", "*.jinja")
_SAFETENSORS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
_PICKLES = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin")
_INDEX = ".index.json"
_IMAGE_PROCESSOR = ("preprocessor_config.json", "processor_config.json")
_TOKENIZER = ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model", "spiece.model")


def is_pickle(name: str) -> bool:
    """Whether the file is weights in pickled form, which nothing loads before it is converted."""
    return _PICKLES.fullmatch(name) is not None


def is_index(name: str) -> bool:
    """Whether the file says which shard holds which tensor."""
    return name.endswith(_INDEX)


def weights_of(names: Collection[str]) -> tuple[str, ...]:
    """The files of the weights among ``names``: safetensors if there are any, else pickles.

    Of a format that is there in one file and in shards, the one file, as transformers has it.
    """
    for pattern in (_SAFETENSORS, _PICKLES):
        found = sorted(name for name in names if pattern.fullmatch(name))
        whole = [name for name in found if "-of-" not in name]
        if found:
            return tuple(whole or found)
    return ()


def needed_of(names: Collection[str]) -> tuple[str, ...]:
    """What to fetch of a repository's files: metadata and the weights of one format.

    What lies in folders is left: there are the same weights for other frameworks.
    """
    top = [name for name in names if "/" not in name]
    metadata = [name for name in top if any(Path(name).match(pattern) for pattern in _METADATA)]
    return tuple(sorted({*metadata, *weights_of(top)}))


def what_lacks(folder: Path, *, tokenizer: bool) -> str | None:
    """What a folder lacks of a checkpoint of pictures, in words; None if it lacks nothing.

    ``tokenizer``: whether the stage makes texts.
    """
    try:
        names = {path.name for path in folder.iterdir() if path.is_file()}
    except OSError as error:
        return f"files that can be read ({error.strerror})"
    if CONFIGURATION not in names:
        return CONFIGURATION
    if problem := _weights_problem(folder, names):
        return problem
    if names.isdisjoint(_IMAGE_PROCESSOR):
        return f"its image processor ({' or '.join(_IMAGE_PROCESSOR)})"
    if tokenizer and names.isdisjoint(_TOKENIZER):
        return f"its tokenizer ({', '.join(_TOKENIZER[:-1])} or {_TOKENIZER[-1]})"
    if tokenizer and "vocab.json" in names and names.isdisjoint(("merges.txt", "tokenizer.json")):
        return "merges.txt of its tokenizer"
    return None


def _weights_problem(folder: Path, names: set[str]) -> str | None:
    weights = weights_of(names)
    if not weights:
        return "weights (model.safetensors or pytorch_model.bin)"
    if "-of-" not in weights[0]:
        return None
    index = ("pytorch_model.bin" if is_pickle(weights[0]) else "model.safetensors") + _INDEX
    try:
        shards = set(
            json.loads((folder / index).read_text(encoding="utf-8"))["weight_map"].values()
        )
        missing = sorted(shards - names)
    except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        return f"a readable {index} ({in_one_line(error)})"
    return ", ".join(missing[:3]) or None
