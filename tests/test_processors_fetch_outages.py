"""A store that is out is told from an object that cannot be had; only the object is blamed."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from processors import failpoints, scratch, stores
from processors.errors import DependencyFault, MediaError
from processors.fetch import Fetcher
from processors.fetch_problem import FetchProblem
from processors.stores import StoreOut
from schemas.reasons import MediaReason
from schemas.settings import FetchSettings
from tests.servers import Answer, Served, answer, serve
from tests.small_disk import small_disk
from tests.tcp_proxy import TcpProxy, proxied

BODY = bytes(range(256)) * 3000


def _failing(status: int) -> Answer:
    return lambda handler: answer(handler, status)


@pytest.fixture
def server() -> Iterator[Served]:
    """Answers for both kinds of store; an object that fails is not the store's fault."""
    pages: dict[str, bytes | Answer] = {}
    for folder in ("", "/bucket"):
        pages |= {f"{folder}/v.mp4": BODY, f"{folder}/broken.mp4": _failing(500)}
    with serve(pages) as served:
        yield served


@pytest.fixture
def proxy(server: Served) -> Iterator[TcpProxy]:
    with proxied(int(server.url.rpartition(":")[2])) as running:
        yield running


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "FIRST_WAIT_S", 0.1)
    for name, value in (("ACCESS_KEY_ID", "test"), ("SECRET_ACCESS_KEY", "test")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def _fetcher(tmp_path: Path, proxy: TcpProxy, **settings: object) -> Fetcher:
    defaults: dict[str, object] = {
        "https_hosts": (f"127.0.0.1:{proxy.port}",),
        "allow_http": True,
        "allow_private_addresses": True,
        "s3_buckets": ("bucket",),
        "s3_endpoint": f"http://127.0.0.1:{proxy.port}",
        "connect_timeout_s": 0.5,
        "read_timeout_s": 0.5,
        "deadline_s": 3.0,
        "attempts": 2,
    }
    return Fetcher(FetchSettings(**(defaults | settings)), tmp_path / "scratch")


KINDS = pytest.mark.parametrize("kind", ["http", "s3"])


def _uri(kind: str, proxy: TcpProxy, name: str = "v.mp4") -> str:
    return f"s3://bucket/{name}" if kind == "s3" else f"http://127.0.0.1:{proxy.port}/{name}"


def _fault(fetcher: Fetcher, uri: str) -> StoreOut:
    with pytest.raises(StoreOut) as caught, fetcher.fetch(uri):
        pass
    return caught.value


def _blame(fetcher: Fetcher, uri: str) -> MediaError:
    with pytest.raises(MediaError) as caught, fetcher.fetch(uri):
        pass
    return caught.value


def _fetched_in_the_end(fetcher: Fetcher, uri: str) -> int:
    """How often it took; the store is back."""
    for times in range(1, 100):
        try:
            with fetcher.fetch(uri) as media:
                assert media.path.read_bytes() == BODY
                return times
        except StoreOut:
            time.sleep(0.05)
    raise AssertionError("a store that is back is not found so")


def _crawl(proxy: TcpProxy) -> None:
    proxy.bytes_per_s = 1000


@KINDS
@pytest.mark.parametrize("breaks", [TcpProxy.reset, TcpProxy.silence, TcpProxy.refuse, _crawl])
def test_a_store_that_is_out_is_waited_for_and_then_used(
    kind: str, breaks: Callable[[TcpProxy], None], tmp_path: Path, proxy: TcpProxy
) -> None:
    fetcher = _fetcher(tmp_path, proxy)
    breaks(proxy)
    fault = _fault(fetcher, _uri(kind, proxy))
    assert fault.store == ("s3://bucket" if kind == "s3" else f"http://127.0.0.1:{proxy.port}")
    assert "is out" in str(fault)
    proxy.mend()
    _fetched_in_the_end(fetcher, _uri(kind, proxy))
    assert not list((tmp_path / "scratch").iterdir())


@KINDS
def test_an_object_that_fails_while_its_store_answers_is_blamed(
    kind: str, tmp_path: Path, proxy: TcpProxy
) -> None:
    fetcher = _fetcher(tmp_path, proxy)
    error = _blame(fetcher, _uri(kind, proxy, "broken.mp4"))
    assert (error.reason, error.retryable) == (MediaReason.FETCH_FAILED, True)
    assert _fetched_in_the_end(fetcher, _uri(kind, proxy)) == 1


@KINDS
def test_a_connection_that_breaks_in_the_middle_is_made_again(
    kind: str, tmp_path: Path, proxy: TcpProxy
) -> None:
    proxy.reset_after = 5000
    error = _blame(_fetcher(tmp_path, proxy), _uri(kind, proxy))
    assert (error.reason, error.retryable) == (MediaReason.FETCH_FAILED, True)
    # Two attempts, and the question whether the store is there.
    assert proxy.accepted == 3


@KINDS
def test_a_store_that_is_known_to_be_out_is_not_asked_by_everyone(
    kind: str, tmp_path: Path, proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "FIRST_WAIT_S", 60.0)
    fetcher = _fetcher(tmp_path, proxy)
    proxy.mode = "reset"
    _fault(fetcher, _uri(kind, proxy))
    asked = proxy.accepted
    for _ in range(20):
        _fault(fetcher, _uri(kind, proxy))
    assert proxy.accepted == asked


@KINDS
def test_an_outage_ends_in_blame_and_a_restart_does_not_begin_it_anew(
    kind: str, tmp_path: Path, proxy: TcpProxy
) -> None:
    proxy.refuse()
    uri = _uri(kind, proxy)
    _fault(_fetcher(tmp_path, proxy), uri)
    time.sleep(0.3)
    error = _blame(_fetcher(tmp_path, proxy, outage_s=0.3), uri)
    assert (error.reason, error.retryable) == (MediaReason.FETCH_FAILED, True)
    assert "fetch.outage_s" in error.error
    proxy.mend()
    _fetched_in_the_end(_fetcher(tmp_path, proxy, outage_s=0.3), uri)
    proxy.refuse()
    _fault(_fetcher(tmp_path, proxy, outage_s=0.3), uri)


@pytest.mark.parametrize("hosts", [("127.0.0.1",), ("*.0.0.1",), ("*.0.0.1:{}",)])
def test_a_host_or_port_that_nobody_named_holds_nothing_up(
    hosts: tuple[str, ...], tmp_path: Path, proxy: TcpProxy
) -> None:
    named = tuple(host.format(proxy.port) for host in hosts)
    fetcher = _fetcher(tmp_path, proxy, https_hosts=named)
    proxy.refuse()
    error = _blame(fetcher, _uri("http", proxy))
    assert (error.reason, error.retryable) == (MediaReason.FETCH_FAILED, True)


def test_a_port_in_the_settings_allows_no_other(tmp_path: Path, proxy: TcpProxy) -> None:
    for host in (f"127.0.0.1:{proxy.port + 1}", f"*.0.0.1:{proxy.port + 1}"):
        fetcher = _fetcher(tmp_path, proxy, https_hosts=(host,))
        assert _blame(fetcher, _uri("http", proxy)).reason is MediaReason.URI_NOT_ALLOWED


def test_a_store_that_answers_nothing_but_503_is_out(tmp_path: Path) -> None:
    with serve({"/v.mp4": _failing(503), "/": _failing(503)}) as server:
        host = server.url.removeprefix("http://")
        settings = FetchSettings(
            https_hosts=(host,), allow_http=True, allow_private_addresses=True, attempts=1
        )
        assert "503" in str(_fault(Fetcher(settings, tmp_path), f"{server.url}/v.mp4"))


def test_a_named_host_without_an_address_is_out(tmp_path: Path) -> None:
    settings = FetchSettings(https_hosts=("videos.invalid",), attempts=1)
    fault = _fault(Fetcher(settings, tmp_path), "https://videos.invalid/v.mp4")
    assert "cannot be resolved" in str(fault)


def test_a_redirect_to_a_store_that_is_out_blames_nobody(tmp_path: Path, proxy: TcpProxy) -> None:
    def redirect(handler: BaseHTTPRequestHandler) -> None:
        answer(handler, 302, Location=f"http://127.0.0.1:{proxy.port}/v.mp4")

    with serve({"/v.mp4": redirect}) as front:
        host = front.url.removeprefix("http://")
        fetcher = _fetcher(tmp_path, proxy, https_hosts=(host, f"127.0.0.1:{proxy.port}"))
        proxy.mode = "reset"
        fault = _fault(fetcher, f"{front.url}/v.mp4")
        assert fault.store == f"http://127.0.0.1:{proxy.port}"


def test_credentials_that_are_refused_blame_no_object(tmp_path: Path) -> None:
    body = b"<?xml version='1.0'?><Error><Code>ExpiredToken</Code></Error>"
    refusal: Answer = lambda handler: answer(handler, 400, body)  # noqa: E731
    with serve({"/bucket/v.mp4": refusal}) as server:
        settings = FetchSettings(s3_buckets=("bucket",), s3_endpoint=server.url, attempts=1)
        assert "ExpiredToken" in str(_fault(Fetcher(settings, tmp_path), "s3://bucket/v.mp4"))


def test_a_folder_that_is_gone_is_out_and_a_file_that_is_gone_is_not_found(
    tmp_path: Path,
) -> None:
    root = tmp_path / "videos"
    fetcher = Fetcher(FetchSettings(file_roots=(str(root),)), tmp_path / "scratch")
    uri = (root / "v.mp4").as_uri()
    assert str(root) in str(_fault(fetcher, uri))
    root.mkdir()
    time.sleep(1.1 * stores.FIRST_WAIT_S)
    assert _blame(fetcher, uri).reason is MediaReason.NOT_FOUND
    (root / "v.mp4").write_bytes(BODY)
    assert _fetched_in_the_end(fetcher, uri) == 1


# The scratch disk


def _full(fetcher: Fetcher, uri: str) -> DependencyFault:
    with pytest.raises(DependencyFault) as caught, fetcher.fetch(uri):
        pass
    assert not isinstance(caught.value, StoreOut)
    return caught.value


@KINDS
def test_a_full_scratch_disk_blames_no_object(
    kind: str, tmp_path: Path, proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetcher = _fetcher(tmp_path, proxy)
    with small_disk(tmp_path / "scratch", len(BODY) // 2) as mounted:
        if not mounted:
            monkeypatch.setattr(failpoints, "_FOLDER", str(tmp_path))
            failpoints.arm(tmp_path, "scratch.write", "full")
        fault = _full(fetcher, _uri(kind, proxy))
        assert "No space left on device" in str(fault)
        assert str(tmp_path / "scratch") in str(fault)
        assert not list((tmp_path / "scratch").iterdir())


def test_only_an_object_larger_than_all_the_room_there_is_is_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, room = OSError(errno.ENOSPC, "No space left on device"), shutil.disk_usage(tmp_path).free
    folder = scratch.ScratchFolder(tmp_path)
    # Room enough for others is a gigabyte; here, any.
    monkeypatch.setattr(scratch, "ROOM_BYTES", 1)
    problem = folder.problem(full, 2 * room)
    assert isinstance(problem, FetchProblem)
    assert problem.reason is MediaReason.TOO_LARGE
    assert isinstance(folder.problem(full, 1), DependencyFault)
    monkeypatch.setattr(scratch, "ROOM_BYTES", 2 * room)
    assert isinstance(folder.problem(full, 2 * room), DependencyFault)


def test_a_scratch_folder_that_cannot_be_made_blames_no_object(
    tmp_path: Path, proxy: TcpProxy
) -> None:
    (tmp_path / "scratch").write_text("a file where the folder should be")
    fault = _full(_fetcher(tmp_path, proxy), _uri("http", proxy))
    assert "cannot be written" in str(fault)
