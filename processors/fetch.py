"""A video's bytes as a local file: what may be read, from where, and how much.

`Fetcher.fetch` gives a path that libav may open; `file:` URIs are read in place, through a
descriptor that a change of the folders leads nowhere else, everything else is copied to a scratch
file that is gone when the caller is done, or kept for the next one (`fetch_cache`). How bytes
travel is in `fetch_http` and `fetch_s3`; this module holds the rules about URIs, folders, sizes and
hashes, and tells an object that cannot be had from a store that is out.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
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
from processors.fetch_cache import Kept, ObjectCache, Place
from processors.fetch_http import HttpReader
from processors.fetch_problem import Deadline, FetchProblem, redact
from processors.fetch_s3 import S3Reader
from processors.scratch import ScratchFile, ScratchFolder
from processors.stores import StoreOut, Stores
from schemas.reasons import MediaReason
from schemas.settings import FetchSettings

_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 10.0
_CRAWL_BYTES_PER_S = 16_384
"""A store that gave an object less than this until its deadline is as good as out: no video can
be had at that rate."""


@dataclass(frozen=True)
class LocalMedia:
    """A file to decode; valid inside the ``with`` that gave it."""

    path: Path
    """Any process of this user here may open it; it does not bear the name that the URI has."""
    size: int
    sha256: str
    """Of its bytes, hex."""
    bytes_fetched: int
    """Bytes that came over a network for it; 0 if it is read in place or was kept."""


class Fetcher:
    """Fetches under one set of rules; may be used by several threads at once."""

    def __init__(self, settings: FetchSettings, scratch_dir: Path, *, keep_for: str = "") -> None:
        """``keep_for``: objects are kept under this name for further calls, of other processes as
        well, and what was kept under it is used where the hash is known; `close` removes it. By
        default nothing is kept."""
        self._settings = settings
        self._cache = ObjectCache(scratch_dir, settings.cache_bytes, keep_for)
        self._keep_objects = bool(keep_for) and settings.cache_bytes > 0
        self._scratch = ScratchFolder(scratch_dir, self.give_room)
        self._roots = [
            Path(os.path.realpath(Path(root).expanduser())) for root in settings.file_roots
        ]
        self._stores = Stores(scratch_dir)
        self._http = HttpReader(settings, self._stores)
        self._s3 = S3Reader(settings, self._stores)

    def fetch(
        self, uri: str, *, expected_sha256: str | None = None
    ) -> AbstractContextManager[LocalMedia]:
        """The video's bytes as a local file.

        Raises `MediaError` (stage ``fetch``) on entering: ``uri_not_allowed``, ``not_found``,
        ``too_large``, ``fetch_failed`` and ``fetch_timeout`` (``retryable`` says whether later
        may be better), ``source_changed`` if the bytes do not hash to ``expected_sha256``.
        Raises `StoreOut` if it is the store that does not answer, which becomes ``fetch_failed``
        once it is out for ``fetch.outage_s``; `DependencyFault` if nothing can be written.
        """
        return self._fetch(uri, expected_sha256)

    def require_allowed(self, uri: str) -> None:
        """`FetchProblem` unless the settings let an s3 or http(s) URI be read; fetches nothing."""
        parts = urlsplit(uri)
        if parts.scheme == "s3":
            self._s3.require_allowed(parts)
        else:
            self._http.require_allowed(uri)

    def give_room(self) -> bool:
        """Remove a kept object for something that the scratch disk has no room for; False if
        there is none that may go."""
        return self._cache.give_room()

    def drop(self, uri: str, sha256: str) -> None:
        """Remove a kept object, unless it is in use: nobody will ask for it any more."""
        if self._keep_objects:
            self._cache.drop(uri, sha256)

    def close(self) -> None:
        """Remove the kept objects that nobody uses now, if it is us who keep any."""
        if self._keep_objects:
            self._cache.close()

    @contextmanager
    def _fetch(self, uri: str, expected_sha256: str | None) -> Iterator[LocalMedia]:
        with contextlib.ExitStack() as cleanup:
            try:
                media = self._open(uri, expected_sha256, cleanup)
            except StoreOut as fault:
                if fault.for_s < self._settings.outage_s:
                    raise
                raise MediaError(
                    MediaReason.FETCH_FAILED,
                    f"{redact(uri)}: {fault}, for more than {self._settings.outage_s:g} s "
                    "(fetch.outage_s)",
                    stage="fetch",
                    retryable=True,
                ) from None
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

    def _open(
        self, uri: str, expected_sha256: str | None, cleanup: contextlib.ExitStack
    ) -> LocalMedia:
        try:
            parts = urlsplit(uri)
            _ = parts.port
        except ValueError as error:
            raise FetchProblem(MediaReason.URI_NOT_ALLOWED, f"not a URI: {error}") from None
        if parts.username is not None or parts.password is not None:
            raise FetchProblem(MediaReason.URI_NOT_ALLOWED, "a URI may not carry credentials")
        if parts.scheme == "file":
            return self._in_place(parts, cleanup)
        if parts.scheme in ("https", "http", "s3"):
            if not self._keep_objects:
                return self._to_scratch(uri, parts, cleanup)
            if expected_sha256 is not None:
                return self._kept(uri, parts, expected_sha256, cleanup)
            return self._keep(uri, self._to_scratch(uri, parts, cleanup), cleanup)
        raise FetchProblem(
            MediaReason.URI_NOT_ALLOWED,
            f"scheme {parts.scheme or 'none'} is not fetched; file, https and s3 are",
        )

    def _in_place(self, parts: SplitResult, cleanup: contextlib.ExitStack) -> LocalMedia:
        path, root = self._allowed_path(parts)
        with self._stores.asking(str(root)):
            descriptor, size = self._opened(path, root)
            cleanup.callback(os.close, descriptor)
            try:
                with open(descriptor, "rb", closefd=False) as file:
                    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise FetchProblem(
                    MediaReason.FETCH_FAILED,
                    f"the file cannot be read: {error.strerror}",
                    retryable=True,
                ) from None
        return LocalMedia(_through(descriptor), size, sha256, bytes_fetched=0)

    def _opened(self, path: Path, root: Path) -> tuple[int, int]:
        """A descriptor to read the file from, and its size.

        Since it was judged the path may have become a link, or a FIFO that holds us for ever:
        what is there is taken hold of, which opens nothing, judged where it is, and then opened.
        """
        try:
            held = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                self._root_of(_through(held).readlink())
                size = self._check_file(os.fstat(held))
                return os.open(_through(held), os.O_RDONLY | os.O_CLOEXEC), size
            finally:
                os.close(held)
        except OSError as error:
            self._require(root)
            if isinstance(error, FileNotFoundError | NotADirectoryError):
                raise FetchProblem(MediaReason.NOT_FOUND, "there is no such file") from None
            raise FetchProblem(
                MediaReason.FETCH_FAILED, f"the file cannot be opened: {error.strerror}"
            ) from None

    def _require(self, root: Path) -> None:
        """`StoreOut` if the folder itself is gone, as that of a file server that is away."""
        try:
            root.stat()
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise self._stores.found_out(str(root), why) from None

    def _check_file(self, status: os.stat_result) -> int:
        """The file's size, if it is a file and not too large."""
        if stat.S_ISDIR(status.st_mode):
            raise FetchProblem(MediaReason.NOT_FOUND, "it is a folder, not a file")
        if not stat.S_ISREG(status.st_mode):
            raise FetchProblem(MediaReason.NOT_FOUND, "it is not a regular file")
        self._check_size(status.st_size)
        return status.st_size

    def _allowed_path(self, parts: SplitResult) -> tuple[Path, Path]:
        """The real path, and the root that it is under."""
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
        return path, self._root_of(path)

    def _root_of(self, path: Path) -> Path:
        """The root that a real path is under."""
        root = next((root for root in self._roots if path.is_relative_to(root)), None)
        if root is None:
            allowed = ", ".join(str(root) for root in self._roots) or "none is set"
            raise FetchProblem(
                MediaReason.URI_NOT_ALLOWED,
                f"the file is outside the allowed folders (fetch.file_roots: {allowed})",
            )
        return root

    def _kept(
        self, uri: str, parts: SplitResult, sha256: str, cleanup: contextlib.ExitStack
    ) -> LocalMedia:
        """An object of which the content is known: kept from an earlier call, or for later ones."""
        # It was allowed when it was fetched; the settings may be others by now.
        self.require_allowed(uri)
        found = self._cache.find(uri, sha256, self._settings.deadline_s, cleanup)
        if isinstance(found, Kept):
            self._check_size(found.size)
            return LocalMedia(found.path, found.size, sha256, bytes_fetched=0)
        if found is None:
            return self._to_scratch(uri, parts, cleanup)
        with found as place:
            media = self._to_scratch(uri, parts, cleanup)
            if media.size and media.sha256 == sha256 and place.keep(media.path):
                media = replace(media, path=place.path)
            return media

    def _keep(self, uri: str, media: LocalMedia, cleanup: contextlib.ExitStack) -> LocalMedia:
        """What was fetched to learn its hash, kept for those who will ask for it by that."""
        found = self._cache.find(uri, media.sha256, 0.0, cleanup)
        if isinstance(found, Place):
            with found as place:
                if media.size and place.keep(media.path):
                    return replace(media, path=place.path)
        return media

    def _to_scratch(
        self, uri: str, parts: SplitResult, cleanup: contextlib.ExitStack
    ) -> LocalMedia:
        file = self._scratch.new_file(cleanup)
        deadline = Deadline(self._settings.deadline_s)
        attempts = Retrying(
            stop=stop_after_attempt(self._settings.attempts)
            | stop_before_delay(self._settings.deadline_s),
            wait=wait_exponential_jitter(multiplier=_FIRST_WAIT_S, max=_LONGEST_WAIT_S),
            retry=retry_if_exception(lambda e: isinstance(e, FetchProblem) and e.retryable),
            reraise=True,
        )
        try:
            return attempts(self._copy, uri, parts, deadline, file)
        except FetchProblem as problem:
            if problem.store is None:
                raise
            crawled = 0 < file.size < _CRAWL_BYTES_PER_S * self._settings.deadline_s
            slow = deadline.passed and problem.reason is MediaReason.FETCH_TIMEOUT and crawled
            reader = self._s3 if parts.scheme == "s3" else self._http
            if problem.every_object or slow:
                why: str | None = str(problem)
            else:
                why = reader.why_out(problem.store)
            if why is None:
                raise
            raise self._stores.found_out(problem.store, why) from None

    def _copy(
        self, uri: str, parts: SplitResult, deadline: Deadline, file: ScratchFile
    ) -> LocalMedia:
        """One attempt; it starts over, since the object may have changed in between."""
        file.empty()
        chunks = (
            self._s3.chunks(parts, deadline)
            if parts.scheme == "s3"
            else self._http.chunks(uri, deadline)
        )
        sha = hashlib.sha256()
        with contextlib.closing(chunks):
            for chunk in chunks:
                self._check_size(file.size + len(chunk))
                sha.update(chunk)
                file.write(chunk)
        return LocalMedia(file.path, file.size, sha.hexdigest(), bytes_fetched=file.size)

    def _check_size(self, size: int) -> None:
        if size > self._settings.max_bytes:
            raise FetchProblem(
                MediaReason.TOO_LARGE,
                f"it has {size} bytes or more, and fetch.max_bytes is {self._settings.max_bytes}",
            )


def _through(descriptor: int) -> Path:
    """A name for the file that a descriptor of this process holds, whatever its own has become."""
    return Path(f"/proc/{os.getpid()}/fd/{descriptor}")
