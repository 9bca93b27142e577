"""Files of a clip, for stages that open files: the clip alone as a video, its frames as pictures.

Clips are virtual, so these are made when the first such stage is about to run, in one further
decoding pass. The pass runs in the sandbox's child; a clip that a gate has rejected by then costs
nothing. How many clips have files at a time is said in `processors.file_groups`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import cv2
from av.video.frame import VideoFrame

from processors.clip_decoder import work_seconds
from processors.clip_pass import DecodePlan, locate_clips
from processors.clip_reader import ClipReader, ClipSpan
from processors.errors import DependencyFault, MediaError
from processors.frames import FrameSampling
from processors.media.cut import CutWriter
from processors.media.pixels import BgrConverter
from processors.media.sandbox import Sandbox
from processors.scratch import FULL, STALE_S
from processors.stage import CLIP_FILE, FRAME_FILES, FileRequest, Sample
from schemas.reasons import MediaReason
from schemas.settings import DecodeSettings

STAGE = "cut"
_FOLDER_PREFIX = "clips-"
_FAST_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1]


class ScratchFull(DependencyFault):
    """The disk has no room for the files of a clip; it may have when those of others are gone."""


@dataclass
class WrittenFiles:
    """The files of one clip."""

    columns: Sample = field(default_factory=dict)
    """`CLIP_FILE` and `FRAME_FILES`, as far as they are wanted."""
    size: int = 0
    """Bytes of all of them."""
    cpu_s: float = 0.0


@dataclass(frozen=True)
class _Written:
    """What a pass wrote: names in the folder that it was given."""

    frames: tuple[str, ...] = ()
    size: int = 0
    cpu_s: float = 0.0
    disk_error: int = 0
    """Number of the system's error if nothing can be written: that is no clip's fault."""


class ClipFiles:
    """Writes the files of clips into folders of their own under the scratch folder.

    Several threads may call it; they take turns at its one sandbox.
    """

    def __init__(
        self,
        settings: DecodeSettings,
        scratch_dir: Path,
        request: FileRequest,
        sampling: FrameSampling,
        give_room: Callable[[], bool] = lambda: False,
    ) -> None:
        """``sampling`` says which frames are written; ``give_room`` is called while the disk is
        full: whether it is worth another try."""
        self.max_bytes = settings.clip_files_bytes
        """Of all files of one clip."""
        self._sandbox = Sandbox(settings, max_file_bytes=self.max_bytes)
        self._scratch_dir = scratch_dir
        self._request = request
        self._sampling = sampling
        self._give_room = give_room
        self._resources = ExitStack()
        self._making = threading.Lock()
        self._own: Path | None = None

    def close(self) -> None:
        """Remove what is left, and end the child."""
        self._sandbox.close()
        self._resources.close()
        self._own = None

    def write(self, media: str, span: ClipSpan, cleanup: ExitStack) -> WrittenFiles:
        """The files of one clip; ``cleanup`` removes them. Where it raises, none are left.

        Raises `MediaError` (stage ``cut``) if the clip cannot be written, ``too_large`` if it
        would have more than ``max_bytes``; `ScratchFull` if the disk has no room for it,
        `DependencyFault` if nothing can be written.
        """
        try:
            return self._written(media, span, cleanup)
        except ScratchFull:
            if not self._give_room():
                raise
            # All that may go: the files of a clip are large, and decoding it again is dear.
            while self._give_room():
                pass
            return self._written(media, span, cleanup)

    def _written(self, media: str, span: ClipSpan, cleanup: ExitStack) -> WrittenFiles:
        with ExitStack() as failing:
            try:
                temporary = tempfile.TemporaryDirectory(dir=self._folder())
                folder = failing.enter_context(temporary)
                written = self._run(media, span, folder)
            except MediaError as error:
                # What nobody foresaw may be the machine's doing, like an error of any stage.
                error.retryable = error.retryable or error.reason is MediaReason.STAGE_ERROR
                raise
            except (RuntimeError, OSError) as error:
                raise DependencyFault(
                    f"clips cannot be cut in {self._scratch_dir}: {error}"
                ) from error
            if written.disk_error:
                raise self._disk_fault(written.disk_error)
            cleanup.push(failing.pop_all())
        files = WrittenFiles(size=written.size, cpu_s=written.cpu_s)
        if self._request.cut:
            files.columns[CLIP_FILE] = str(_cut_path(Path(folder)))
        if self._request.frames:
            files.columns[FRAME_FILES] = [str(Path(folder) / name) for name in written.frames]
        return files

    def _disk_fault(self, number: int) -> DependencyFault:
        text = f"{self._scratch_dir} cannot be written: {os.strerror(number)}"
        if number not in FULL:
            return DependencyFault(text)
        return ScratchFull(
            f"{text}; make room there, or set decode.clip_files_bytes (now {self.max_bytes}) lower "
            "to give up clips whose files have more"
        )

    def _folder(self) -> Path:
        """A folder of our own, locked, so that it is no leftover of a process that was killed."""
        with self._making:
            if self._own is None:
                self._scratch_dir.mkdir(parents=True, exist_ok=True)
                _sweep(self._scratch_dir)
                folder = Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX, dir=self._scratch_dir))
                self._resources.callback(shutil.rmtree, folder, ignore_errors=True)
                descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                self._resources.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                self._own = folder
            return self._own

    def _run(self, media: str, span: ClipSpan, folder: str) -> _Written:
        sandbox = self._sandbox
        (located,) = sandbox.run(
            locate_clips, media, (span,), deadline_s=sandbox.deadline_for(0), stage=STAGE
        )
        seconds = work_seconds(located, DecodePlan(self._sampling))
        return sandbox.run(
            write_clip_files,
            media,
            located,
            folder,
            self._request,
            self._sampling,
            self.max_bytes,
            deadline_s=sandbox.deadline_for(seconds),
            stage=STAGE,
        )


def write_clip_files(
    media: str,
    span: ClipSpan,
    folder: str,
    request: FileRequest,
    sampling: FrameSampling,
    max_bytes: int,
) -> _Written:
    """Decode a clip once and write what is wanted of it; runs in the sandbox's child.

    `MediaError` (``too_large``) if that has more than ``max_bytes``.
    """
    cpu_before = time.process_time()
    try:
        with ExitStack() as stack:
            reader = stack.enter_context(ClipReader(media))
            cut = None
            if request.cut:
                writer = CutWriter(_cut_path(Path(folder)), span.time_base, span.duration)
                cut = stack.enter_context(writer)
            pictures = _Pictures(Path(folder), sampling, span) if request.frames else None
            for _ in _write(reader, span, cut, pictures):
                _check_size(folder, pictures, max_bytes)
        size = _check_size(folder, pictures, max_bytes)
    except OSError as error:
        # libav's errors of the system are of this class as well.
        if error.errno in (*FULL, errno.EROFS):
            return _Written(disk_error=error.errno)
        if error.errno == errno.EFBIG:
            raise _too_large(max_bytes) from None
        raise
    names = () if pictures is None else tuple(pictures.names)
    return _Written(names, size, cpu_s=time.process_time() - cpu_before)


def _check_size(folder: str, pictures: _Pictures | None, max_bytes: int) -> int:
    """Bytes of what has been written."""
    cut = _cut_path(Path(folder))
    size = (cut.stat().st_size if cut.exists() else 0) + (pictures.size if pictures else 0)
    if size > max_bytes:
        raise _too_large(max_bytes)
    return size


def _too_large(max_bytes: int) -> MediaError:
    return MediaError(
        MediaReason.TOO_LARGE,
        f"the clip's files would have more than {max_bytes} bytes (decode.clip_files_bytes)",
        stage=STAGE,
    )


def _write(
    reader: ClipReader, span: ClipSpan, cut: CutWriter | None, pictures: _Pictures | None
) -> Iterator[None]:
    """Write frame by frame, and come back after each."""
    last = None
    for pts, frame in reader.frames(span):
        offset = pts - span.start_pts
        # Before the cut, which changes the frame's timestamp and type.
        if pictures is not None:
            pictures.add(offset, frame)
        if cut is not None:
            cut.add(offset, frame)
        last = frame
        yield
    if last is None:
        raise MediaError(MediaReason.NO_FRAMES, "no frame of the clip could be decoded")
    if pictures is not None:
        pictures.finish(last)


class _Pictures:
    """Writes the sampled frames, upright and without loss, as numbered PNG files."""

    def __init__(self, folder: Path, sampling: FrameSampling, span: ClipSpan) -> None:
        self._folder = folder
        self._sampler = sampling.sampler(span.duration, span.frame_count)
        self._to_bgr = BgrConverter()
        self._count = 0
        self._sizes: dict[str, int] = {}

    @property
    def names(self) -> list[str]:
        """In order of time."""
        return list(self._sizes)

    @property
    def size(self) -> int:
        """Bytes of all of them."""
        return sum(self._sizes.values())

    def add(self, offset: int, frame: VideoFrame) -> None:
        if self._sampler.take(offset, bool(frame.key_frame)):
            self._save(frame)

    def finish(self, last: VideoFrame) -> None:
        if self._sampler.take_last():
            self._save(last)

    def _save(self, frame: VideoFrame) -> None:
        name = f"frame-{self._count:06d}.png"
        self._count += 1
        # OpenCV says no more than that it failed; where the disk is full, Python's error says so.
        done, encoded = cv2.imencode(".png", self._to_bgr(frame), _FAST_PNG)
        if not done:
            raise ValueError(f"a picture of {frame.width} by {frame.height} cannot be a PNG")
        self._sizes[name] = (self._folder / name).write_bytes(encoded.tobytes())
        while self._sampler.thin(len(self._sizes)):
            for dropped in self.names[1::2]:
                (self._folder / dropped).unlink()
                del self._sizes[dropped]


def _sweep(scratch_dir: Path) -> None:
    """Remove the folders of processes that are gone: a lock ends with who held it."""
    for folder in scratch_dir.glob(f"{_FOLDER_PREFIX}*"):
        with contextlib.suppress(OSError), ExitStack() as stack:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            if time.time() - os.fstat(descriptor).st_mtime < STALE_S:
                continue
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)


def _cut_path(folder: Path) -> Path:
    return folder / "clip.mp4"
