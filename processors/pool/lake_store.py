"""Whether what a lake lies in answers at all, asked before libraries that try for minutes.

For people who wait. The pool's driver does not ask: it has those minutes.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

import urllib3
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed
from urllib3.exceptions import HTTPError, SSLError

from processors.fetch_problem import redact
from schemas.problems import Unreachable

_TIMEOUT = urllib3.Timeout(connect=5.0, read=5.0)
_PATIENCE_S = 8.0


def require_answer(options: Mapping[str, str]) -> None:
    """`Unreachable` if a host that catalog.options name by an address says nothing.

    Those are the endpoint of an S3-compatible store and the ``uri`` of a REST catalog. What has no
    address there, like AWS's own store, is not asked, nor anything behind a proxy.
    """
    for name, url in _addresses(options):
        trying = Retrying(
            retry=retry_if_exception_type(HTTPError),
            stop=stop_after_delay(_PATIENCE_S),
            wait=wait_fixed(0.5),
            reraise=True,
        )
        try:
            trying(_ask, url)
        except HTTPError as error:
            warehouse = redact(str(options.get("warehouse")))
            raise Unreachable(
                f"the lake at {warehouse}: {redact(url)} does not answer ({_words(error)}); is it "
                f"running, and is {name} in catalog.options right?"
            ) from None


def _ask(url: str) -> None:
    """Return once the host says anything, if only that it wants a key or another protocol."""
    # Whether its certificate is good is for the catalog to say.
    with urllib3.PoolManager(cert_reqs="CERT_NONE", timeout=_TIMEOUT, retries=False) as pool:
        try:
            pool.request("HEAD", url, preload_content=False).close()
        except SSLError:
            return


def _words(error: HTTPError) -> str:
    reason = str(error).rpartition(": ")[2]
    return reason or type(error).__name__


def _addresses(options: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Option and URL of each address; what is no address is left to the catalog."""
    remote = urlsplit(str(options.get("warehouse", ""))).scheme not in ("", "file")
    proxies = urllib.request.getproxies()
    for name, value in options.items():
        if name != "uri" and not (remote and name.endswith(".endpoint")):
            continue
        url = str(value) if "://" in str(value) else f"https://{value}"
        try:
            parts = urlsplit(url)
            host = parts.hostname or ""
            parts.port  # noqa: B018  raises for what is none
        except ValueError:
            continue
        behind_proxy = parts.scheme in proxies and not urllib.request.proxy_bypass(host)
        if host and parts.scheme in ("http", "https") and not behind_proxy:
            yield name, url
