"""What ran beside the clock: a GPU's busy time, CPU time of all processes; and lines of figures.

Busy time is NVML's: the share of time in which at least one kernel ran. It sees every process and
stream of the GPU, so that DataJuicer is measured as we are, and costs the measured code nothing.
CUDA events would count the gaps between kernels in which the GPU waits for Python, and those are
what is looked for. DataJuicer's environment uses this as well: nothing of ours but the meter.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.meter import Meter

_SAMPLE_S = 0.1
"""NVML's own period is a sixth of a second to a second: windows should last several."""


@dataclass
class Window:
    """What a stretch of work took. Of a GPU: None where none can be asked."""

    wall_s: float = 0.0
    cpu_cores: float = 0.0
    """CPU seconds a second, of the process and all that it started."""
    gpu_busy: float | None = None
    """Share of the time, 0 to 1."""
    gpu_watts: float | None = None
    gpu_bytes: int | None = None
    """The most that was taken of its memory, by whomever."""


@contextlib.contextmanager
def window() -> Iterator[Window]:
    """Measure what happens inside; the figures are there at its end."""
    measured, meter = Window(), Meter()
    with Gpu.visible() as gpu:
        with meter.working():
            yield measured
        if gpu is not None:
            gpu.stop()
            measured.gpu_busy, measured.gpu_watts = gpu.busy, gpu.watts
            measured.gpu_bytes = gpu.most_bytes
    measured.wall_s = meter.wall_s
    measured.cpu_cores = meter.cpu_s / meter.wall_s


class Gpu:
    """Asks NVML about one GPU, again and again, until it is stopped."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml = nvml
        self._handle = handle
        self._shares: list[float] = []
        self._most_bytes: int | None = None
        self._energy_mj = self._ask("TotalEnergyConsumption")
        self._began = time.monotonic()
        self.watts: float | None = None
        """On average, once it is stopped."""
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    @classmethod
    @contextlib.contextmanager
    def visible(cls) -> Iterator[Gpu | None]:
        """The first GPU that CUDA would use; None if there is none, or no NVML."""
        try:
            import pynvml

            pynvml.nvmlInit()
        except Exception:  # the package, the library or the driver is missing
            yield None
            return
        try:
            gpu = cls(pynvml, _handle(pynvml))
            try:
                yield gpu
            finally:
                gpu.stop()
        finally:
            pynvml.nvmlShutdown()

    @classmethod
    def described(cls) -> dict[str, str] | None:
        """Its name and its driver's version; None as for `visible`."""
        with cls.visible() as gpu:
            if gpu is None:
                return None
            driver = gpu._nvml.nvmlSystemGetDriverVersion()
            return {"name": str(gpu._ask("Name")), "driver": str(driver)}

    @property
    def busy(self) -> float | None:
        return statistics.fmean(self._shares) if self._shares else None

    @property
    def most_bytes(self) -> int | None:
        return self._most_bytes

    def stop(self) -> None:
        if self._stopped.is_set():
            return
        self._stopped.set()
        self._thread.join()
        energy_mj = self._ask("TotalEnergyConsumption")
        if energy_mj is not None and self._energy_mj is not None:
            self.watts = (energy_mj - self._energy_mj) / 1000 / (time.monotonic() - self._began)

    def _watch(self) -> None:
        while not self._stopped.wait(_SAMPLE_S):
            if (rates := self._ask("UtilizationRates")) is not None:
                self._shares.append(rates.gpu / 100)
            if (memory := self._ask("MemoryInfo")) is not None:
                self._most_bytes = max(self._most_bytes or 0, int(memory.used))

    def _ask(self, what: str) -> Any:
        """None if this GPU or its driver does not say."""
        try:
            return getattr(self._nvml, f"nvmlDeviceGet{what}")(self._handle)
        except self._nvml.NVMLError:
            return None


def _handle(nvml: Any) -> Any:
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0]
    if first.startswith(("GPU-", "MIG-")):
        return nvml.nvmlDeviceGetHandleByUUID(first)
    return nvml.nvmlDeviceGetHandleByIndex(int(first or 0))


@dataclass
class Done:
    """Work that came to its end."""

    clips: int = 0
    video_s: float = 0.0
    frames: int = 0
    """That a model looked at; 0 where that is not counted."""
    tokens: int | None = None
    """Of captions; None where there are none."""

    def add(self, other: Done) -> None:
        self.clips += other.clips
        self.video_s += other.video_s
        self.frames += other.frames
        if other.tokens is not None:
            self.tokens = (self.tokens or 0) + other.tokens


@dataclass
class Lines:
    """A file of figures, one JSON object a line, each on the disk before work goes on: whatever
    ends a process, what it measured before stays."""

    path: Path
    common: dict[str, Any] = field(default_factory=dict)
    """In every line."""

    def add(self, **figures: Any) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**self.common, **figures}) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def rate(self, what: str, done: Done, took: Window, **more: Any) -> None:
        """A line about work and what it took."""
        figures: dict[str, Any] = {
            "video_s_per_s": done.video_s / took.wall_s,
            "clips_per_s": done.clips / took.wall_s,
            "clips": done.clips,
            "video_s": done.video_s,
        }
        if done.frames:
            figures["frames_per_s"] = done.frames / took.wall_s
        if done.tokens is not None and done.clips:
            figures["caption_tokens_per_clip"] = done.tokens / done.clips
        self.add(what=what, **figures, **asdict(took), **more)

    def read(self) -> list[dict[str, Any]]:
        """All lines; the last one may have been cut off."""
        lines = []
        if self.path.exists():
            for text in self.path.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError):
                    lines.append(json.loads(text))
        return lines
