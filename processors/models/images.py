"""A checkpoint's image processor, split in two: sizes in the decoder, numbers where the model is.

The resize runs where a frame is decoded (`processors.resize.ProcessorResize`), so that only
pictures of the model's size travel, as bytes; rescaling and normalising run here, on the device, by
the real processor.
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
            self._at_once = self._is_last_step_all()
        except Exception as error:
            words = in_one_line(error)
            raise StageStartError(
                f"stage {stage}: the image processor in {folder} cannot be used: {words}"
            ) from None

    def __call__(self, frames: Sequence[NDArray[np.uint8]], device: Device) -> torch.Tensor:
        """``[n, 3, h, w]`` on the device from uint8 RGB frames that went through ``resize``."""
        pictures = torch.from_numpy(np.stack(frames)).to(device.device)
        pictures = pictures.permute(0, 3, 1, 2).contiguous()
        make = self._normalised if self._at_once else self._processed
        return make(pictures).to(device.dtype)

    def _processed(self, pictures: torch.Tensor) -> torch.Tensor:
        """By the processor as a whole, which looks at picture after picture: of 64 of them that
        takes milliseconds, as a small model on a GPU does."""
        made = self._processor(
            images=list(pictures),
            do_resize=False,
            do_center_crop=False,
            input_data_format="channels_first",
            return_tensors="pt",
        )
        return cast(torch.Tensor, made["pixel_values"])

    def _normalised(self, pictures: torch.Tensor) -> torch.Tensor:
        """By the processor's last step alone, all pictures at once."""
        processor = self._processor
        made = processor.rescale_and_normalize(
            pictures,
            processor.do_rescale,
            processor.rescale_factor,
            processor.do_normalize,
            processor.image_mean,
            processor.image_std,
        )
        return cast(torch.Tensor, made)

    def _is_last_step_all(self) -> bool:
        """Whether that step is all that this kind of processor does to what is resized."""
        noise = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), np.uint8)
        pictures = torch.from_numpy(noise)
        expected = self._processed(pictures)
        try:
            return bool(torch.equal(self._normalised(pictures), expected))
        except (AttributeError, TypeError, ValueError):
            return False


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
