"""From a decoded picture to the size that a model looks at, in the decoder's process.

Only pictures of that size leave it: a clip's frames at full size would be gigabytes. What is left
of a model's preparation, like its means, is done where the model runs.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, cast

import av
import numpy as np
from numpy.typing import NDArray

from processors.media.pixels import Image


class Resize(Protocol):
    """How pictures are brought to a model's size; hashable, so that stages share the result."""

    modules: ClassVar[tuple[str, ...]]
    """What the decoder's process has to import for it, before its memory is limited."""

    def __hash__(self) -> int: ...

    def __call__(self, rgb: Image) -> Image:
        """uint8 RGB ``[h, w, 3]`` of the size wanted, from one of any size."""


@dataclass(frozen=True)
class Stretched:
    """To a fixed size, whatever the shape, by swscale's bilinear filter, which antialiases."""

    modules: ClassVar[tuple[str, ...]] = ()

    width: int
    height: int

    def __call__(self, rgb: Image) -> Image:
        return _swscale(rgb, self.width, self.height)


@dataclass(frozen=True)
class Fitted:
    """Within a square, the shape kept and nothing enlarged, by swscale's bilinear filter."""

    modules: ClassVar[tuple[str, ...]] = ()

    longest_edge: int

    def __call__(self, rgb: Image) -> Image:
        height, width = rgb.shape[:2]
        scale = self.longest_edge / max(height, width)
        if scale >= 1:
            return np.ascontiguousarray(rgb)
        return _swscale(rgb, max(1, round(width * scale)), max(1, round(height * scale)))


@dataclass(frozen=True)
class ProcessorResize:
    """As the image processors of transformers do it by torchvision, then a centre crop.

    Bit for bit theirs, so that scores are. It needs torch, and does without torchvision, whose
    import costs the decoder's process seconds more; recipes without such models load neither.
    """

    modules: ClassVar[tuple[str, ...]] = ("torch",)

    height: int
    width: int
    """What the picture is stretched to; if ``shortest`` only `height` counts."""
    resample: Literal["bilinear", "bicubic"]
    shortest: bool = False
    """Whether ``height`` is the length of the shorter edge, the shape kept."""
    crop: tuple[int, int] | None = None
    """Height and width of the middle that is cut out; a smaller picture gets a black margin."""

    def __call__(self, rgb: Image) -> Image:
        import torch

        picture = torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)[None].contiguous()
        target = self._target(*rgb.shape[:2])
        if target != rgb.shape[:2]:
            # torchvision's rule: bilinear on bytes only where torch has a kernel for them.
            exact = self.resample == "bicubic" or _has_byte_kernels(torch)
            picture = torch.nn.functional.interpolate(
                picture if exact else picture.to(torch.float32),
                size=target,
                mode=self.resample,
                align_corners=False,
                antialias=True,
            )
            picture = picture.round().to(torch.uint8)
        pixels = picture[0].permute(1, 2, 0).numpy()
        return np.ascontiguousarray(pixels if self.crop is None else _middle(pixels, *self.crop))

    def _target(self, height: int, width: int) -> tuple[int, int]:
        if not self.shortest:
            return self.height, self.width
        # The longer edge is cut off, not rounded, as transformers has it.
        longer = int(self.height * max(height, width) / min(height, width))
        return (self.height, longer) if height <= width else (longer, self.height)


def _has_byte_kernels(torch: Any) -> bool:
    capability = torch.backends.cpu.get_cpu_capability()
    return capability in ("AVX2", "AVX512") or platform.machine() in ("aarch64", "arm64")


def _middle(rgb: Image, height: int, width: int) -> Image:
    """The middle of a picture by transformers' rounding, which is not torchvision's."""
    missing_h, missing_w = max(0, height - rgb.shape[0]), max(0, width - rgb.shape[1])
    if missing_h or missing_w:
        above, left = missing_h // 2, missing_w // 2
        rgb = np.pad(rgb, ((above, missing_h - above), (left, missing_w - left), (0, 0)))
    top, left = (rgb.shape[0] - height) // 2, (rgb.shape[1] - width) // 2
    return rgb[top : top + height, left : left + width]


def _swscale(rgb: Image, width: int, height: int) -> Image:
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
    small = picture.reformat(
        width=width, height=height, format="rgb24", interpolation="BILINEAR", threads=1
    )
    return cast(NDArray[np.uint8], small.to_ndarray())
