"""Videos fetched and probed at once: which, how many, and what one that fails costs the others.

The servers are real ones on loopback; each is a store of its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from ingest import prober as prober_module
from ingest.prober import NotProbed, Probed, Prober
from ingest.store_names import StoreNames
from processors import failpoints
from processors.errors import DependencyFault
from processors.fetch import Fetcher
from processors.stores import StoreOut
from schemas.reasons import MediaReason
from schemas.settings import DecodeSettings, FetchSettings
from tests.conftest import wait_until
from tests.media import sample
from tests.servers import Gate, Served, serve
from tests.tcp_proxy import proxied

AT_ONCE = 2


@pytest.fixture(scope="module")
def body() -> bytes:
    return sample("carphone_pristine.mp4").read_bytes()


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()


@pytest.fixture
def near(body: bytes) -> Iterator[Served]:
    """Answers at once."""
    with serve({"/v.mp4": body, "/junk.mp4": b"junk" * 100}) as served:
        yield served


@pytest.fixture
def slow(body: bytes, gate: Gate) -> Iterator[Served]:
    """Answers once the gate is open."""
    with serve({"/v.mp4": gate.page(body)}) as served:
        yield served


@contextmanager
def probing(folder: Path, *urls: str, patience_s: float = 30.0, **more: object) -> Iterator[Prober]:
    prober = Prober(
        fetch_settings(*urls, **more), DecodeSettings(), folder / "scratch", patience_s=patience_s
    )
    try:
        yield prober
    finally:
        prober.close()


def fetch_settings(*urls: str, **more: object) -> FetchSettings:
    values: dict[str, object] = {
        "https_hosts": tuple(url.removeprefix("http://") for url in urls),
        "allow_http": True,
        "allow_private_addresses": True,
        "attempts": 1,
        "at_once": AT_ONCE,
    }
    return FetchSettings(**(values | more))


def finished(prober: Prober, count: int, timeout_s: float = 60.0) -> dict[str, Probed | NotProbed]:
    """The next results, by name; there are as many, and no more."""
    results: list[tuple[str, Probed | NotProbed]] = []
    until = time.monotonic() + timeout_s
    while len(results) < count:
        assert time.monotonic() < until, f"{len(results)} of {count} within {timeout_s} s"
        prober.wait(1.0)
        results += prober.finished()
    assert len(results) == count
    return dict(results)


def test_a_video_and_one_of_which_nothing_can_be_made(tmp_path: Path, near: Served) -> None:
    with probing(tmp_path, near.url) as prober:
        names = ("v", "junk", "absent")
        for name in names:
            prober.submit(name, f"{near.url}/{name}.mp4")
        prober.submit("elsewhere", "https://example.org/v.mp4")
        prober.submit("no URI", "http://[")
        results = finished(prober, 5)
    video = results["v"]
    assert isinstance(video, Probed)
    assert (video.info.width, video.info.height) == (176, 144)
    reasons = {
        name: (result.error.reason, result.error.stage, result.attempts)
        for name, result in results.items()
        if isinstance(result, NotProbed)
    }
    assert reasons == {
        "junk": (MediaReason.NOT_A_VIDEO, "probe", 1),
        "absent": (MediaReason.NOT_FOUND, "fetch", 1),
        "elsewhere": (MediaReason.URI_NOT_ALLOWED, "fetch", 1),
        "no URI": (MediaReason.URI_NOT_ALLOWED, "fetch", 1),
    }


def test_what_was_probed_is_kept_for_those_who_score_it(tmp_path: Path, near: Served) -> None:
    with probing(tmp_path, near.url) as prober:
        prober.submit("v", f"{near.url}/v.mp4")
        prober.submit("junk", f"{near.url}/junk.mp4")
        video = finished(prober, 2)["v"]
        assert isinstance(video, Probed)
        # The scratch file of whoever was probed last may still be on its way out.
        wait_until(lambda: len(list((tmp_path / "scratch").iterdir())) == 1)
        asked = len(near.requests)
        fetcher = Fetcher(fetch_settings(near.url), tmp_path / "scratch", keep_for="split")
        with fetcher.fetch(f"{near.url}/v.mp4", expected_sha256=video.sha256) as media:
            assert media.bytes_fetched == 0
        assert len(near.requests) == asked
    wait_until(lambda: not list((tmp_path / "scratch").iterdir()))


def test_several_videos_of_a_store_are_fetched_at_once_and_no_more_than_that(
    tmp_path: Path, slow: Served, gate: Gate
) -> None:
    with probing(tmp_path, slow.url) as prober:
        for number in range(3 * AT_ONCE):
            prober.submit(str(number), f"{slow.url}/v.mp4?{number}")
        wait_until(lambda: gate.waiting == AT_ONCE)
        time.sleep(0.3)
        gate.open()
        assert set(finished(prober, 3 * AT_ONCE)) == {str(n) for n in range(3 * AT_ONCE)}
    assert gate.most == AT_ONCE


def test_a_store_that_hangs_holds_up_no_other(
    tmp_path: Path, slow: Served, near: Served, gate: Gate
) -> None:
    with probing(tmp_path, slow.url, near.url) as prober:
        for number in range(50):
            prober.submit(f"slow {number}", f"{slow.url}/v.mp4?{number}")
        wait_until(lambda: gate.waiting == AT_ONCE)
        for number in range(10):
            prober.submit(f"near {number}", f"{near.url}/v.mp4?{number}")
        assert set(finished(prober, 10)) == {f"near {number}" for number in range(10)}
        gate.open()


def test_all_stores_together_have_a_limit_too(tmp_path: Path, body: bytes, gate: Gate) -> None:
    with ExitStack() as stack:
        urls = [stack.enter_context(serve({"/v.mp4": gate.page(body)})).url for _ in range(10)]
        prober = stack.enter_context(probing(tmp_path, *urls))
        for number in range(AT_ONCE):
            for url in urls:
                prober.submit(f"{url} {number}", f"{url}/v.mp4?{number}")
        wait_until(lambda: gate.waiting == prober.most)
        time.sleep(0.3)
        gate.open()
        finished(prober, 10 * AT_ONCE)
    assert gate.most == prober.most == 4 * AT_ONCE


def test_what_is_not_taken_holds_up_the_next(tmp_path: Path, near: Served) -> None:
    with probing(tmp_path, near.url, at_once=1) as prober:
        for number in range(30):
            prober.submit(str(number), f"{near.url}/v.mp4?{number}")
        wait_until(lambda: len(near.requests) >= prober.most)
        time.sleep(1.0)
        # Who was at it when the last place was taken still ends.
        assert len(near.requests) <= prober.most + 1
        finished(prober, 30)


def test_a_store_that_is_out_is_tried_by_one_video_at_a_time_until_one_succeeds(
    tmp_path: Path, slow: Served, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("processors.stores.FIRST_WAIT_S", 0.1)
    with proxied(int(slow.url.rpartition(":")[2])) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        proxy.mode = "reset"
        with probing(tmp_path, url) as prober:
            for number in range(6):
                prober.submit(str(number), f"{url}/v.mp4?{number}")
            wait_until(lambda: proxy.accepted >= 4)
            proxy.mend()
            wait_until(lambda: gate.waiting == 1)
            time.sleep(1.0)
            assert gate.most == 1
            gate.open()
            assert set(finished(prober, 6)) == {str(number) for number in range(6)}
            assert all(isinstance(r, Probed) for r in finished_again(prober, url).values())


def finished_again(prober: Prober, url: str) -> dict[str, Probed | NotProbed]:
    """More of a store that is back."""
    for number in range(6, 12):
        prober.submit(str(number), f"{url}/v.mp4?{number}")
    return finished(prober, 6)


def test_a_store_that_stays_out_is_said_when_patience_is_over_and_others_go_on(
    tmp_path: Path, near: Served
) -> None:
    with proxied(int(near.url.rpartition(":")[2])) as proxy:
        proxy.refuse()
        url = f"http://127.0.0.1:{proxy.port}"
        with probing(tmp_path, url, near.url, patience_s=4.0) as prober:
            began = time.monotonic()
            prober.submit("out", f"{url}/v.mp4")
            prober.submit("near", f"{near.url}/v.mp4")
            assert isinstance(finished(prober, 1)["near"], Probed)
            with pytest.raises(StoreOut, match=str(proxy.port)):
                finished(prober, 1)
            assert time.monotonic() - began >= 4.0
        # However often the job starts anew, in the end it goes on without the video.
        with probing(tmp_path, url, outage_s=0.1) as prober:
            prober.submit("out", f"{url}/v.mp4")
            result = finished(prober, 1)["out"]
            assert isinstance(result, NotProbed)
            assert result.error.retryable
            assert result.error.reason == MediaReason.FETCH_FAILED


def test_a_scratch_folder_that_cannot_be_written_is_no_videos_fault(
    tmp_path: Path, near: Served
) -> None:
    (tmp_path / "scratch").write_text("a file where the folder should be")
    with probing(tmp_path, near.url, patience_s=0.5) as prober:
        prober.submit("v", f"{near.url}/v.mp4")
        with pytest.raises(DependencyFault):
            finished(prober, 1)


def test_what_is_nobodys_fault_is_raised_at_once(
    tmp_path: Path, near: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failpoints, "_FOLDER", str(tmp_path))
    failpoints.arm(tmp_path, "fetch.done", "fail")
    with probing(tmp_path, near.url) as prober:
        prober.submit("v", f"{near.url}/v.mp4")
        with pytest.raises(OSError, match="failpoint"):
            finished(prober, 1, timeout_s=10)


def test_a_file_at_which_the_decoder_hangs_holds_up_no_other(
    tmp_path: Path, near: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = prober_module.Sandbox.run
    hung = threading.Event()

    def hang_once(sandbox: object, function: object, path: str, **more: object) -> object:
        if not hung.is_set():
            hung.set()
            return run(sandbox, time.sleep, 20, deadline_s=5.0, stage="probe")
        return run(sandbox, function, path, **more)

    monkeypatch.setattr(prober_module.Sandbox, "run", hang_once)
    with probing(tmp_path, near.url) as prober:
        prober.submit("hangs", f"{near.url}/v.mp4")
        wait_until(hung.is_set)
        began = time.monotonic()
        for number in range(4):
            prober.submit(str(number), f"{near.url}/v.mp4?{number}")
        assert set(finished(prober, 4)) == {"0", "1", "2", "3"}
        assert time.monotonic() - began < 5.0
        result = finished(prober, 1)["hangs"]
        assert isinstance(result, NotProbed)
        assert result.error.reason == MediaReason.DECODER_TIMEOUT


def test_closing_waits_for_no_fetch_and_leaves_no_process_and_no_file(
    tmp_path: Path, slow: Served, near: Served, gate: Gate
) -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with probing(tmp_path, slow.url, near.url) as prober:
        prober.submit("near", f"{near.url}/v.mp4")
        finished(prober, 1)
        prober.submit("slow", f"{slow.url}/v.mp4")
        wait_until(lambda: gate.waiting == 1)
        began = time.monotonic()
    assert time.monotonic() - began < 5.0
    gate.open()

    def all_gone() -> bool:
        children = {child.pid for child in psutil.Process().children(recursive=True)}
        return children <= before and not list((tmp_path / "scratch").iterdir())

    wait_until(all_gone)


@pytest.mark.parametrize(
    ("uri", "store"),
    [
        ("s3://uploads/2026/a.mp4", "s3://uploads"),
        ("https://cdn.example.org/a.mp4", "cdn.example.org"),
        ("https://CDN.example.org:444/a.mp4", "cdn.example.org"),
        ("https://a.example.net/a.mp4", "*.example.net"),
        ("https://b.c.example.net/a.mp4", "*.example.net"),
        ("https://elsewhere.org/a.mp4", ""),
        ("file:///videos/a.mp4", "/videos"),
        ("file:///other/a.mp4", ""),
        ("ftp://a/b", ""),
        ("https://[", ""),
    ],
)
def test_a_store_is_what_the_settings_name(uri: str, store: str) -> None:
    settings = FetchSettings(
        https_hosts=("cdn.example.org", "*.example.net"), file_roots=("/videos",)
    )
    assert StoreNames(settings).of(uri) == store
