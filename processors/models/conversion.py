"""Pickled weights made into safetensors, so that no stage ever loads a pickle.

Here, and only here, a pickle is read, by torch's unpickler that makes tensors and calls nothing.
"""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from processors.errors import in_one_line
from processors.models.layout import is_index, is_pickle
from processors.models.records import FileHash

_SHARD_BYTES = 2 * 2**30
"""Largest file of converted weights: a file is put together in memory before it is written."""
_CALLED = re.compile(r"GLOBAL (\S+)")


class ConversionError(Exception):
    """These weights cannot be converted; the text says which and why."""


def convert(
    source: Path, metadata: Sequence[str], pickles: Sequence[str], target: Path
) -> tuple[FileHash, ...]:
    """A whole checkpoint in ``target``: weights of ``source``'s pickles, and its ``metadata``.

    Returns the weights' files. `ConversionError` if a pickle holds anything but tensors, or cannot
    be read; `OSError` for the rest.
    """
    # Imported here: it takes seconds, and hardly a checkpoint needs it.
    from huggingface_hub import save_torch_state_dict

    tensors: dict[str, Any] = {}
    for name in pickles:
        tensors |= _tensors(source / name)
    target.mkdir(parents=True)
    for name in metadata:
        if not (is_pickle(name) or is_index(name)):
            shutil.copyfile(source / name, target / name)
    try:
        save_torch_state_dict(_apart(tensors), target, max_shard_size=_SHARD_BYTES)
    except OSError:
        raise
    except Exception as error:
        raise ConversionError(
            f"the weights in {source} cannot be written as safetensors: {in_one_line(error)}"
        ) from None
    return tuple(FileHash.of(path) for path in sorted(target.glob("model*.safetensors*")))


def _tensors(path: Path) -> dict[str, Any]:
    import torch

    try:
        found = torch.load(
            path,
            map_location="cpu",
            weights_only=True,
            # What is mapped is read when it is written; files of before torch 1.6 cannot be.
            mmap=zipfile.is_zipfile(path),
        )
    except OSError:
        raise
    except Exception as error:
        called = _CALLED.search(str(error))
        what = f"it asks for {called[1]}" if called else in_one_line(error)
        raise ConversionError(
            f"{path} is no file of tensors alone, and is not read: {what}"
        ) from None
    if not isinstance(found, dict) or not found:
        raise ConversionError(f"{path} holds {type(found).__name__}, and no tensors by their names")
    for name, value in found.items():
        if not (isinstance(name, str) and isinstance(value, torch.Tensor)):
            raise ConversionError(f"{path} holds a {type(value).__name__} under {name!r:.100}")
        if value.layout != torch.strided:
            raise ConversionError(f"{path} holds {name!r:.100} as {value.layout}")
    return {name: value.detach() for name, value in found.items()}


def _apart(tensors: dict[str, Any]) -> dict[str, Any]:
    """The same with memory of its own for each: of several that share it, one would be written."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if storage in seen else tensor
        seen.add(storage)
    return apart
