"""A checkpoint's image processor, split in two: sizes in the decoder, numbers where the model is.

The resize runs where a frame is decoded (`processors.resize.ProcessorResize`), so that only
pictures of the model's size travel; rescaling and normalising run here, by the real processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoImageProcessor

from processors.errors import StageStartError, in_one_line
from processors.models.device import Device
from processors.resize import ProcessorResize

_RESAMPLE: dict[int, Literal["bilinear", "bicubic"]] = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers, in which checkpoints state their filter."""


class ImageInputs:
    """Prepares frames for a vision model as its checkpoint's own processor does."""

    def __init__(self, folder: Path, *, stage: str) -> None:
        """`StageStartError` if the folder has no image processor, or one of an unknown kind."""
        try:
            self._processor: Any = AutoImageProcessor.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, backend="torchvision"
            )
            self.resize = _resize_of(self._processor)
        except Exception as error:
            words = in_one_line(error)
            raise StageStartError(
                f"stage {stage}: the image processor in {folder} cannot be used: {words}"
            ) from None

    def __call__(self, frames: Sequence[NDArray[np.uint8]], device: Device) -> torch.Tensor:
        """``[n, 3, h, w]`` on the device from uint8 RGB frames that went through ``resize``."""
        pictures = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).to(device.device)
        made = self._processor(
            images=list(pictures),
            do_resize=False,
            do_center_crop=False,
            input_data_format="channels_first",
            return_tensors="pt",
        )
        return cast(torch.Tensor, made["pixel_values"].to(device.dtype))


def _resize_of(processor: Any) -> ProcessorResize:
    if not processor.do_resize:
        raise ValueError("it does not resize, and frames come in any size")
    size, resample = processor.size, _RESAMPLE.get(int(processor.resample))
    if resample is None:
        raise ValueError(f"its filter is {processor.resample}; bilinear and bicubic can be run")
    crop = None
    if getattr(processor, "do_center_crop", None):
        crop = (processor.crop_size.height, processor.crop_size.width)
    if size.height and size.width:
        return ProcessorResize(size.height, size.width, resample, crop=crop)
    if size.shortest_edge and not size.longest_edge and crop is not None:
        return ProcessorResize(size.shortest_edge, 0, resample, shortest=True, crop=crop)
    raise ValueError(f"its size is {size}, and height and width, or a crop, are needed")
