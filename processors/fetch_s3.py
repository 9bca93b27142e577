"""Reading an object from an S3-compatible store, from buckets that the settings name."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator, Iterator
from typing import Any
from urllib.parse import SplitResult, unquote

from processors.fetch_problem import Deadline, FetchProblem
from processors.stores import Stores, blaming
from schemas.reasons import MediaReason
from schemas.settings import FetchSettings

_CHUNK = 1 << 18
_GONE = frozenset({"NoSuchKey", "NoSuchBucket", "404", "NotFound"})
_NOT_LET_IN = frozenset(
    {
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidToken",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
    }
)
"""It is our credentials or our clock that the store refuses, with every object."""


class S3Reader:
    """Streams objects; credentials come from where boto3 looks for them."""

    def __init__(self, settings: FetchSettings, stores: Stores) -> None:
        self._settings = settings
        self._stores = stores
        self._client: Any = None
        self._lock = threading.Lock()

    def chunks(self, parts: SplitResult, deadline: Deadline) -> Generator[bytes, None, None]:
        """The object's bytes, in pieces; raises `FetchProblem`, and `StoreOut` if that is known."""
        bucket, key = self._allowed(parts)
        store = f"s3://{bucket}"
        deadline.remaining()
        with self._stores.asking(store), _as_problems():
            answer = self._s3().get_object(Bucket=bucket, Key=key)
        announced = int(answer["ContentLength"])
        received = 0
        with blaming(store), contextlib.closing(answer["Body"]) as body:
            if announced > self._settings.max_bytes:
                raise FetchProblem(
                    MediaReason.TOO_LARGE,
                    f"it has {announced} bytes, and fetch.max_bytes is {self._settings.max_bytes}",
                )
            # botocore's own reads wait for a whole piece, and the deadline with them.
            stream = body._raw_stream
            while chunk := self._read(stream):
                deadline.remaining()
                received += len(chunk)
                yield chunk
            if received != announced:
                raise FetchProblem(
                    MediaReason.FETCH_FAILED,
                    f"{announced} bytes were announced, and {received} came",
                    retryable=True,
                )

    def require_allowed(self, parts: SplitResult) -> None:
        """`FetchProblem` unless the bucket may be read."""
        self._allowed(parts)

    def why_out(self, store: str) -> str | None:
        """Ask for the bucket alone; why it is out, or None if it answers."""
        try:
            with _as_problems():
                self._s3().head_bucket(Bucket=store.removeprefix("s3://"))
        except FetchProblem as problem:
            return str(problem) if problem.retryable else None
        return None

    @staticmethod
    def _read(stream: Any) -> bytes:
        with _as_problems():
            chunk: bytes = stream.read1(_CHUNK)
            return chunk

    def _allowed(self, parts: SplitResult) -> tuple[str, str]:
        # Not .hostname, which would lower the case of a bucket's name.
        bucket, key = parts.netloc, unquote(parts.path.removeprefix("/"))
        if parts.query or parts.fragment:
            raise FetchProblem(
                MediaReason.URI_NOT_ALLOWED, "in an s3 URI '?' is written %3F and '#' %23"
            )
        if bucket not in self._settings.s3_buckets:
            allowed = ", ".join(self._settings.s3_buckets) or "none is set"
            raise FetchProblem(
                MediaReason.URI_NOT_ALLOWED,
                f"bucket {bucket!r} is not among the allowed ones (fetch.s3_buckets: {allowed})",
            )
        if not key:
            raise FetchProblem(MediaReason.URI_NOT_ALLOWED, "the URI names no object")
        if {".", ".."} & set(key.split("/")):
            # A proxy before the store may take it for a path, which leads to another bucket.
            raise FetchProblem(
                MediaReason.URI_NOT_ALLOWED, "the object's key has a '.' or '..' between slashes"
            )
        return bucket, key

    def _s3(self) -> Any:
        with self._lock:
            if self._client is None:
                import boto3
                from botocore.config import Config

                # A session of its own: boto3's default one keeps the process's first credentials.
                self._client = boto3.Session().client(
                    "s3",
                    endpoint_url=self._settings.s3_endpoint or None,
                    config=Config(
                        connect_timeout=self._settings.connect_timeout_s,
                        read_timeout=self._settings.read_timeout_s,
                        # Attempts are counted by the caller, which also watches the deadline.
                        retries={"total_max_attempts": 1, "mode": "standard"},
                        # Stores other than AWS know buckets by path more often than by host.
                        s3={"addressing_style": "path"} if self._settings.s3_endpoint else None,
                    ),
                )
            return self._client


@contextlib.contextmanager
def _as_problems() -> Iterator[None]:
    from botocore import exceptions
    from urllib3.exceptions import HTTPError

    try:
        yield
    except exceptions.ClientError as error:
        raise _refused(error) from None
    except (exceptions.BotoCoreError, HTTPError, OSError) as error:
        timed_out = "Timeout" in type(error).__name__
        raise FetchProblem(
            MediaReason.FETCH_TIMEOUT if timed_out else MediaReason.FETCH_FAILED,
            f"the store failed: {type(error).__name__}: {error}",
            retryable=True,
            every_object=isinstance(
                error,
                exceptions.NoCredentialsError
                | exceptions.PartialCredentialsError
                | exceptions.CredentialRetrievalError,
            ),
        ) from None


def _refused(error: Any) -> FetchProblem:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in _GONE or status == 404:
        return FetchProblem(MediaReason.NOT_FOUND, f"the store answered {code or status}")
    not_let_in = code in _NOT_LET_IN
    return FetchProblem(
        MediaReason.FETCH_FAILED,
        f"the store answered {code or status}",
        retryable=(status >= 500 and status != 501)
        or status in (408, 429)
        or code == "SlowDown"
        or not_let_in,
        every_object=not_let_in,
    )
