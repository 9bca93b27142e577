"""A video's bytes as a local file: what may be read, from where, and how much.

`Fetcher.fetch` gives a path that libav may open; `file:` URIs are read in place, everything
else is copied to a scratch file that is gone when the caller is done. How bytes travel is in
`fetch_http` and `fetch_s3`; this module holds the rules about URIs, folders, sizes and hashes.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

from tenacity import (
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    stop_before_delay,
    wait_exponential_jitter,
)

from processors.errors import MediaError
from processors.failpoints import passing
from processors.fetch_http import HttpReader
from processors.fetch_problem import Deadline, FetchProblem, redact
from processors.fetch_s3 import S3Reader
from schemas.reasons import MediaReason
from schemas.settings import FetchSettings

_SCRATCH_PREFIX = "fetch-"
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 10.0
_STALE_S = 60.0
"""A scratch file is locked within this time of its creation; before, it is nobody's leftover."""


@dataclass(frozen=True)
class LocalMedia:
    """A file to decode; valid inside the ``with`` that gave it."""

    path: Path
    size: int
    sha256: str
    """Of its bytes, hex."""
    bytes_fetched: int
    """Bytes that came over a network for it; 0 if it is read in place."""


class Fetcher:
    """Fetches under one set of rules; may be used by several threads at once."""

    def __init__(self, settings: FetchSettings, scratch_dir: Path) -> None:
        self._settings = settings
        self._scratch_dir = scratch_dir
        self._roots = [
            Path(os.path.realpath(Path(root).expanduser())) for root in settings.file_roots
        ]
        self._http = HttpReader(settings)
        self._s3 = S3Reader(settings)
        self._swept = False

    def fetch(
        self, uri: str, *, expected_sha256: str | None = None
    ) -> AbstractContextManager[LocalMedia]:
        """The video's bytes as a local file.

        Raises `MediaError` (stage ``fetch``) on entering: ``uri_not_allowed``, ``not_found``,
        ``too_large``, ``fetch_failed`` and ``fetch_timeout`` (``retryable`` says whether later
        may be better), ``source_changed`` if the bytes do not hash to ``expected_sha256``.
        """
        return self._fetch(uri, expected_sha256)

    @contextmanager
    def _fetch(self, uri: str, expected_sha256: str | None) -> Iterator[LocalMedia]:
        with contextlib.ExitStack() as cleanup:
            try:
                media = self._open(uri, cleanup)
            except FetchProblem as problem:
                raise MediaError(
                    problem.reason,
                    f"{redact(uri)}: {problem}",
                    stage="fetch",
                    retryable=problem.retryable,
                ) from None
            if expected_sha256 is not None and media.sha256 != expected_sha256:
                raise MediaError(
                    MediaReason.SOURCE_CHANGED,
                    f"{redact(uri)}: its bytes hash to {media.sha256}, and when it was split "
                    f"they hashed to {expected_sha256}",
                    stage="fetch",
                )
            passing("fetch.done")
            yield media

    def _open(self, uri: str, cleanup: contextlib.ExitStack) -> LocalMedia:
        try:
            parts = urlsplit(uri)
            _ = parts.port
        except ValueError as error:
            raise FetchProblem(MediaReason.URI_NOT_ALLOWED, f"not a URI: {error}") from None
        if parts.username is not None or parts.password is not None:
            raise FetchProblem(MediaReason.URI_NOT_ALLOWED, "a URI may not carry credentials")
        if parts.scheme == "file":
            return self._in_place(parts)
        if parts.scheme in ("https", "http", "s3"):
            return self._to_scratch(uri, parts, cleanup)
        raise FetchProblem(
            MediaReason.URI_NOT_ALLOWED,
            f"scheme {parts.scheme or 'none'} is not fetched; file, https and s3 are",
        )

    def _in_place(self, parts: SplitResult) -> LocalMedia:
        path = self._allowed_path(parts)
        try:
            # Not blocking: a FIFO without a writer would hold us for ever.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            raise FetchProblem(MediaReason.NOT_FOUND, "there is no such file") from None
        except OSError as error:
            raise FetchProblem(
                MediaReason.FETCH_FAILED, f"the file cannot be opened: {error.strerror}"
            ) from None
        try:
            size = self._check_file(os.fstat(descriptor))
            with open(descriptor, "rb", closefd=False) as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise FetchProblem(
                MediaReason.FETCH_FAILED,
                f"the file cannot be read: {error.strerror}",
                retryable=True,
            ) from None
        finally:
            os.close(descriptor)
        return LocalMedia(path, size, sha256, bytes_fetched=0)

    def _check_file(self, status: os.stat_result) -> int:
        """The file's size, if it is a file and not too large."""
        if stat.S_ISDIR(status.st_mode):
            raise FetchProblem(MediaReason.NOT_FOUND, "it is a folder, not a file")
        if not stat.S_ISREG(status.st_mode):
            raise FetchProblem(MediaReason.NOT_FOUND, "it is not a regular file")
        self._check_size(status.st_size)
        return status.st_size

    def _allowed_path(self, parts: SplitResult) -> Path:
        """The real path, if it is under one of the roots."""
        if parts.netloc not in ("", "localhost"):
            raise FetchProblem(
                MediaReason.URI_NOT_ALLOWED, f"host {parts.netloc!r} in a file URI; leave it out"
            )
        if parts.query or parts.fragment:
            raise FetchProblem(
                MediaReason.URI_NOT_ALLOWED, "in a file URI '?' is written %3F and '#' %23"
            )
        name = unquote_to_bytes(parts.path)
        if b"\0" in name or not name.startswith(b"/"):
            raise FetchProblem(MediaReason.URI_NOT_ALLOWED, "not an absolute path")
        # Links are resolved first, those in the middle and ".." included, and judged after.
        path = Path(os.path.realpath(os.fsdecode(name)))
        if not any(path.is_relative_to(root) for root in self._roots):
            allowed = ", ".join(str(root) for root in self._roots) or "none is set"
            raise FetchProblem(
                MediaReason.URI_NOT_ALLOWED,
                f"the file is outside the allowed folders (fetch.file_roots: {allowed})",
            )
        return path

    def _to_scratch(
        self, uri: str, parts: SplitResult, cleanup: contextlib.ExitStack
    ) -> LocalMedia:
        path, file = self._scratch_file(cleanup)
        deadline = Deadline(self._settings.deadline_s)
        attempts = Retrying(
            stop=stop_after_attempt(self._settings.attempts)
            | stop_before_delay(self._settings.deadline_s),
            wait=wait_exponential_jitter(multiplier=_FIRST_WAIT_S, max=_LONGEST_WAIT_S),
            retry=retry_if_exception(lambda e: isinstance(e, FetchProblem) and e.retryable),
            reraise=True,
        )
        return attempts(self._copy, uri, parts, deadline, path, file)

    def _copy(
        self, uri: str, parts: SplitResult, deadline: Deadline, path: Path, file: BinaryIO
    ) -> LocalMedia:
        """One attempt; it starts over, since the object may have changed in between."""
        file.seek(0)
        file.truncate()
        chunks = (
            self._s3.chunks(parts, deadline)
            if parts.scheme == "s3"
            else self._http.chunks(uri, deadline)
        )
        sha, size = hashlib.sha256(), 0
        with contextlib.closing(chunks):
            for chunk in chunks:
                size += len(chunk)
                self._check_size(size)
                sha.update(chunk)
                self._write(file, chunk)
        try:
            # It is read by its name while it is still open here.
            file.flush()
        except OSError as error:
            raise self._unwritable(error) from None
        return LocalMedia(path, size, sha.hexdigest(), bytes_fetched=size)

    def _write(self, file: BinaryIO, chunk: bytes) -> None:
        try:
            file.write(chunk)
        except OSError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> FetchProblem:
        return FetchProblem(
            MediaReason.FETCH_FAILED,
            f"{self._scratch_dir} cannot be written: {error.strerror}",
            retryable=True,
        )

    def _check_size(self, size: int) -> None:
        if size > self._settings.max_bytes:
            raise FetchProblem(
                MediaReason.TOO_LARGE,
                f"it has {size} bytes or more, and fetch.max_bytes is {self._settings.max_bytes}",
            )

    def _scratch_file(self, cleanup: contextlib.ExitStack) -> tuple[Path, BinaryIO]:
        """An open file of our own, removed by ``cleanup``; locked, so that it is no leftover."""
        self._scratch_dir.mkdir(parents=True, exist_ok=True)
        if not self._swept:
            _sweep(self._scratch_dir)
            self._swept = True
        descriptor, name = tempfile.mkstemp(prefix=_SCRATCH_PREFIX, dir=self._scratch_dir)
        path = Path(name)
        cleanup.callback(path.unlink, missing_ok=True)
        file = cleanup.enter_context(os.fdopen(descriptor, "wb"))
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        return path, file


def _sweep(folder: Path) -> None:
    """Remove scratch files whose process is gone: a lock ends with the process that held it."""
    for path in folder.glob(f"{_SCRATCH_PREFIX}*"):
        with contextlib.suppress(OSError), path.open("rb") as file:
            if time.time() - os.fstat(file.fileno()).st_mtime < _STALE_S:
                continue
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
