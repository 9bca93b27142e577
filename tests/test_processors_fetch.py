"""What may be fetched, from where, and what is said when it may not."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from processors.errors import MediaError
from processors.fetch import Fetcher
from processors.fetch_problem import redact
from schemas.reasons import MediaReason
from schemas.settings import FetchSettings
from tests.servers import Served, serve

BODY = bytes(range(256)) * 5000
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def server() -> Iterator[Served]:
    with serve({"/video.mp4": BODY, "/empty.mp4": b""}) as running:
        yield running


def _fetcher(tmp_path: Path, **settings: object) -> Fetcher:
    defaults: dict[str, object] = {
        "file_roots": (str(tmp_path / "videos"),),
        "https_hosts": ("127.0.0.1", "localhost"),
        "allow_http": True,
        "allow_private_addresses": True,
    }
    (tmp_path / "videos").mkdir(exist_ok=True)
    return Fetcher(FetchSettings(**(defaults | settings)), tmp_path / "scratch")


def _refusal(fetcher: Fetcher, uri: str, **arguments: str) -> MediaError:
    with pytest.raises(MediaError) as caught, fetcher.fetch(uri, **arguments):
        pass
    assert caught.value.stage == "fetch"
    return caught.value


def _reason(fetcher: Fetcher, uri: str) -> MediaReason:
    return _refusal(fetcher, uri).reason


# Files


def test_a_file_under_a_root_is_read_in_place(tmp_path: Path) -> None:
    fetcher = _fetcher(tmp_path)
    path = tmp_path / "videos" / "a b#%ä.mp4"
    path.write_bytes(BODY)
    for uri in (path.as_uri(), f"file://localhost{quote(str(path))}"):
        with fetcher.fetch(uri, expected_sha256=SHA256) as media:
            assert media.path.samefile(path)
            assert (media.size, media.sha256, media.bytes_fetched) == (len(BODY), SHA256, 0)
    assert path.exists()


def test_names_that_are_not_utf8_are_found(tmp_path: Path) -> None:
    fetcher = _fetcher(tmp_path)
    name = os.fsencode(tmp_path / "videos") + b"/\xff.mp4"
    Path(os.fsdecode(name)).write_bytes(BODY)
    with fetcher.fetch(f"file://{quote(name)}") as media:
        assert media.sha256 == SHA256


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "{root}/../secret.mp4", "{root}/%2e%2e/secret.mp4", "{root}-2/secret.mp4"],
)
def test_files_outside_the_roots_are_refused(path: str, tmp_path: Path) -> None:
    fetcher = _fetcher(tmp_path)
    (tmp_path / "secret.mp4").write_bytes(BODY)
    (tmp_path / "videos-2").mkdir()
    (tmp_path / "videos-2" / "secret.mp4").write_bytes(BODY)
    uri = "file://" + path.format(root=tmp_path / "videos")
    assert _reason(fetcher, uri) is MediaReason.URI_NOT_ALLOWED


def test_links_that_lead_out_of_the_roots_are_refused(tmp_path: Path) -> None:
    fetcher = _fetcher(tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.mp4").write_bytes(BODY)
    (tmp_path / "videos" / "file.mp4").symlink_to(outside / "secret.mp4")
    (tmp_path / "videos" / "folder").symlink_to(outside)
    for name in ("file.mp4", "folder/secret.mp4", "folder/absent.mp4"):
        uri = (tmp_path / "videos" / name).as_uri()
        assert _reason(fetcher, uri) is MediaReason.URI_NOT_ALLOWED


@pytest.mark.parametrize("swapped", ["file.mp4", "folder"])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_what_becomes_a_link_out_of_the_roots_after_it_was_judged_is_not_read(
    swapped: str, at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetcher = _fetcher(tmp_path)
    videos, secrets = tmp_path / "videos", tmp_path / "secrets"
    for folder, body in ((videos, BODY), (secrets, b"secret")):
        (folder / "folder").mkdir(parents=True)
        for name in ("file.mp4", "folder/v.mp4"):
            (folder / name).write_bytes(body)
    opened, system = 0, os.open

    def swap() -> None:
        (videos / swapped).rename(tmp_path / "was-there")
        (videos / swapped).symlink_to(secrets / swapped)

    def opening(*arguments: Any, **options: Any) -> int:
        nonlocal opened
        opened += 1
        if opened == at:
            swap()
        return system(*arguments, **options)

    monkeypatch.setattr(os, "open", opening)
    uri = (videos / swapped / "v.mp4" if swapped == "folder" else videos / swapped).as_uri()
    read: list[bytes] = []
    with contextlib.suppress(MediaError), fetcher.fetch(uri) as media:
        if opened < at:
            swap()
        assert media.sha256 == SHA256
        read.append(media.path.read_bytes())
    assert (videos / swapped).is_symlink()
    assert read in ([], [BODY])
    assert _reason(fetcher, uri) is MediaReason.URI_NOT_ALLOWED


def test_what_becomes_a_pipe_after_it_was_judged_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "videos" / "v.mp4"
    fetcher = _fetcher(tmp_path)
    path.write_bytes(BODY)
    resolve = os.path.realpath

    def judged(name: str) -> str:
        real = resolve(name)
        path.unlink()
        os.mkfifo(path)
        return real

    monkeypatch.setattr(os.path, "realpath", judged)
    assert _reason(fetcher, path.as_uri()) is MediaReason.NOT_FOUND


def test_a_root_that_is_a_link_is_a_root(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (real / "v.mp4").write_bytes(BODY)
    (tmp_path / "link").symlink_to(real)
    fetcher = _fetcher(tmp_path, file_roots=(str(tmp_path / "link"),))
    with fetcher.fetch((tmp_path / "link" / "v.mp4").as_uri()) as media:
        assert media.sha256 == SHA256


def test_without_roots_no_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "videos" / "v.mp4"
    fetcher = _fetcher(tmp_path, file_roots=())
    path.write_bytes(BODY)
    error = _refusal(fetcher, path.as_uri())
    assert error.reason is MediaReason.URI_NOT_ALLOWED
    assert "fetch.file_roots" in error.error


def test_what_is_no_regular_file_is_not_found(tmp_path: Path) -> None:
    fetcher = _fetcher(tmp_path)
    videos = tmp_path / "videos"
    (videos / "folder.mp4").mkdir()
    os.mkfifo(videos / "pipe.mp4")
    (videos / "file").write_bytes(BODY)
    for name in ("absent.mp4", "folder.mp4", "pipe.mp4", "file/below.mp4"):
        assert _reason(fetcher, (videos / name).as_uri()) is MediaReason.NOT_FOUND


@pytest.mark.parametrize(
    "uri",
    [
        "ftp://127.0.0.1/v.mp4",
        "concat:/etc/passwd",
        "/etc/passwd",
        "",
        "http://[/v.mp4",
        "http://127.0.0.1:99999/v.mp4",
        "file://elsewhere/v.mp4",
        "file:///videos/a.mp4?x=1",
        "file:///videos/a%00.mp4",
        "file:relative.mp4",
        "https://user:secret@127.0.0.1/v.mp4",
        "s3://other-bucket/v.mp4",
    ],
)
def test_odd_uris_are_refused(uri: str, tmp_path: Path) -> None:
    error = _refusal(_fetcher(tmp_path), uri)
    assert error.reason is MediaReason.URI_NOT_ALLOWED
    assert "secret" not in error.error


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    fetcher = _fetcher(tmp_path, max_bytes=1000)
    path = tmp_path / "videos" / "v.mp4"
    path.write_bytes(bytes(1001))
    assert _reason(fetcher, path.as_uri()) is MediaReason.TOO_LARGE


def test_bytes_that_changed_since_the_split_are_noticed(tmp_path: Path, server: Served) -> None:
    fetcher = _fetcher(tmp_path)
    path = tmp_path / "videos" / "v.mp4"
    path.write_bytes(BODY)
    for uri in (path.as_uri(), f"{server.url}/video.mp4"):
        error = _refusal(fetcher, uri, expected_sha256="0" * 64)
        assert error.reason is MediaReason.SOURCE_CHANGED
    assert not list((tmp_path / "scratch").iterdir())


# Remote objects: scratch files


def test_a_remote_object_is_there_while_it_is_needed(tmp_path: Path, server: Served) -> None:
    fetcher = _fetcher(tmp_path)
    with fetcher.fetch(f"{server.url}/video.mp4", expected_sha256=SHA256) as media:
        assert media.path.read_bytes() == BODY
        assert media.path.is_relative_to(tmp_path / "scratch")
        assert (media.size, media.bytes_fetched) == (len(BODY), len(BODY))
    assert not media.path.exists()


def test_an_empty_object_is_fetched_as_it_is(tmp_path: Path, server: Served) -> None:
    with _fetcher(tmp_path).fetch(f"{server.url}/empty.mp4") as media:
        assert media.size == media.path.stat().st_size == 0


def test_the_scratch_file_goes_when_the_caller_fails(tmp_path: Path, server: Served) -> None:
    fetcher = _fetcher(tmp_path)
    with pytest.raises(KeyError), fetcher.fetch(f"{server.url}/video.mp4"):
        raise KeyError
    assert not list((tmp_path / "scratch").iterdir())


def test_fetching_one_uri_many_times_at_once(tmp_path: Path, server: Served) -> None:
    fetcher = _fetcher(tmp_path)
    seen: list[bytes] = []

    def work() -> None:
        with fetcher.fetch(f"{server.url}/video.mp4") as media:
            time.sleep(0.05)
            seen.append(media.path.read_bytes())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [BODY] * 8
    assert not list((tmp_path / "scratch").iterdir())


def test_leftovers_of_dead_processes_are_swept_and_files_in_use_are_not(
    tmp_path: Path, server: Served
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    left, fresh, other = (scratch / name for name in ("fetch-left", "fetch-fresh", "other"))
    for path in (left, fresh, other):
        path.write_bytes(BODY)
    old = time.time() - 3600
    os.utime(left, (old, old))
    os.utime(other, (old, old))
    with _fetcher(tmp_path).fetch(f"{server.url}/video.mp4") as media:
        os.utime(media.path, (old, old))
        assert not left.exists()
        with _fetcher(tmp_path).fetch(f"{server.url}/empty.mp4"):
            assert media.path.exists()
    assert {path.name for path in scratch.iterdir()} == {"fetch-fresh", "other"}


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://u:p@h:8443/a.mp4?X-Amz-Signature=abc#f", "https://h:8443/a.mp4?…"),
        ("file:///a.mp4", "file:///a.mp4"),
        ("s3://bucket/key", "s3://bucket/key"),
        ("https://[::1]:80/a", "https://[::1]:80/a"),
        ("http://[", "(unreadable uri)"),
    ],
)
def test_errors_show_no_credentials_and_no_signatures(uri: str, shown: str) -> None:
    assert redact(uri) == shown
