"""Objects that a machine keeps for further clips of their video: when each is fetched."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from processors import failpoints, fetch_cache
from processors.errors import DependencyFault, MediaError
from processors.fetch import Fetcher
from schemas.reasons import MediaReason
from schemas.settings import CHECKOUT, FetchSettings, Settings
from tests.conftest import wait_until
from tests.servers import Answer, Served, answer, serve
from tests.small_disk import fill, small_disk

BODY = bytes(range(256)) * 4096
"""A mebibyte."""
SHA256 = hashlib.sha256(BODY).hexdigest()
OTHER = BODY[::-1]
OTHER_SHA256 = hashlib.sha256(OTHER).hexdigest()


@pytest.fixture
def server() -> Iterator[Served]:
    with serve({"/v.mp4": BODY, "/same.mp4": BODY, "/w.mp4": OTHER}) as running:
        yield running


@pytest.fixture
def fetcher(tmp_path: Path) -> Fetcher:
    return _fetcher(tmp_path)


def _settings(**settings: object) -> FetchSettings:
    allowed: dict[str, object] = {
        "https_hosts": ("127.0.0.1",),
        "allow_http": True,
        "allow_private_addresses": True,
        "attempts": 1,
    }
    return FetchSettings(**(allowed | settings))


def _fetcher(folder: Path, **settings: object) -> Fetcher:
    """One of its own, as each actor has."""
    return Fetcher(_settings(**settings), folder / "scratch", keep_for="enrichment")


def _fetched(fetcher: Fetcher, uri: str, body: bytes = BODY) -> int:
    """Bytes that came over the network for an object, whose content is looked at."""
    with fetcher.fetch(uri, expected_sha256=hashlib.sha256(body).hexdigest()) as media:
        assert media.path.read_bytes() == body
        assert media.size == len(body)
        return media.bytes_fetched


def _kept(folder: Path) -> list[Path]:
    return sorted((folder / "scratch").glob("kept-*"))


def _at_once(*works: Callable[[], object]) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _slowly(body: bytes, seconds: float) -> Answer:
    """An answer of which the second half comes later."""

    def write(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: len(body) // 2])
        time.sleep(seconds)
        handler.wfile.write(body[len(body) // 2 :])

    return write


def test_an_object_is_fetched_once_for_all_clips_of_its_video(
    tmp_path: Path, server: Served, fetcher: Fetcher
) -> None:
    uri = f"{server.url}/v.mp4"
    assert [_fetched(fetcher, uri) for _ in range(3)] == [len(BODY), 0, 0]
    assert _fetched(_fetcher(tmp_path), uri) == 0
    assert len(server.requests) == 1
    assert [path.read_bytes() for path in (tmp_path / "scratch").iterdir()] == [BODY]


def test_what_is_fetched_is_in_use_until_its_first_user_is_done(
    tmp_path: Path, server: Served, fetcher: Fetcher
) -> None:
    with fetcher.fetch(f"{server.url}/v.mp4", expected_sha256=SHA256) as media:
        _fetcher(tmp_path).close()
        assert media.path.read_bytes() == BODY
    _fetcher(tmp_path).close()
    assert not media.path.exists()


def test_what_is_fetched_to_learn_its_hash_is_kept_under_it(
    tmp_path: Path, server: Served, fetcher: Fetcher
) -> None:
    uri = f"{server.url}/v.mp4"
    for _ in range(2):
        # Without a hash nobody can say that what is kept is still what is there.
        with fetcher.fetch(uri) as media:
            assert media.sha256 == SHA256
            assert media.bytes_fetched == len(BODY)
            _fetcher(tmp_path).close()
            assert media.path.read_bytes() == BODY
    assert _fetched(_fetcher(tmp_path), uri) == 0
    assert len(server.requests) == 2
    fetcher.drop(uri, SHA256)
    assert not list((tmp_path / "scratch").iterdir())


def test_what_is_kept_for_the_split_serves_no_enrichment_and_is_not_its_to_remove(
    tmp_path: Path, server: Served, fetcher: Fetcher
) -> None:
    uri = f"{server.url}/v.mp4"
    splits = Fetcher(_settings(), tmp_path / "scratch", keep_for="split")
    assert [_fetched(splits, uri), _fetched(fetcher, uri), _fetched(splits, uri)] == [
        *(len(BODY), len(BODY), 0)
    ]
    fetcher.close()
    assert [_fetched(splits, uri), _fetched(fetcher, uri)] == [0, len(BODY)]
    # `forget` does not know whose videos these are.
    fetch_cache.ObjectCache(tmp_path / "scratch", 0).close()
    assert not list((tmp_path / "scratch").iterdir())


def test_with_no_name_or_no_bytes_to_keep_nothing_is_kept(tmp_path: Path, server: Served) -> None:
    uri = f"{server.url}/v.mp4"
    with _fetcher(tmp_path, cache_bytes=0).fetch(uri):
        pass
    assert [_fetched(_fetcher(tmp_path, cache_bytes=0), uri) for _ in range(2)] == [len(BODY)] * 2
    assert [_fetched(Fetcher(_settings(), tmp_path / "scratch"), uri) for _ in range(2)] == [
        len(BODY)
    ] * 2
    assert not list((tmp_path / "scratch").iterdir())


def test_one_fetches_and_the_others_wait(tmp_path: Path) -> None:
    fetched: list[int] = []
    with serve({"/v.mp4": _slowly(BODY, 0.5)}) as server:
        # Two of each process, as an actor has calls side by side.
        fetchers = [_fetcher(tmp_path) for _ in range(4)] * 2
        _at_once(
            *(lambda f=f: fetched.append(_fetched(f, f"{server.url}/v.mp4")) for f in fetchers)
        )
        assert len(server.requests) == 1
    assert sorted(fetched) == [0] * 7 + [len(BODY)]


def test_who_waits_in_vain_fetches_and_all_at_once(tmp_path: Path) -> None:
    """As without the cache: what fails slowly does not fail for one after the other."""
    lock, began = threading.Lock(), time.monotonic()
    asked: list[float] = []

    def fail_slowly(handler: BaseHTTPRequestHandler) -> None:
        with lock:
            asked.append(time.monotonic() - began)
        time.sleep(2)
        answer(handler, 403)

    reasons: list[MediaReason] = []

    def fetch(fetcher: Fetcher, uri: str) -> None:
        with pytest.raises(MediaError) as caught, fetcher.fetch(uri, expected_sha256=SHA256):
            pass
        reasons.append(caught.value.reason)

    with serve({"/v.mp4": fail_slowly}) as server:
        uri = f"{server.url}/v.mp4"
        fetchers = [_fetcher(tmp_path) for _ in range(5)]
        _at_once(*(lambda f=f: fetch(f, uri) for f in fetchers))
    assert reasons == [MediaReason.FETCH_FAILED] * 5
    first, *others = sorted(asked)
    assert max(others) - min(others) < 1.5
    assert min(others) - first >= 1.5
    assert not list((tmp_path / "scratch").iterdir())


def test_who_may_wait_no_longer_fetches_for_itself(tmp_path: Path) -> None:
    with serve({"/v.mp4": _slowly(BODY, 1.5)}) as server:
        uri = f"{server.url}/v.mp4"
        fetched: list[int] = []
        first = threading.Thread(target=lambda: fetched.append(_fetched(_fetcher(tmp_path), uri)))
        first.start()
        wait_until(lambda: server.requests, 10)
        cache = fetch_cache.ObjectCache(tmp_path / "scratch", 2**30, "enrichment")
        with ExitStack() as cleanup:
            assert cache.find(uri, SHA256, 0.2, cleanup) is None
        first.join()
    assert fetched == [len(BODY)]


# What is kept is what was split


def test_a_source_that_changed_since_the_split_is_noticed(
    tmp_path: Path, server: Served, fetcher: Fetcher
) -> None:
    for _ in range(2):
        with pytest.raises(MediaError) as caught:
            _fetched(fetcher, f"{server.url}/w.mp4", BODY)
        assert caught.value.reason is MediaReason.SOURCE_CHANGED
    assert len(server.requests) == 2
    assert not list((tmp_path / "scratch").iterdir())
    # Those that were split after the change have what they want.
    assert _fetched(fetcher, f"{server.url}/w.mp4", OTHER) == len(OTHER)
    with pytest.raises(MediaError):
        _fetched(fetcher, f"{server.url}/w.mp4", BODY)


def test_the_same_bytes_under_another_address_are_another_object(
    server: Served, fetcher: Fetcher
) -> None:
    assert _fetched(fetcher, f"{server.url}/v.mp4") == len(BODY)
    assert _fetched(fetcher, f"{server.url}/same.mp4") == len(BODY)


def test_what_may_not_be_read_any_more_is_refused_though_it_is_kept(
    tmp_path: Path, server: Served, fetcher: Fetcher
) -> None:
    uri = f"{server.url}/v.mp4"
    _fetched(fetcher, uri)
    for settings, reason in (
        ({"https_hosts": ("elsewhere.example",)}, MediaReason.URI_NOT_ALLOWED),
        ({"allow_http": False}, MediaReason.URI_NOT_ALLOWED),
        ({"max_bytes": 1000}, MediaReason.TOO_LARGE),
    ):
        with pytest.raises(MediaError) as caught:
            _fetched(_fetcher(tmp_path, **settings), uri)
        assert caught.value.reason is reason


@pytest.mark.parametrize("left", [BODY[:5000], bytes(len(BODY))])
def test_a_file_that_is_not_what_was_kept_is_not_used(
    left: bytes, tmp_path: Path, server: Served, fetcher: Fetcher
) -> None:
    """As after a power cut, or for a machine whose disk lies."""
    uri = f"{server.url}/v.mp4"
    _fetched(fetcher, uri)
    (path,) = _kept(tmp_path)
    path.write_bytes(left)
    assert _fetched(_fetcher(tmp_path), uri) == len(BODY)
    assert _fetched(fetcher, uri) == 0


def test_no_link_is_followed(tmp_path: Path, server: Served, fetcher: Fetcher) -> None:
    uri = f"{server.url}/v.mp4"
    _fetched(fetcher, uri)
    (path,) = _kept(tmp_path)
    outside = tmp_path / "outside"
    outside.write_bytes(BODY)
    path.unlink()
    path.symlink_to(outside)
    assert [_fetched(fetcher, uri) for _ in range(2)] == [len(BODY)] * 2
    fetcher.close()
    assert outside.read_bytes() == BODY


# Processes that are killed


def _in_a_process(folder: Path, uri: str, points: Path) -> subprocess.Popen[bytes]:
    """Fetch in a process of its own, as another actor does."""
    settings = Settings(fetch=_settings()).model_dump_json(include={"fetch"})
    script = (
        "import sys; from pathlib import Path; from processors.fetch import Fetcher;"
        "from schemas.settings import parse_settings_json;"
        "s = parse_settings_json(sys.argv[1], where='test');"
        "f = Fetcher(s.fetch, Path(sys.argv[2]), keep_for='enrichment');"
        "c = f.fetch(sys.argv[3], expected_sha256=sys.argv[4]); c.__enter__()"
    )
    return subprocess.Popen(
        [sys.executable, "-c", script, settings, str(folder / "scratch"), uri, SHA256],
        cwd=CHECKOUT,
        env={**os.environ, failpoints.VARIABLE: str(points)},
    )


def test_what_a_killed_process_leaves_is_not_taken_for_the_object(
    tmp_path: Path, fetcher: Fetcher
) -> None:
    points = tmp_path / "points"
    points.mkdir()
    failpoints.arm(points, "scratch.write", "kill", nth=2)
    with serve({"/v.mp4": _slowly(BODY, 0.5)}) as server:
        uri = f"{server.url}/v.mp4"
        killed = _in_a_process(tmp_path, uri, points)
        wait_until(lambda: server.requests, 30)
        # Those who waited for it: one of them takes over, and the other waits for that one.
        fetched: list[int] = []
        others = [fetcher, _fetcher(tmp_path)]
        _at_once(*(lambda f=f: fetched.append(_fetched(f, uri)) for f in others))
        assert killed.wait(30) == -9
        assert sorted(fetched) == [0, len(BODY)]
        assert len(server.requests) == 2


def test_what_killed_processes_left_is_swept(
    tmp_path: Path, server: Served, fetcher: Fetcher
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    now = time.time()
    ages = {"kept-old": (BODY, 3700), "kept-new": (BODY, 60), "kept-empty": (b"", 120)}
    for name, (body, age) in ages.items():
        (scratch / name).write_bytes(body)
        os.utime(scratch / name, (now - age, now - 4000))
    os.utime(scratch / "kept-empty", (now - 120, now - 120))
    (scratch / "kept-begun").touch()
    _fetched(fetcher, f"{server.url}/v.mp4")
    assert {path.name for path in _kept(tmp_path)} > {"kept-new", "kept-begun"}
    assert len(_kept(tmp_path)) == 3


def test_what_nobody_uses_goes_in_the_end_also_where_nothing_is_fetched(
    tmp_path: Path, server: Served, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_cache, "UNUSED_S", 0.3)
    monkeypatch.setattr(fetch_cache, "_SWEEP_S", 0.1)
    with fetcher.fetch(f"{server.url}/v.mp4", expected_sha256=SHA256) as media:
        time.sleep(0.6)
        assert media.path.exists()
    wait_until(lambda: not _kept(tmp_path), 10)


# Room


def test_what_was_used_longest_ago_goes_first_and_what_is_in_use_stays(tmp_path: Path) -> None:
    bodies = {f"/{n}.mp4": bytes([n]) * 1000 for n in range(6)}
    fetcher = _fetcher(tmp_path, cache_bytes=3000)
    with serve(bodies) as server:

        def fetched(number: int) -> bool:
            time.sleep(0.01)
            path = f"/{number}.mp4"
            return _fetched(fetcher, server.url + path, bodies[path]) > 0

        assert all(fetched(n) for n in (0, 1, 2))
        assert not fetched(0)
        assert fetched(3)
        assert not any(fetched(n) for n in (2, 0))
        sha256 = hashlib.sha256(bodies["/3.mp4"]).hexdigest()
        with fetcher.fetch(f"{server.url}/3.mp4", expected_sha256=sha256):
            assert fetched(1)
            assert fetched(4)
            assert fetched(5)
        assert not any(fetched(n) for n in (3, 4, 5))
    assert sum(path.stat().st_size for path in _kept(tmp_path)) == 3000


def test_an_object_that_is_too_large_to_be_kept_pushes_nothing_out(
    tmp_path: Path, server: Served
) -> None:
    fetcher = _fetcher(tmp_path, cache_bytes=len(BODY) - 1)
    small = b"small"
    with serve({"/small.mp4": small}) as other:
        assert _fetched(fetcher, f"{other.url}/small.mp4", small) > 0
        for _ in range(2):
            assert _fetched(fetcher, f"{server.url}/v.mp4") == len(BODY)
        assert _fetched(fetcher, f"{other.url}/small.mp4", small) == 0


def test_kept_objects_leave_half_of_the_disk_to_others(
    tmp_path: Path, server: Served, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path / "scratch", 3 * len(BODY)) as mounted:
        if not mounted:
            room = os.statvfs_result((1, 1, *[len(BODY)] * 3, 0, 0, 0, 0, 255))
            monkeypatch.setattr(os, "statvfs", lambda path: room)
        for _ in range(2):
            _fetched(fetcher, f"{server.url}/v.mp4")
            _fetched(fetcher, f"{server.url}/w.mp4", OTHER)
            assert len(_kept(tmp_path)) == 1
    assert len(server.requests) == 4


def test_a_full_disk_is_given_what_is_kept_before_anybody_is_told(
    tmp_path: Path, server: Served, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path / "scratch", 4 * len(BODY)) as mounted:
        _fetched(fetcher, f"{server.url}/v.mp4")
        if mounted:
            fill(tmp_path / "scratch" / "filler")
        else:
            monkeypatch.setattr(failpoints, "_FOLDER", str(tmp_path))
            failpoints.arm(tmp_path, "scratch.write", "full")
        # The split has the same folder, and keeps nothing itself.
        splits = Fetcher(_settings(), tmp_path / "scratch")
        with splits.fetch(f"{server.url}/w.mp4") as media:
            assert media.path.read_bytes() == OTHER
            assert not _kept(tmp_path)
            if mounted:
                # There is nothing left to give.
                with pytest.raises(DependencyFault, match="No space left on device"):
                    _fetched(fetcher, f"{server.url}/v.mp4")
        assert not list((tmp_path / "scratch").glob("kept-*"))
