"""Loading a model from a checkpoint so that nothing of it is left to chance.

transformers fills a weight that the files lack with random numbers and goes on; here that stops
the start.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from transformers.utils import logging

from processors.errors import StageStartError, in_one_line
from processors.models.device import Device

_SHOWN_KEYS = 4


def load_model(model_class: Any, folder: Path, device: Device, *, stage: str) -> Any:
    """A model in evaluation mode on the device, from a checkpoint's folder.

    ``model_class`` is a class of transformers, or one derived from it. `StageStartError` if the
    files cannot be read, or lack or contradict a weight of that architecture.
    """
    # Its bars are for notebooks, and its remarks are what is checked below.
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model, report = model_class.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=device.dtype,
                output_loading_info=True,
            )
    except Exception as error:
        words = in_one_line(error)
        raise StageStartError(
            f"stage {stage}: the checkpoint in {folder} cannot be loaded as "
            f"{model_class.__name__}: {words}; `cliplake models verify` compares its files with "
            "what was fetched"
        ) from None
    wrong = sorted(report["missing_keys"]) + sorted(str(k) for k in report["mismatched_keys"])
    if wrong:
        more = f" and {len(wrong) - _SHOWN_KEYS} more" if len(wrong) > _SHOWN_KEYS else ""
        raise StageStartError(
            f"stage {stage}: the checkpoint in {folder} is no {model_class.__name__}: it lacks "
            f"{', '.join(wrong[:_SHOWN_KEYS])}{more}, or has them in another shape"
        )
    return model.to(device.device).eval()
