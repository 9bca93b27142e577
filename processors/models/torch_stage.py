"""What all stages share that run a vision model by torch: checkpoint, device, frames, the start."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from processors.errors import StageStartError, in_one_line
from processors.frames import FrameRequest, FrameSampling, Pixels
from processors.models.checkpoint import Checkpoint, ModelNeed, resolve
from processors.models.device import Device, FittingBatches, pick_device
from processors.models.images import ImageInputs
from processors.stage import ModelIdentity, Stage
from schemas.settings import Settings

Picture = NDArray[np.uint8]
"""RGB ``[h, w, 3]``, of the size that the model wants."""


class TorchStage(Stage):
    """A stage that looks at sampled frames with the model of one checkpoint."""

    makes_texts = False
    """Whether its checkpoint has a tokenizer."""

    def __init__(
        self, checkpoint: str, sampling: FrameSampling, pixels: Pixels, settings: Settings
    ) -> None:
        """``checkpoint``: a folder, or ``owner/repository`` of a hub."""
        self._checkpoint = checkpoint
        self._sampling = sampling
        self._pixels = pixels
        self._settings = settings
        self._frame_batches = FittingBatches(
            settings.models.frames_per_batch, stage=self.name, unit="frame"
        )
        self._found: Checkpoint | None = None
        self._identity: ModelIdentity | None = None
        self._inputs: ImageInputs | None = None
        self._device: Device | None = None

    @property
    def frames_column(self) -> str:
        """The sample's column that holds its frames."""
        return f"{self.name}_frames"

    def inputs(self) -> tuple[str, ...]:
        return (self.frames_column,)

    def frames(self) -> FrameRequest:
        """Known after `setup`: the size is the checkpoint's."""
        if self._inputs is None:
            raise RuntimeError("setup has not been called")
        return FrameRequest(self.frames_column, self._sampling, self._inputs.resize, self._pixels)

    @property
    def model(self) -> ModelIdentity | None:
        return self._identity

    @property
    def on_gpu(self) -> bool:
        return self._device is not None and self._device.is_gpu

    @property
    def no_gpu(self) -> str:
        return "" if self._device is None else self._device.no_gpu

    def find_model(self) -> None:
        recipe = str(self._settings.recipe_file)
        self._found = resolve(ModelNeed(self.name, self._checkpoint, self.makes_texts, recipe))

    def setup(self) -> None:
        if self._found is None:
            self.find_model()
        checkpoint = self._found
        assert checkpoint is not None
        cpus = self._settings.pool.cpus_per_actor
        self._device = pick_device(self._settings.models, cpus, stage=self.name)
        self._inputs = ImageInputs(checkpoint.folder, stage=self.name)
        try:
            self._load(checkpoint.folder, self._device)
            self.ping()
        except StageStartError:
            raise
        except Exception as error:
            words = in_one_line(error)
            raise StageStartError(
                f"stage {self.name}: the model {self._checkpoint} does not work: {words}"
            ) from None
        self._identity = checkpoint.identity

    def ping(self) -> None:
        if self._inputs is None:
            raise RuntimeError("setup has not been called")
        with torch.inference_mode():
            self._try_out(self._inputs.resize(np.zeros((64, 64, 3), dtype=np.uint8)))

    def _pixel_values(self, pictures: Sequence[Picture]) -> torch.Tensor:
        """``[n, 3, h, w]`` on the device, as the checkpoint's own processor makes it."""
        if self._inputs is None or self._device is None:
            raise RuntimeError("setup has not been called")
        return self._inputs(pictures, self._device)

    @abstractmethod
    def _load(self, folder: Path, device: Device) -> None:
        """Load the model from the checkpoint's folder."""

    @abstractmethod
    def _try_out(self, picture: Picture) -> None:
        """Have the model look at a picture; whatever it raises if it does not work."""
