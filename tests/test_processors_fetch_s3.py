"""Objects from an S3-compatible store: allowed buckets only, at the endpoint of the settings."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from processors.errors import MediaError
from processors.fetch import Fetcher
from schemas.reasons import MediaReason
from schemas.settings import FetchSettings
from tests.servers import Answer, Served, answer, failing_first, serve

BODY = bytes(range(256)) * 3000


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATHEUSERS")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def _fetcher(tmp_path: Path, server: Served, *, keep_for: str = "", **settings: object) -> Fetcher:
    defaults: dict[str, object] = {
        "s3_buckets": ("Uploads.2026",),
        "s3_endpoint": server.url,
        "attempts": 1,
    }
    scratch = tmp_path / "scratch"
    return Fetcher(FetchSettings(**(defaults | settings)), scratch, keep_for=keep_for)


def _error(fetcher: Fetcher, uri: str, **arguments: str) -> MediaError:
    with pytest.raises(MediaError) as caught, fetcher.fetch(uri, **arguments):
        pass
    assert caught.value.stage == "fetch"
    return caught.value


def _refusing(status: int, code: str) -> Answer:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>m</Message></Error>"
    return lambda handler: answer(handler, status, body.encode(), Content_Type="application/xml")


def test_an_object_is_fetched_by_its_decoded_key(tmp_path: Path) -> None:
    with serve({"/Uploads.2026/a/b%20%C3%A4.mp4": BODY}) as server:
        with _fetcher(tmp_path, server).fetch("s3://Uploads.2026/a/b%20%C3%A4.mp4") as media:
            assert media.path.read_bytes() == BODY
            assert media.bytes_fetched == len(BODY)
        assert not media.path.exists()


def test_an_object_is_fetched_once_for_the_clips_that_were_cut_from_it(tmp_path: Path) -> None:
    sha256, uri = hashlib.sha256(BODY).hexdigest(), "s3://Uploads.2026/v.mp4"
    with serve({"/Uploads.2026/v.mp4": BODY}) as server:
        for fetched in (len(BODY), 0, 0):
            with _fetcher(tmp_path, server, keep_for="enrichment").fetch(
                uri, expected_sha256=sha256
            ) as media:
                assert media.path.read_bytes() == BODY
                assert media.bytes_fetched == fetched
        assert len(server.requests) == 1
        other = _fetcher(tmp_path, server, keep_for="enrichment", s3_buckets=("other",))
        assert _error(other, uri, expected_sha256=sha256).reason is MediaReason.URI_NOT_ALLOWED


def test_other_buckets_are_refused_without_asking(tmp_path: Path) -> None:
    with serve({"/other/v.mp4": BODY}) as server:
        for uri in ("s3://other/v.mp4", "s3://uploads.2026/v.mp4", "s3://Uploads.2026@h/v.mp4"):
            assert _error(_fetcher(tmp_path, server), uri).reason is MediaReason.URI_NOT_ALLOWED
        assert not server.requests


@pytest.mark.parametrize(
    "path", ["../other/v.mp4", "a/../../other/v.mp4", "%2e%2e/other/v.mp4", "a/./v.mp4", ".."]
)
def test_a_key_that_leads_out_of_its_bucket_is_refused_without_asking(
    path: str, tmp_path: Path
) -> None:
    with serve({"/other/v.mp4": BODY}) as server:
        error = _error(_fetcher(tmp_path, server), f"s3://Uploads.2026/{path}")
        assert error.reason is MediaReason.URI_NOT_ALLOWED
        assert not server.requests


def test_without_buckets_none_is_read(tmp_path: Path) -> None:
    with serve({"/Uploads.2026/v.mp4": BODY}) as server:
        error = _error(_fetcher(tmp_path, server, s3_buckets=()), "s3://Uploads.2026/v.mp4")
        assert error.reason is MediaReason.URI_NOT_ALLOWED
        assert "fetch.s3_buckets" in error.error
        assert not server.requests


def test_the_request_is_signed_with_the_user_s_own_credentials(
    tmp_path: Path,
) -> None:
    with serve({"/Uploads.2026/v.mp4": _refusing(403, "AccessDenied")}) as server:
        error = _error(_fetcher(tmp_path, server), "s3://Uploads.2026/v.mp4")
        (_, headers) = server.requests[0]
    assert "Credential=AKIATHEUSERS/" in headers["Authorization"]
    assert "canary" not in f"{headers} {error}"


@pytest.mark.parametrize(
    ("status", "code", "reason", "retryable"),
    [
        (404, "NoSuchKey", MediaReason.NOT_FOUND, False),
        (404, "NoSuchBucket", MediaReason.NOT_FOUND, False),
        (403, "AccessDenied", MediaReason.FETCH_FAILED, False),
        (503, "SlowDown", MediaReason.FETCH_FAILED, True),
        (500, "InternalError", MediaReason.FETCH_FAILED, True),
    ],
)
def test_the_stores_errors_become_reasons(
    status: int, code: str, reason: MediaReason, retryable: bool, tmp_path: Path
) -> None:
    with serve({"/Uploads.2026/v.mp4": _refusing(status, code)}) as server:
        error = _error(_fetcher(tmp_path, server), "s3://Uploads.2026/v.mp4")
    assert (error.reason, error.retryable) == (reason, retryable)
    assert code in error.error


def test_what_may_pass_is_tried_again(tmp_path: Path) -> None:
    with (
        serve({"/Uploads.2026/v.mp4": failing_first(1, then=BODY)}) as server,
        _fetcher(tmp_path, server, attempts=2).fetch("s3://Uploads.2026/v.mp4") as media,
    ):
        assert media.size == len(BODY)
        assert len(server.requests) == 2


def test_size_is_limited(tmp_path: Path) -> None:
    with serve({"/Uploads.2026/v.mp4": BODY}) as server:
        error = _error(_fetcher(tmp_path, server, max_bytes=100), "s3://Uploads.2026/v.mp4")
    assert error.reason is MediaReason.TOO_LARGE


def test_a_short_body_has_failed(tmp_path: Path) -> None:
    short: Callable[[BaseHTTPRequestHandler], None] = lambda handler: answer(  # noqa: E731
        handler, 200, BODY, length=len(BODY) + 500
    )
    with serve({"/Uploads.2026/v.mp4": short}) as server:
        error = _error(_fetcher(tmp_path, server), "s3://Uploads.2026/v.mp4")
    assert (error.reason, error.retryable) == (MediaReason.FETCH_FAILED, True)
